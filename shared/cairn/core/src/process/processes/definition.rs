//! The definition of a process: its rules, their causes and their outputs.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Record, RunningTimer};
use crate::{
    commit::RecordedEvent,
    event::{self, CodecError},
    stream::StreamId,
    timestamp::Timestamp,
};

/// The rules of a process, without a clock, random numbers or I/O.
pub trait Process: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The id of an instance, which is the key of its stream.
    type Id: Display + FromStr<Err: Display> + Send + Sync;
    /// An event of a source stream, in the form that the rules use.
    type Message: Clone + Debug + PartialEq + Send + Sync;
    /// The state that the own events add up to. The default is the state before the first event.
    type State: Clone + Debug + Default + Serialize + DeserializeOwned + JsonSchema + Send + Sync;
    /// The own events. One variant has the [`Record`]s of the kit:
    /// `Recorded(Box<Record<Self>>)`.
    type Event: event::Event + From<Record<Self>> + Clone + Debug + PartialEq + Send + Sync;
    /// The name of a timer. An instance has at most one timer of each name.
    type Timer: Clone + Data;
    /// A command, which names its target and has all data for its execution.
    type Command: Clone + Data;

    /// The first part of the stream ids. It is stored: never change it.
    const CATEGORY: &'static str;
    /// The number of retries of a command without an outcome.
    const RETRIES: u32;
    /// See [`Aggregate::REVISION`](crate::Aggregate::REVISION).
    const REVISION: u32 = 1;

    /// Returns the instance that receives an event, and the event for it. `None` means that the
    /// process ignores the event.
    ///
    /// The first event of a stream that an instance receives makes it read the stream from its
    /// beginning. Streams that many instances share should therefore be short.
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    #[expect(
        clippy::type_complexity,
        reason = "an implementation has concrete types"
    )]
    fn correlate(event: &RecordedEvent) -> Result<Option<(Self::Id, Self::Message)>, CodecError>;

    /// Returns the source streams that follow from the id of an instance. It reads them when it
    /// receives its first event, and before a timer fires. In the second case, it also reads those
    /// from which it has received an event.
    fn sources(_id: &Self::Id) -> Vec<StreamId> {
        vec![]
    }

    /// Decides on a cause. `at` is the commit time of the event, the time of the timer, or the time
    /// at which the outcome was recorded.
    fn decide(state: &Self::State, cause: &Cause<Self>, at: Timestamp) -> Outputs<Self>;

    /// Returns the state after an own event. It is total, and never receives a record of the kit.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;

    /// Returns the record of the kit, if the event is one.
    fn record(event: &Self::Event) -> Option<&Record<Self>>;

    /// Returns the time budget of a command until its first retry; it doubles after each retry.
    /// `None` means the step timeout of the system.
    fn time_budget(_command: &Self::Command) -> Option<Duration> {
        None
    }
}

/// The bounds of stored data.
pub trait Data:
    Debug + PartialEq + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
}

impl<T> Data for T where
    T: Debug + PartialEq + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
}

/// The cause of a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause<P: Process> {
    /// An event of a source stream.
    Event(P::Message),
    /// The time of a timer.
    Timer(P::Timer),
    /// The outcome of a command.
    Outcome(P::Command, CommandOutcome),
}

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CommandOutcome {
    /// The command was executed, with a detail for display.
    Done(Option<String>),
    /// The command failed permanently for this reason, and has no effect.
    Failed(String),
    /// The command had no outcome after the last retry. It may have taken effect.
    Unknown,
    /// An operator settled the command manually, for this reason.
    Abandoned(String),
}

/// The outputs of a decision. All of them are stored in one append, or none is.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs<P: Process> {
    /// The own events, in order.
    pub(super) events: Vec<P::Event>,
    /// The commands to execute.
    pub(super) commands: Vec<P::Command>,
    /// The timers to set.
    pub(super) timers: Vec<RunningTimer<P::Timer>>,
    /// The timers to cancel.
    pub(super) cancelled: Vec<P::Timer>,
    /// The reason for which the command of an outcome needs manual action.
    pub(super) stuck: Option<String>,
}

impl<P: Process> Outputs<P> {
    /// Creates outputs with own events. Without events, a decision can still have other outputs.
    pub fn events(events: impl IntoIterator<Item = P::Event>) -> Self {
        Self {
            events: events.into_iter().collect(),
            commands: vec![],
            timers: vec![],
            cancelled: vec![],
            stuck: None,
        }
    }

    /// Creates empty outputs.
    pub fn none() -> Self {
        Self::events([])
    }

    /// Keeps the command whose outcome is the cause, and marks the process as stuck. An operator
    /// resumes the process, which requests the command again with a new key, or abandons it, which
    /// causes [`CommandOutcome::Abandoned`]. For another cause, it has no effect.
    pub fn stuck(reason: impl Into<String>) -> Self {
        Self {
            stuck: Some(reason.into()),
            ..Self::none()
        }
    }

    /// Issues a command.
    #[must_use]
    pub fn command(mut self, command: P::Command) -> Self {
        self.commands.push(command);
        self
    }

    /// Sets a timer. A timer of the same name is replaced. A time in the past fires at the next check.
    #[must_use]
    pub fn timer(mut self, timer: P::Timer, at: Timestamp) -> Self {
        self.timers.push(RunningTimer { timer, at });
        self
    }

    /// Cancels a timer, if it runs. Cancellations precede new timers.
    #[must_use]
    pub fn cancel(mut self, timer: P::Timer) -> Self {
        self.cancelled.push(timer);
        self
    }
}
