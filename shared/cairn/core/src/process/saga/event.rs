//! The stored events of a saga.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{self, ReadOnly, Upcaster},
    saga::{Definition, Due},
};

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

impl<D: Definition> event::Event for Event<D> {
    const UPCASTERS: &'static [Upcaster] = D::UPCASTERS;
    const READ_ONLY: &'static [ReadOnly] = D::READ_ONLY;
    const RENAMED: &'static [(&'static str, &'static str)] = D::EVENT_NAMES;
}
