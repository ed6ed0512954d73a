//! Sagas: steps in order, each with an action and, if it has an effect, a compensation.
//!
//! A saga is an aggregate. Its definition is a list of steps. Its events name the step that is due,
//! and the function of a step subscribes to exactly these events. The order of the steps is thus
//! defined in one place, without an orchestrator that could fail between two steps.
//!
//! Three rules protect money and goods:
//! - A cancellation does not overtake a step that is due. The saga records it, and compensates when
//!   the outcome of that step is known.
//! - A step whose outcome stays unknown after all retries counts as done, and is compensated.
//! - A failed compensation is never ignored: the saga is stuck, and reports the step. An operator
//!   resumes the saga, or completes the step manually and abandons it.

use std::{fmt::Debug, hash::Hash, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    decider::{Aggregate, Decider},
    event::{self, ReadOnly, Upcaster},
    guard::{Guard, holds},
};

/// The definition of a saga: its steps, and their input.
pub trait Definition: Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The steps. Their serialized names are stored, and are part of the event patterns of rules.
    type Step: Copy
        + Debug
        + Eq
        + Hash
        + Serialize
        + DeserializeOwned
        + JsonSchema
        + Send
        + Sync
        + 'static;
    /// The data that the steps use, fixed at the start.
    type Input: Clone + Debug + PartialEq + Serialize + DeserializeOwned + JsonSchema + Send + Sync;

    /// The category of the streams.
    const CATEGORY: &'static str;
    /// The steps in order, at least one.
    const STEPS: &'static [Self::Step];
    /// The new steps that this release executes and does not make due, each with the step that
    /// follows it. The next release has them in [`STEPS`](Self::STEPS). While both releases run,
    /// and after a rollback, this one completes a step that the next one has made due.
    const READ_ONLY_STEPS: &'static [(Self::Step, Option<Self::Step>)] = &[];
    /// The stored names of the saga's events. See [`event::Event::RENAMED`].
    const EVENT_NAMES: &'static [(&'static str, &'static str)];
    /// The number of retries of a step without an outcome before it is abandoned.
    const RETRIES: u32;
    /// The upcasters of earlier schema versions of the events.
    const UPCASTERS: &'static [Upcaster] = &[];
    /// The events that this release reads and does not write yet. See [`event::Event::READ_ONLY`].
    const READ_ONLY: &'static [ReadOnly] = &[];

    /// Returns true if a completed step has an effect that must be compensated.
    fn needs_compensation(step: Self::Step) -> bool;
}

/// The direction of a step: execute or compensate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Execute the step.
    Execute,
    /// Compensate the step.
    Compensate,
}

/// A step that is due, and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Due<Step> {
    /// The step that is due.
    pub step: Step,
    /// The direction of the step: execute or compensate.
    pub action: Action,
}

impl<Step> Due<Step> {
    /// The execution of a step.
    pub fn execute(step: Step) -> Self {
        Self {
            step,
            action: Action::Execute,
        }
    }

    /// The compensation of a step.
    pub fn compensate(step: Step) -> Self {
        Self {
            step,
            action: Action::Compensate,
        }
    }
}

/// A saga of one definition, as a decider.
#[derive(Debug)]
pub struct Saga<D>(std::marker::PhantomData<D>);

/// The state of a saga.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "D: Definition")]
pub enum State<D: Definition> {
    /// The saga has not started.
    #[default]
    NotStarted,
    /// A step is due.
    Running {
        /// The data that the steps use.
        input: D::Input,
        /// The completed steps in order.
        done: Vec<D::Step>,
        /// The step that is due.
        due: D::Step,
        /// The number of retries of the step.
        retries: u32,
    },
    /// A cancellation waits for the outcome of the step that is due.
    #[serde(rename = "Halting")]
    CancelPending {
        /// The data that the steps use.
        input: D::Input,
        /// The completed steps in order.
        done: Vec<D::Step>,
        /// The step that is due.
        due: D::Step,
        /// The number of retries of the step.
        retries: u32,
        /// The reason for the cancellation.
        reason: String,
    },
    /// The compensation of a step is due.
    Compensating {
        /// The data that the steps use.
        input: D::Input,
        /// The completed steps to compensate after this one, in order of execution.
        rest: Vec<D::Step>,
        /// The step whose compensation is due.
        due: D::Step,
        /// The number of retries of the step.
        retries: u32,
        /// The attempt at the step: it increases by one each time that the saga is resumed.
        #[serde(rename = "round")]
        attempt: u32,
        /// The reason for the compensation.
        reason: String,
    },
    /// Every step is completed.
    Completed {
        /// The data that the steps used.
        input: D::Input,
        /// The completed steps in order.
        done: Vec<D::Step>,
    },
    /// The saga ended without completion, and its steps are compensated or abandoned.
    Aborted {
        /// The reason.
        reason: String,
    },
    /// A compensation failed: the saga needs manual action.
    Stuck {
        /// The data that the steps use.
        input: D::Input,
        /// The completed steps to compensate after this one, in order of execution.
        rest: Vec<D::Step>,
        /// The step whose compensation failed.
        step: D::Step,
        /// The attempt at the step: it increases by one each time that the saga is resumed.
        #[serde(rename = "round")]
        attempt: u32,
        /// The reason for the compensation.
        reason: String,
        /// The reason for the failure of the compensation.
        failure: String,
    },
}

impl<D: Definition> State<D> {
    /// Returns the step that is due; `None` before the start and after the end.
    pub fn due(&self) -> Option<Due<D::Step>> {
        match self {
            Self::Running { due, .. } | Self::CancelPending { due, .. } => Some(Due::execute(*due)),
            Self::Compensating { due, .. } => Some(Due::compensate(*due)),
            Self::NotStarted
            | Self::Completed { .. }
            | Self::Aborted { .. }
            | Self::Stuck { .. } => None,
        }
    }

    /// Returns the data that the steps use; `None` before the start and after an abort.
    pub fn input(&self) -> Option<&D::Input> {
        match self {
            Self::Running { input, .. }
            | Self::CancelPending { input, .. }
            | Self::Compensating { input, .. }
            | Self::Stuck { input, .. }
            | Self::Completed { input, .. } => Some(input),
            Self::NotStarted | Self::Aborted { .. } => None,
        }
    }

    /// Returns the reason for the cancellation or compensation, if any.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::CancelPending { reason, .. }
            | Self::Compensating { reason, .. }
            | Self::Stuck { reason, .. }
            | Self::Aborted { reason } => Some(reason),
            Self::NotStarted | Self::Running { .. } | Self::Completed { .. } => None,
        }
    }

    /// Returns the number of retries of the step that is due.
    pub fn retries(&self) -> u32 {
        match self {
            Self::Running { retries, .. }
            | Self::CancelPending { retries, .. }
            | Self::Compensating { retries, .. } => *retries,
            Self::NotStarted
            | Self::Completed { .. }
            | Self::Aborted { .. }
            | Self::Stuck { .. } => 0,
        }
    }

    /// Returns the number of times that the saga was resumed at the step that is due.
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Compensating { attempt, .. } | Self::Stuck { attempt, .. } => *attempt,
            Self::NotStarted
            | Self::Running { .. }
            | Self::CancelPending { .. }
            | Self::Completed { .. }
            | Self::Aborted { .. } => 0,
        }
    }

    /// Returns the timeout of the step that is due: `first`, doubled after each retry, so that the
    /// retries outlast an outage of a provider.
    pub fn step_timeout(&self, first: Duration) -> Duration {
        first.saturating_mul(2_u32.saturating_pow(self.retries()))
    }

    /// Returns true if the saga is completed, aborted or stuck, and does nothing by itself.
    pub fn has_ended(&self) -> bool {
        matches!(
            self,
            Self::Completed { .. } | Self::Aborted { .. } | Self::Stuck { .. }
        )
    }
}

/// A command to a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<D: Definition> {
    /// Starts the saga.
    Start(D::Input),
    /// Records that a step was executed, with a detail for display.
    Complete(D::Step, Option<String>),
    /// Records that a step failed permanently.
    Fail(D::Step, String),
    /// Records that a step was compensated.
    Undone(D::Step),
    /// Records that the compensation of a step failed permanently.
    UndoFailed(D::Step, String),
    /// Cancels the saga: it compensates all completed steps.
    Cancel(String),
    /// Requests a step without an outcome again or, after the last retry, abandons it. The number
    /// is that of the retries so far.
    Retry(Due<D::Step>, u32),
    /// Requests a step again that a provider throttled. This uses up no retry.
    AskAgain(Due<D::Step>),
    /// Resumes a stuck saga at the step whose compensation failed.
    Resume,
    /// Abandons the step whose compensation failed, and compensates the rest.
    Abandon(String),
}

/// An event of a saga. Its `next` names the step that becomes due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", bound = "")]
#[schemars(bound = "D: Definition")]
pub enum Event<D: Definition> {
    /// A saga started.
    Started {
        /// The data that the steps use.
        input: D::Input,
        /// The first step, which becomes due.
        next: Due<D::Step>,
    },
    /// A step was executed.
    StepCompleted {
        /// The step that was executed.
        step: D::Step,
        /// A detail of the outcome, for display.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// The step that becomes due, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// A step failed permanently, or had no outcome after the last retry.
    StepFailed {
        /// The step that failed.
        step: D::Step,
        /// The reason for the failure.
        reason: String,
        /// The step that becomes due, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// A step was compensated.
    StepCompensated {
        /// The step that was compensated.
        step: D::Step,
        /// The step that becomes due, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// The compensation of a step failed permanently, or had no outcome after the last retry.
    CompensationFailed {
        /// The step whose compensation failed.
        step: D::Step,
        /// The reason for the failure.
        reason: String,
    },
    /// A step without an outcome is requested again.
    StepRetried {
        /// The step that is requested again.
        step: D::Step,
        /// The number of retries so far. A request after throttling does not count as a retry.
        retry: u32,
        /// The step that is still due.
        next: Due<D::Step>,
    },
    /// An operator abandoned a step whose compensation had failed.
    StepAbandoned {
        /// The step that was abandoned.
        step: D::Step,
        /// The operator's reason.
        reason: String,
        /// The step that becomes due, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// An operator resumed a stuck saga: its failed compensation is requested again.
    Resumed {
        /// The step that becomes due.
        next: Due<D::Step>,
    },
    /// A cancellation from outside the saga was recorded.
    #[serde(rename = "CancellationNoted")]
    CancelRequested {
        /// The reason for the cancellation.
        reason: String,
        /// The step that becomes due. It is absent while the outcome of a step is pending.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// A saga completed all its steps.
    Completed {},
    /// A saga ended without completion. Its executed steps were compensated or abandoned.
    Aborted {
        /// The reason for the abort.
        reason: String,
    },
    /// A saga is stuck: a compensation failed, and an operator must resume or abandon the step.
    Stuck {
        /// The step whose compensation failed.
        step: D::Step,
        /// The reason for the failure.
        reason: String,
    },
}

impl<D: Definition> Event<D> {
    /// Returns the step that becomes due.
    pub fn next(&self) -> Option<Due<D::Step>> {
        match self {
            Self::Started { next, .. }
            | Self::StepRetried { next, .. }
            | Self::Resumed { next } => Some(*next),
            Self::StepCompleted { next, .. }
            | Self::StepFailed { next, .. }
            | Self::StepCompensated { next, .. }
            | Self::StepAbandoned { next, .. }
            | Self::CancelRequested { next, .. } => *next,
            Self::CompensationFailed { .. }
            | Self::Completed {}
            | Self::Aborted { .. }
            | Self::Stuck { .. } => None,
        }
    }
}

/// The reason for the rejection of a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The step is not due: its outcome is recorded, or the saga has continued without it.
    #[error("the step is not due")]
    NotDue,
    /// The saga has already started.
    #[error("the saga has already started")]
    AlreadyStarted,
    /// The saga is not stuck.
    #[error("the saga is not stuck")]
    NotStuck,
}

impl<D: Definition> Decider for Saga<D> {
    type State = State<D>;
    type Command = Command<D>;
    type Event = Event<D>;
    type Rejection = Rejection;

    #[expect(
        clippy::too_many_lines,
        reason = "every command in every state, written out"
    )]
    fn decide(state: &State<D>, command: &Command<D>) -> Result<Vec<Event<D>>, Rejection> {
        match (command, state) {
            (Command::Start(input), State::NotStarted) => Ok(started::<D>(input)),
            (
                Command::Start(_),
                State::Running { .. }
                | State::CancelPending { .. }
                | State::Compensating { .. }
                | State::Completed { .. }
                | State::Aborted { .. }
                | State::Stuck { .. },
            ) => Err(Rejection::AlreadyStarted),

            (Command::Complete(step, detail), State::Running { due, .. }) if step == due => {
                Ok(completed(*step, detail.clone()))
            }
            (
                Command::Complete(step, detail),
                State::CancelPending {
                    done, due, reason, ..
                },
            ) if step == due => {
                let done: Vec<_> = done.iter().copied().chain([*step]).collect();
                let detail = detail.clone();
                Ok(unwinding::<D>(&done, reason, |next| Event::StepCompleted {
                    step: *step,
                    detail,
                    next,
                }))
            }
            (Command::Fail(step, reason), State::Running { done, due, .. }) if step == due => {
                Ok(unwinding::<D>(done, reason, |next| Event::StepFailed {
                    step: *step,
                    reason: reason.clone(),
                    next,
                }))
            }
            (
                Command::Fail(step, failure),
                State::CancelPending {
                    done, due, reason, ..
                },
            ) if step == due => Ok(unwinding::<D>(done, reason, |next| Event::StepFailed {
                step: *step,
                reason: failure.clone(),
                next,
            })),
            (
                Command::Undone(step),
                State::Compensating {
                    rest, due, reason, ..
                },
            ) if step == due => Ok(unwinding::<D>(rest, reason, |next| {
                Event::StepCompensated { step: *step, next }
            })),
            (Command::UndoFailed(step, reason), State::Compensating { due, .. }) if step == due => {
                Ok(stuck(*step, reason))
            }

            (
                Command::Retry(next, tried),
                State::Running { retries, .. }
                | State::CancelPending { retries, .. }
                | State::Compensating { retries, .. },
            ) if state.due() == Some(*next) && tried == retries => Ok(if *retries < D::RETRIES {
                vec![Event::StepRetried {
                    step: next.step,
                    retry: retries + 1,
                    next: *next,
                }]
            } else {
                abandoned(state)
            }),

            (
                Command::AskAgain(next),
                State::Running { retries, .. }
                | State::CancelPending { retries, .. }
                | State::Compensating { retries, .. },
            ) if state.due() == Some(*next) => Ok(vec![Event::StepRetried {
                step: next.step,
                retry: *retries,
                next: *next,
            }]),

            (
                Command::Complete(..)
                | Command::Fail(..)
                | Command::Undone(_)
                | Command::UndoFailed(..)
                | Command::AskAgain(_)
                | Command::Retry(..),
                State::NotStarted
                | State::Running { .. }
                | State::CancelPending { .. }
                | State::Compensating { .. }
                | State::Completed { .. }
                | State::Aborted { .. }
                | State::Stuck { .. },
            ) => Err(Rejection::NotDue),

            // A saga that is cancelled before its start never starts.
            (Command::Cancel(reason), State::NotStarted) => Ok(vec![Event::Aborted {
                reason: reason.clone(),
            }]),
            (Command::Cancel(reason), State::Running { .. }) => Ok(vec![Event::CancelRequested {
                reason: reason.clone(),
                next: None,
            }]),
            (Command::Cancel(reason), State::Completed { done, .. }) => {
                Ok(unwinding::<D>(done, reason, |next| {
                    Event::CancelRequested {
                        reason: reason.clone(),
                        next,
                    }
                }))
            }
            (
                Command::Cancel(_),
                State::CancelPending { .. }
                | State::Compensating { .. }
                | State::Aborted { .. }
                | State::Stuck { .. },
            ) => Ok(vec![]),

            (Command::Resume, State::Stuck { step, .. }) => Ok(vec![Event::Resumed {
                next: Due::compensate(*step),
            }]),
            (
                Command::Abandon(said),
                State::Stuck {
                    step, rest, reason, ..
                },
            ) => Ok(unwinding::<D>(rest, reason, |next| Event::StepAbandoned {
                step: *step,
                reason: said.clone(),
                next,
            })),
            (
                Command::Resume | Command::Abandon(_),
                State::NotStarted
                | State::Running { .. }
                | State::CancelPending { .. }
                | State::Compensating { .. }
                | State::Completed { .. }
                | State::Aborted { .. },
            ) => Err(Rejection::NotStuck),
        }
    }

    fn evolve(state: State<D>, event: &Event<D>) -> State<D> {
        match event {
            Event::Started { input, next } => State::Running {
                input: input.clone(),
                done: vec![],
                due: next.step,
                retries: 0,
            },
            Event::StepCompleted { step, next, .. } => proceed(state, Some(*step), *next),
            Event::StepFailed { next, reason, .. } | Event::CancelRequested { next, reason } => {
                proceed(because(state, reason), None, *next)
            }
            Event::StepCompensated { next, .. } | Event::StepAbandoned { next, .. } => {
                proceed(state, None, *next)
            }
            Event::StepRetried { retry, .. } => retried(state, *retry),
            Event::Resumed { .. } => resumed(state),
            Event::CompensationFailed { reason, .. } => into_stuck(state, reason),
            // It follows `CompensationFailed`, which has changed the state, and notifies consumers.
            Event::Stuck { .. } => state,
            Event::Completed {} => match state {
                State::Running {
                    input,
                    mut done,
                    due,
                    ..
                } => {
                    done.push(due);
                    State::Completed { input, done }
                }
                State::NotStarted
                | State::CancelPending { .. }
                | State::Compensating { .. }
                | State::Completed { .. }
                | State::Aborted { .. }
                | State::Stuck { .. } => state,
            },
            Event::Aborted { reason } => State::Aborted {
                reason: reason.clone(),
            },
        }
    }
}

impl<D: Definition> Aggregate for Saga<D> {
    const CATEGORY: &'static str = D::CATEGORY;
}

impl<D: Definition> event::Event for Event<D> {
    const UPCASTERS: &'static [Upcaster] = D::UPCASTERS;
    const READ_ONLY: &'static [ReadOnly] = D::READ_ONLY;
    const RENAMED: &'static [(&'static str, &'static str)] = D::EVENT_NAMES;
}

/// Returns the step after one, or the first step.
fn following<D: Definition>(step: Option<D::Step>) -> Option<D::Step> {
    let mut read_only = D::READ_ONLY_STEPS.iter();
    if let Some((_, next)) = read_only.find(|(new, _)| step == Some(*new)) {
        return *next;
    }
    let index = step.map_or(0, |step| {
        1 + D::STEPS.iter().take_while(|other| **other != step).count()
    });
    D::STEPS.get(index).copied()
}

fn started<D: Definition>(input: &D::Input) -> Vec<Event<D>> {
    match following::<D>(None) {
        Some(first) => vec![Event::Started {
            input: input.clone(),
            next: Due::execute(first),
        }],
        // A saga without steps never starts.
        None => vec![],
    }
}

fn completed<D: Definition>(step: D::Step, detail: Option<String>) -> Vec<Event<D>> {
    let next = following::<D>(Some(step)).map(Due::execute);
    let completed = Event::StepCompleted { step, detail, next };
    match next {
        Some(_) => vec![completed],
        None => vec![completed, Event::Completed {}],
    }
}

/// Returns the events that make the compensation of the last completed step due, or that end the
/// saga if no step needs compensation.
fn unwinding<D: Definition>(
    done: &[D::Step],
    reason: &str,
    event: impl FnOnce(Option<Due<D::Step>>) -> Event<D>,
) -> Vec<Event<D>> {
    match last_to_undo::<D>(done) {
        Some((step, _)) => vec![event(Some(Due::compensate(step)))],
        None => vec![
            event(None),
            Event::Aborted {
                reason: reason.to_owned(),
            },
        ],
    }
}

fn stuck<D: Definition>(step: D::Step, reason: &str) -> Vec<Event<D>> {
    vec![
        Event::CompensationFailed {
            step,
            reason: reason.to_owned(),
        },
        Event::Stuck {
            step,
            reason: reason.to_owned(),
        },
    ]
}

/// Returns the events of a step that has no outcome after the last retry. The step may have taken
/// effect, so it is compensated.
fn abandoned<D: Definition>(state: &State<D>) -> Vec<Event<D>> {
    const FAILURE: &str = "no outcome in time";
    let unwound = |done: &[D::Step], step: D::Step, reason: &str| {
        let done: Vec<_> = done.iter().copied().chain([step]).collect();
        unwinding::<D>(&done, reason, |next| Event::StepFailed {
            step,
            reason: FAILURE.to_owned(),
            next,
        })
    };
    match state {
        State::Running { done, due, .. } => unwound(done, *due, FAILURE),
        State::CancelPending {
            done, due, reason, ..
        } => unwound(done, *due, reason),
        State::Compensating { due, .. } => stuck(*due, FAILURE),
        State::NotStarted
        | State::Completed { .. }
        | State::Aborted { .. }
        | State::Stuck { .. } => vec![],
    }
}

fn last_to_undo<D: Definition>(done: &[D::Step]) -> Option<(D::Step, &[D::Step])> {
    let leaves = |step: &D::Step| D::needs_compensation(*step);
    let index = if holds(Guard::CompensationOrder) {
        done.iter().rposition(leaves)?
    } else {
        done.iter().position(leaves)?
    };
    let (rest, tail) = done.split_at(index);
    Some((*tail.first()?, rest))
}

/// Adds a reason for compensation to a state without one.
fn because<D: Definition>(state: State<D>, reason: &str) -> State<D> {
    match state {
        State::Running {
            input,
            done,
            due,
            retries,
        } => State::CancelPending {
            input,
            done,
            due,
            retries,
            reason: reason.to_owned(),
        },
        State::Completed { input, mut done } => match done.pop() {
            Some(due) => State::CancelPending {
                input,
                done,
                due,
                retries: 0,
                reason: reason.to_owned(),
            },
            None => State::Completed { input, done },
        },
        State::NotStarted
        | State::CancelPending { .. }
        | State::Compensating { .. }
        | State::Aborted { .. }
        | State::Stuck { .. } => state,
    }
}

/// Continues with the step that became due. `step` is the step that was just completed.
fn proceed<D: Definition>(
    state: State<D>,
    step: Option<D::Step>,
    next: Option<Due<D::Step>>,
) -> State<D> {
    let Some(Due { step: due, action }) = next else {
        return state;
    };
    match (state, action) {
        (
            State::Running {
                input, mut done, ..
            },
            Action::Execute,
        ) => {
            done.extend(step);
            State::Running {
                input,
                done,
                due,
                retries: 0,
            }
        }
        (
            State::CancelPending {
                input,
                done: steps,
                reason,
                ..
            }
            | State::Compensating {
                input,
                rest: steps,
                reason,
                ..
            }
            | State::Stuck {
                input,
                rest: steps,
                reason,
                ..
            },
            Action::Compensate,
        ) => {
            let rest = steps.into_iter().take_while(|step| *step != due).collect();
            State::Compensating {
                input,
                rest,
                due,
                retries: 0,
                attempt: 0,
                reason,
            }
        }
        (
            state @ (State::NotStarted
            | State::Running { .. }
            | State::CancelPending { .. }
            | State::Compensating { .. }
            | State::Completed { .. }
            | State::Aborted { .. }
            | State::Stuck { .. }),
            Action::Execute | Action::Compensate,
        ) => state,
    }
}

fn retried<D: Definition>(mut state: State<D>, retry: u32) -> State<D> {
    match &mut state {
        State::Running { retries, .. }
        | State::CancelPending { retries, .. }
        | State::Compensating { retries, .. } => *retries = retry,
        State::NotStarted
        | State::Completed { .. }
        | State::Aborted { .. }
        | State::Stuck { .. } => {}
    }
    state
}

fn into_stuck<D: Definition>(state: State<D>, failure: &str) -> State<D> {
    match state {
        State::Compensating {
            input,
            rest,
            due,
            attempt,
            reason,
            ..
        } => State::Stuck {
            input,
            rest,
            step: due,
            attempt,
            reason,
            failure: failure.to_owned(),
        },
        State::NotStarted
        | State::Running { .. }
        | State::CancelPending { .. }
        | State::Completed { .. }
        | State::Aborted { .. }
        | State::Stuck { .. } => state,
    }
}

fn resumed<D: Definition>(state: State<D>) -> State<D> {
    match state {
        State::Stuck {
            input,
            rest,
            step,
            attempt,
            reason,
            ..
        } => State::Compensating {
            input,
            rest,
            due: step,
            retries: 0,
            attempt: attempt + 1,
            reason,
        },
        State::NotStarted
        | State::Running { .. }
        | State::CancelPending { .. }
        | State::Compensating { .. }
        | State::Completed { .. }
        | State::Aborted { .. } => state,
    }
}

#[cfg(test)]
mod tests;
