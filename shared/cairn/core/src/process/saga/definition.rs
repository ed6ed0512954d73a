//! The definition of a saga: its steps, and their input.

use std::{
    fmt::{Debug, Display},
    hash::Hash,
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::event::{ReadOnly, Upcaster};

/// The steps of a saga: an enum with a variant for each step, in their order. Derive it with
/// [`cairn::Step`](crate::Step).
pub trait Step:
    Copy + Debug + Eq + Hash + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
    /// The steps in order, at least one. The first one starts the saga, and has no effect outside
    /// the store: a cancellation before the start aborts the saga without a compensation.
    const STEPS: &'static [Self];
    /// The new steps that this release executes and does not make due, each with the step that
    /// follows it. The next release has them in [`STEPS`](Self::STEPS). While both releases run,
    /// and after a rollback, this one completes a step that the next one has made due.
    const READ_ONLY_STEPS: &'static [(Self, Option<Self>)];

    /// Returns the stored name, which is part of the event patterns of rules.
    fn name(self) -> &'static str;

    /// Returns true if the completed step has an effect that must be compensated.
    fn needs_compensation(self) -> bool;
}

/// The definition of a saga: its steps, and their input.
pub trait Definition: Debug + Clone + PartialEq + Send + Sync + 'static {
    /// The steps.
    type Step: Step;
    /// The data that the steps use, fixed at the start.
    type Input: Clone + Debug + PartialEq + Serialize + DeserializeOwned + JsonSchema + Send + Sync;

    /// The id of an instance, which is the key of its stream; usually that of the aggregate that
    /// starts it.
    type Id: Display + FromStr<Err: Display> + Send + Sync;

    /// The category of the streams.
    const CATEGORY: &'static str;
    /// The stored names of the saga's events. See [`Event::RENAMED`](crate::event::Event::RENAMED).
    const EVENT_NAMES: &'static [(&'static str, &'static str)];
    /// The number of retries of a step without an outcome before it is abandoned.
    const RETRIES: u32;
    /// The upcasters of earlier schema versions of the events.
    const UPCASTERS: &'static [Upcaster] = &[];
    /// The events that this release reads and does not write yet. See
    /// [`Event::READ_ONLY`](crate::event::Event::READ_ONLY).
    const READ_ONLY: &'static [ReadOnly] = &[];
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
