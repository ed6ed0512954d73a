//! The state of a saga, which follows from its events.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::saga::{Action, Definition, Due, Event};

/// The state of a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "D: Definition")]
pub struct State<D: Definition> {
    /// The data that the steps use; `None` before the start.
    pub input: Option<D::Input>,
    /// The progress.
    pub phase: Phase<D::Step>,
    /// The reason for the cancellation, compensation or abort. A saga that has one and goes
    /// [forward](Phase::Forward) compensates after the outcome of the step that is due.
    pub reason: Option<String>,
    /// The number of retries of the step that is due.
    pub retries: u32,
}

/// The progress of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase<Step> {
    /// The saga has not started.
    NotStarted,
    /// The execution of a step is due.
    Forward {
        /// The completed steps in order.
        done: Vec<Step>,
        /// The step that is due.
        due: Step,
    },
    /// The compensation of a step is due.
    Backward {
        /// The completed steps to compensate after this one, in order of execution.
        rest: Vec<Step>,
        /// The step whose compensation is due.
        due: Step,
        /// The attempt at the step: it increases by one each time that the saga is resumed.
        attempt: u32,
    },
    /// A compensation failed: the saga needs manual action.
    Stuck {
        /// The completed steps to compensate after this one, in order of execution.
        rest: Vec<Step>,
        /// The step whose compensation failed.
        step: Step,
        /// The attempt at the step: it increases by one each time that the saga is resumed.
        attempt: u32,
        /// The reason for the failure of the compensation.
        failure: String,
    },
    /// Every step is completed.
    Completed {
        /// The completed steps in order.
        done: Vec<Step>,
    },
    /// The saga ended without completion, and its steps are compensated or abandoned.
    Aborted,
}

impl<D: Definition> Default for State<D> {
    fn default() -> Self {
        Self {
            input: None,
            phase: Phase::NotStarted,
            reason: None,
            retries: 0,
        }
    }
}

impl<D: Definition> State<D> {
    /// Returns the step that is due; `None` before the start and after the end.
    pub fn due(&self) -> Option<Due<D::Step>> {
        match &self.phase {
            Phase::Forward { due, .. } => Some(Due::execute(*due)),
            Phase::Backward { due, .. } => Some(Due::compensate(*due)),
            Phase::NotStarted | Phase::Stuck { .. } | Phase::Completed { .. } | Phase::Aborted => {
                None
            }
        }
    }

    /// Returns the number of times that the saga was resumed at the step that is due.
    pub fn attempt(&self) -> u32 {
        match &self.phase {
            Phase::Backward { attempt, .. } | Phase::Stuck { attempt, .. } => *attempt,
            Phase::NotStarted
            | Phase::Forward { .. }
            | Phase::Completed { .. }
            | Phase::Aborted => 0,
        }
    }

    /// Returns the timeout of the step that is due: `first`, doubled after each retry, so that the
    /// retries outlast an outage of a provider.
    pub fn step_timeout(&self, first: Duration) -> Duration {
        first.saturating_mul(2_u32.saturating_pow(self.retries))
    }

    /// Returns true if the saga is completed, aborted or stuck, and does nothing by itself.
    pub fn has_ended(&self) -> bool {
        self.due().is_none() && self.phase != Phase::NotStarted
    }

    /// Returns the state after an event. An event that does not fit the phase does not change it.
    pub(super) fn after(mut self, event: &Event<D>) -> Self {
        match event {
            Event::Started { input, next } => {
                self.input = Some(input.clone());
                let done = vec![];
                let due = next.step;
                self.enter(|_| Phase::Forward { done, due })
            }
            Event::StepCompleted { step, next, .. } => self.proceed(Some(*step), *next),
            Event::StepFailed { reason, next, .. } | Event::CancelRequested { reason, next } => {
                // The first reason is the one that counts.
                self.reason.get_or_insert_with(|| reason.clone());
                self.proceed(None, *next)
            }
            Event::StepCompensated { next, .. } | Event::StepAbandoned { next, .. } => {
                self.proceed(None, *next)
            }
            Event::StepRetried { retry, .. } => Self {
                retries: *retry,
                ..self
            },
            Event::CompensationFailed { reason, .. } => self.enter(|phase| phase.stuck(reason)),
            // It follows `CompensationFailed`, which has changed the state, and notifies consumers.
            Event::Stuck { .. } => self,
            Event::Resumed { .. } => self.enter(Phase::resumed),
            Event::Completed {} => self.enter(Phase::completed),
            Event::Aborted { reason } => {
                self.reason = Some(reason.clone());
                self.enter(|_| Phase::Aborted)
            }
        }
    }

    /// Continues with the step that became due. `completed` is the step that was just completed.
    fn proceed(self, completed: Option<D::Step>, next: Option<Due<D::Step>>) -> Self {
        match next {
            None => self,
            Some(Due { step, action }) => self.enter(|phase| match action {
                Action::Execute => phase.forward(completed, step),
                Action::Compensate => phase.backward(step),
            }),
        }
    }

    fn enter(self, next: impl FnOnce(Phase<D::Step>) -> Phase<D::Step>) -> Self {
        Self {
            phase: next(self.phase),
            retries: 0,
            ..self
        }
    }
}

impl<Step: PartialEq> Phase<Step> {
    fn forward(self, completed: Option<Step>, due: Step) -> Self {
        let Self::Forward { mut done, .. } = self else {
            return self;
        };
        done.extend(completed);
        Self::Forward { done, due }
    }

    fn backward(self, due: Step) -> Self {
        let steps = match self {
            Self::Forward { done, .. } | Self::Completed { done } => done,
            Self::Backward { rest, .. } | Self::Stuck { rest, .. } => rest,
            Self::NotStarted | Self::Aborted => return self,
        };
        Self::Backward {
            rest: steps.into_iter().take_while(|step| *step != due).collect(),
            due,
            attempt: 0,
        }
    }

    fn stuck(self, failure: &str) -> Self {
        let Self::Backward { rest, due, attempt } = self else {
            return self;
        };
        Self::Stuck {
            rest,
            step: due,
            attempt,
            failure: failure.to_owned(),
        }
    }

    fn resumed(self) -> Self {
        let Self::Stuck {
            rest,
            step: due,
            attempt,
            ..
        } = self
        else {
            return self;
        };
        Self::Backward {
            rest,
            due,
            attempt: attempt + 1,
        }
    }

    fn completed(self) -> Self {
        let Self::Forward { mut done, due } = self else {
            return self;
        };
        done.push(due);
        Self::Completed { done }
    }
}
