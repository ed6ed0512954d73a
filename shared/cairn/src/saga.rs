//! Sagas: steps in order, each with an action and, where it leaves something behind, a
//! compensation that undoes it.
//!
//! A saga is an aggregate like any other. Its definition is a list of steps; its events name
//! what is due next, and a step's function subscribes to exactly that. So there is orchestration
//! (the order stands in one place) without an orchestrator (nothing that could fail in between).
//!
//! Three rules keep money and goods safe:
//! - A cancellation never overtakes a step that is due. The saga records it, and compensates when
//!   that step's outcome is known.
//! - A step whose outcome stays unknown, however often it is asked for, counts as done: it is
//!   undone like the others.
//! - A compensation that fails is never swallowed: the saga is stuck, and reports the step. An
//!   operator resumes it, or settles the step by hand and abandons it.

use std::{fmt::Debug, hash::Hash, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    decider::{Aggregate, Decider},
    event::{self, Upcaster},
    guard::{Guard, holds},
};

/// What makes one saga: its steps and what it works on.
pub trait Definition: Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The steps. Their serialized names are stored and stand in the rules of the bus.
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
    /// What the steps need to know, fixed at the start.
    type Input: Clone + Debug + PartialEq + Serialize + DeserializeOwned + JsonSchema + Send + Sync;

    /// The stream category.
    const CATEGORY: &'static str;
    /// The steps in order. At least one.
    const STEPS: &'static [Self::Step];
    /// The stored names of the saga's own events, as [`event::Event::RENAMED`] takes them.
    const EVENT_NAMES: &'static [(&'static str, &'static str)];
    /// The number of retries of a step without an outcome before it is abandoned.
    const RETRIES: u32;
    /// How older events become current.
    const UPCASTERS: &'static [Upcaster] = &[];

    /// True if a completed step has an effect that must be compensated.
    fn needs_compensation(step: Self::Step) -> bool;
}

/// Forward or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Do the step.
    Execute,
    /// Undo it.
    Compensate,
}

/// What has to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Due<Step> {
    /// The step.
    pub step: Step,
    /// Forward or back.
    pub action: Action,
}

impl<Step> Due<Step> {
    /// The step's action is due.
    pub fn execute(step: Step) -> Self {
        Self {
            step,
            action: Action::Execute,
        }
    }

    /// The step's compensation is due.
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

/// Where a saga stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "D: Definition")]
pub enum State<D: Definition> {
    /// It has not begun.
    NotStarted,
    /// A step is due.
    Running {
        /// What the saga works on.
        input: D::Input,
        /// The steps done, in order.
        done: Vec<D::Step>,
        /// The step that is due.
        due: D::Step,
        /// How often it was asked for again.
        retries: u32,
    },
    /// A cancellation waits for the outcome of the step that is due.
    #[serde(rename = "Halting")]
    CancelPending {
        /// What the saga works on.
        input: D::Input,
        /// The steps done, in order.
        done: Vec<D::Step>,
        /// The step that is due.
        due: D::Step,
        /// How often it was asked for again.
        retries: u32,
        /// Why it will be unwound.
        reason: String,
    },
    /// The compensation of a step is due.
    Compensating {
        /// What the saga works on.
        input: D::Input,
        /// The steps that stay to be undone after the due one, in order.
        rest: Vec<D::Step>,
        /// The step whose compensation is due.
        due: D::Step,
        /// How often it was asked for again.
        retries: u32,
        /// The attempt at the step: it increases by one each time that the saga is resumed.
        #[serde(rename = "round")]
        attempt: u32,
        /// Why it is unwound.
        reason: String,
    },
    /// Every step is done.
    Completed {
        /// What the saga worked on.
        input: D::Input,
    },
    /// Everything that was done is undone.
    Aborted {
        /// Why.
        reason: String,
    },
    /// A compensation failed: the saga needs manual action.
    Stuck {
        /// What the saga works on.
        input: D::Input,
        /// The steps that stay to be undone after that one, in order.
        rest: Vec<D::Step>,
        /// The step that could not be undone.
        step: D::Step,
        /// The attempt at the step: it increases by one each time that the saga is resumed.
        #[serde(rename = "round")]
        attempt: u32,
        /// Why it is unwound.
        reason: String,
        /// Why the step could not be undone.
        failure: String,
    },
}

impl<D: Definition> State<D> {
    /// What has to happen next; `None` before the start and at the end.
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

    /// What the saga works on; `None` before the start, and when it will not be needed again.
    pub fn input(&self) -> Option<&D::Input> {
        match self {
            Self::Running { input, .. }
            | Self::CancelPending { input, .. }
            | Self::Compensating { input, .. }
            | Self::Stuck { input, .. }
            | Self::Completed { input } => Some(input),
            Self::NotStarted | Self::Aborted { .. } => None,
        }
    }

    /// Why it is being unwound, while it is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::CancelPending { reason, .. }
            | Self::Compensating { reason, .. }
            | Self::Stuck { reason, .. }
            | Self::Aborted { reason } => Some(reason),
            Self::NotStarted | Self::Running { .. } | Self::Completed { .. } => None,
        }
    }

    /// How often what is due was asked for again.
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

    /// The attempt at the step that is due: the number of times that the saga was resumed at it.
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

    /// The timeout of the step that is due: `first`, doubled after each retry, so that an outage of a
    /// provider is outlasted.
    pub fn step_timeout(&self, first: Duration) -> Duration {
        first.saturating_mul(2_u32.saturating_pow(self.retries()))
    }

    /// Whether nothing will happen any more by itself.
    pub fn has_ended(&self) -> bool {
        matches!(
            self,
            Self::Completed { .. } | Self::Aborted { .. } | Self::Stuck { .. }
        )
    }
}

/// What a saga is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<D: Definition> {
    /// Begin.
    Start(D::Input),
    /// The step's action succeeded, with a detail worth showing.
    Complete(D::Step, Option<String>),
    /// The step's action was refused for good.
    Fail(D::Step, String),
    /// The step's compensation succeeded.
    Undone(D::Step),
    /// The step's compensation was refused for good.
    UndoFailed(D::Step, String),
    /// Unwind everything.
    Cancel(String),
    /// What is due has no outcome, after so many retries: ask for it again, or give it up.
    Retry(Due<D::Step>, u32),
    /// A provider has throttled what is due: ask for it again. That uses up no retry.
    AskAgain(Due<D::Step>),
    /// Try once more to undo the step at which the saga is stuck.
    Resume,
    /// Leave the step at which the saga is stuck as it is, and undo the rest.
    Abandon(String),
}

/// What happened in a saga. `next` is what became due by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", bound = "")]
#[schemars(bound = "D: Definition")]
pub enum Event<D: Definition> {
    /// It began.
    Started {
        /// What it works on.
        input: D::Input,
        /// The first step.
        next: Due<D::Step>,
    },
    /// A step's action succeeded.
    StepCompleted {
        /// The step.
        step: D::Step,
        /// A detail worth showing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// What became due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// A step's action was refused for good.
    StepFailed {
        /// The step.
        step: D::Step,
        /// Why.
        reason: String,
        /// What became due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// A step was undone.
    StepCompensated {
        /// The step.
        step: D::Step,
        /// What became due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// A step could not be undone.
    CompensationFailed {
        /// The step.
        step: D::Step,
        /// Why.
        reason: String,
    },
    /// A step's outcome did not come in time: it is asked for again.
    StepRetried {
        /// The step.
        step: D::Step,
        /// Which retry it is, from 1.
        retry: u32,
        /// What is still due.
        next: Due<D::Step>,
    },
    /// People have settled a step that could not be undone.
    StepAbandoned {
        /// The step.
        step: D::Step,
        /// What they say about it.
        reason: String,
        /// What became due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// People want a step that could not be undone to be tried once more.
    Resumed {
        /// What became due.
        next: Due<D::Step>,
    },
    /// What the saga works on was cancelled from outside.
    #[serde(rename = "CancellationNoted")]
    CancelRequested {
        /// Why.
        reason: String,
        /// What became due; nothing while a step's outcome is still awaited.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Due<D::Step>>,
    },
    /// Every step is done.
    Completed {},
    /// Everything that was done is undone.
    Aborted {
        /// Why.
        reason: String,
    },
    /// It cannot go on by itself.
    Stuck {
        /// The step that could not be undone.
        step: D::Step,
        /// Why.
        reason: String,
    },
}

impl<D: Definition> Event<D> {
    /// What became due by it.
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

/// Why a saga refuses what it is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The step is not what is due: its outcome has been recorded before, or the saga went on
    /// without it.
    #[error("the step is not due")]
    NotDue,
    /// It has begun already.
    #[error("the saga has already started")]
    AlreadyStarted,
    /// It goes on by itself, or has ended.
    #[error("the saga is not stuck")]
    NotStuck,
}

impl<D: Definition> Decider for Saga<D> {
    type State = State<D>;
    type Command = Command<D>;
    type Event = Event<D>;
    type Rejection = Rejection;

    fn initial() -> State<D> {
        State::NotStarted
    }

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

            // Cancelled before it began: it never begins.
            (Command::Cancel(reason), State::NotStarted) => Ok(vec![Event::Aborted {
                reason: reason.clone(),
            }]),
            (Command::Cancel(reason), State::Running { .. }) => Ok(vec![Event::CancelRequested {
                reason: reason.clone(),
                next: None,
            }]),
            (Command::Cancel(reason), State::Completed { .. }) => {
                Ok(unwinding::<D>(D::STEPS, reason, |next| {
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
            Event::StepFailed { next, reason, .. } => proceed(because(state, reason), None, *next),
            Event::StepCompensated { next, .. } | Event::StepAbandoned { next, .. } => {
                proceed(state, None, *next)
            }
            Event::StepRetried { retry, .. } => retried(state, *retry),
            Event::Resumed { .. } => resumed(state),
            Event::CancelRequested { reason, next } => proceed(because(state, reason), None, *next),
            Event::CompensationFailed { reason, .. } => into_stuck(state, reason),
            // It goes with the failure, and says to those who listen that nothing goes on.
            Event::Stuck { .. } => state,
            Event::Completed {} => match state {
                State::Running { input, .. } => State::Completed { input },
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
    const RENAMED: &'static [(&'static str, &'static str)] = D::EVENT_NAMES;
}

/// The step after one, or the first.
fn following<D: Definition>(step: Option<D::Step>) -> Option<D::Step> {
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
        // A saga without steps has nothing to begin.
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

/// An event that makes the last of the done steps that left something behind due for its
/// compensation, or ends the saga when there is none.
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

/// What follows when the outcome of what is due will not be asked for any more. A step that may have
/// been done is undone.
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

/// The same state with a reason for unwinding, unless it has one already.
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
        State::Completed { input } => match D::STEPS.split_last() {
            Some((last, done)) => State::CancelPending {
                input,
                done: done.to_vec(),
                due: *last,
                retries: 0,
                reason: reason.to_owned(),
            },
            None => State::Completed { input },
        },
        State::NotStarted
        | State::CancelPending { .. }
        | State::Compensating { .. }
        | State::Aborted { .. }
        | State::Stuck { .. } => state,
    }
}

/// Moves on to what became due. `step` is a step that was just done.
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
