//! The decisions of a saga: its commands, their rejections, and the events that follow.

use std::marker::PhantomData;

use crate::{
    decider::{Aggregate, Decider},
    guard::{Guard, holds},
    saga::{Definition, Due, Event, Phase, State, Step},
};

/// A saga of one definition, as a decider.
#[derive(Debug)]
pub struct Saga<D>(PhantomData<D>);

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

    fn decide(state: &State<D>, command: &Command<D>) -> Result<Vec<Event<D>>, Rejection> {
        match command {
            Command::Start(input) => start(state, input),
            Command::Complete(step, detail) => complete(state, *step, detail.clone()),
            Command::Fail(step, failure) => {
                let reason = state.reason.as_ref().unwrap_or(failure);
                let done = state.executing(*step)?;
                Ok(compensate::<D>(done, reason, |next| Event::StepFailed {
                    step: *step,
                    reason: failure.clone(),
                    next,
                }))
            }
            Command::Undone(step) => {
                let rest = state.compensating(*step)?;
                Ok(compensate::<D>(rest, state.cause(), |next| {
                    Event::StepCompensated { step: *step, next }
                }))
            }
            Command::UndoFailed(step, failure) => {
                state.compensating(*step)?;
                Ok(stuck(*step, failure))
            }
            Command::Retry(due, retries) if *retries == state.retries => retry(state, *due),
            Command::AskAgain(due) if state.due() == Some(*due) => {
                Ok(vec![request_again(*due, state.retries)])
            }
            Command::Retry(..) | Command::AskAgain(_) => Err(Rejection::NotDue),
            Command::Cancel(reason) => Ok(cancel(state, reason)),
            Command::Resume => {
                let (step, _) = state.stuck()?;
                let next = Due::compensate(step);
                Ok(vec![Event::Resumed { next }])
            }
            Command::Abandon(reason) => {
                let (step, rest) = state.stuck()?;
                Ok(compensate::<D>(rest, state.cause(), |next| {
                    Event::StepAbandoned {
                        step,
                        reason: reason.clone(),
                        next,
                    }
                }))
            }
        }
    }

    fn evolve(state: State<D>, event: &Event<D>) -> State<D> {
        state.after(event)
    }
}

impl<D: Definition> Aggregate for Saga<D> {
    type Id = D::Id;

    const CATEGORY: &'static str = D::CATEGORY;
}

impl<D: Definition> State<D> {
    /// Returns the completed steps if the execution of this step is due.
    fn executing(&self, step: D::Step) -> Result<&[D::Step], Rejection> {
        match &self.phase {
            Phase::Forward { done, due } if *due == step => Ok(done),
            _ => Err(Rejection::NotDue),
        }
    }

    /// Returns the remaining steps if the compensation of this step is due.
    fn compensating(&self, step: D::Step) -> Result<&[D::Step], Rejection> {
        match &self.phase {
            Phase::Backward { rest, due, .. } if *due == step => Ok(rest),
            _ => Err(Rejection::NotDue),
        }
    }

    /// Returns the step whose compensation failed, and the remaining steps.
    fn stuck(&self) -> Result<(D::Step, &[D::Step]), Rejection> {
        match &self.phase {
            Phase::Stuck { step, rest, .. } => Ok((*step, rest)),
            _ => Err(Rejection::NotStuck),
        }
    }

    fn cause(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }
}

fn start<D: Definition>(state: &State<D>, input: &D::Input) -> Result<Vec<Event<D>>, Rejection> {
    if state.phase != Phase::NotStarted {
        return Err(Rejection::AlreadyStarted);
    }
    // A saga without steps never starts.
    let first = following::<D>(None).map(|first| Event::Started {
        input: input.clone(),
        next: Due::execute(first),
    });
    Ok(first.into_iter().collect())
}

fn complete<D: Definition>(
    state: &State<D>,
    step: D::Step,
    detail: Option<String>,
) -> Result<Vec<Event<D>>, Rejection> {
    let done = state.executing(step)?;
    let completed = |next| Event::StepCompleted { step, detail, next };
    if let Some(reason) = &state.reason {
        return Ok(compensate::<D>(
            &[done, &[step]].concat(),
            reason,
            completed,
        ));
    }
    let next = following::<D>(Some(step)).map(Due::execute);
    let end = next.is_none().then_some(Event::Completed {});
    Ok([completed(next)].into_iter().chain(end).collect())
}

fn cancel<D: Definition>(state: &State<D>, reason: &str) -> Vec<Event<D>> {
    let requested = |next| Event::CancelRequested {
        reason: reason.to_owned(),
        next,
    };
    match &state.phase {
        // A saga that is cancelled before its start never starts.
        Phase::NotStarted => vec![Event::Aborted {
            reason: reason.to_owned(),
        }],
        Phase::Forward { .. } if state.reason.is_none() => vec![requested(None)],
        Phase::Completed { done } => compensate::<D>(done, reason, requested),
        Phase::Forward { .. } | Phase::Backward { .. } | Phase::Stuck { .. } | Phase::Aborted => {
            vec![]
        }
    }
}

/// Requests a step again. A step without an outcome after the last retry may have taken effect, so
/// it is compensated.
fn retry<D: Definition>(state: &State<D>, due: Due<D::Step>) -> Result<Vec<Event<D>>, Rejection> {
    const FAILURE: &str = "no outcome in time";
    if state.due() != Some(due) {
        return Err(Rejection::NotDue);
    }
    if state.retries < D::RETRIES {
        return Ok(vec![request_again(due, state.retries + 1)]);
    }
    let Phase::Forward { done, .. } = &state.phase else {
        return Ok(stuck(due.step, FAILURE));
    };
    let reason = state.reason.as_deref().unwrap_or(FAILURE);
    let done = [done.as_slice(), &[due.step]].concat();
    Ok(compensate::<D>(&done, reason, |next| Event::StepFailed {
        step: due.step,
        reason: FAILURE.to_owned(),
        next,
    }))
}

fn request_again<D: Definition>(due: Due<D::Step>, retry: u32) -> Event<D> {
    Event::StepRetried {
        step: due.step,
        retry,
        next: due,
    }
}

/// Returns the events that make the compensation of the last completed step due, or that end the
/// saga if no step needs compensation.
fn compensate<D: Definition>(
    done: &[D::Step],
    reason: &str,
    event: impl FnOnce(Option<Due<D::Step>>) -> Event<D>,
) -> Vec<Event<D>> {
    match last_to_compensate::<D>(done) {
        Some(step) => vec![event(Some(Due::compensate(step)))],
        None => vec![
            event(None),
            Event::Aborted {
                reason: reason.to_owned(),
            },
        ],
    }
}

fn last_to_compensate<D: Definition>(done: &[D::Step]) -> Option<D::Step> {
    let mut steps = done.iter().filter(|step| step.needs_compensation());
    if holds(Guard::CompensationOrder) {
        steps.next_back().copied()
    } else {
        steps.next().copied()
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

/// Returns the step after one, or the first step.
fn following<D: Definition>(step: Option<D::Step>) -> Option<D::Step> {
    let mut read_only = D::Step::READ_ONLY_STEPS.iter();
    if let Some((_, next)) = read_only.find(|(new, _)| step == Some(*new)) {
        return *next;
    }
    let index = step.map_or(0, |step| {
        1 + D::Step::STEPS
            .iter()
            .take_while(|other| **other != step)
            .count()
    });
    D::Step::STEPS.get(index).copied()
}
