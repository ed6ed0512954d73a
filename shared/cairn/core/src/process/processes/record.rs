//! The records of the kit in the stream of a process.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CommandOutcome, Process};
use crate::{
    commit::RecordedEvent,
    deadlines::{DeadlineChange, DeadlineUpdate},
    event::CodecError,
    stream::StreamId,
    timestamp::Timestamp,
};

/// A cause with the timers and commands of its decision. It precedes the own events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "", rename_all = "camelCase")]
#[schemars(bound = "P: Process")]
pub struct Record<P: Process> {
    /// The cause.
    pub(crate) cause: RecordedCause<P>,
    /// The cancelled timers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cancelled: Vec<P::Timer>,
    /// The timers that were set after the cancellations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) timers: Vec<RunningTimer<P::Timer>>,
    /// The commands that were issued or requested again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) issued: Vec<IssuedCommand<P::Command>>,
    /// The change of the deadline, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<Watch>,
}

impl<P: Process> Record<P> {
    /// Returns the commands that this record requests to execute.
    pub fn issued(&self) -> &[IssuedCommand<P::Command>] {
        &self.issued
    }

    /// Returns the cause.
    #[doc(hidden)]
    pub fn cause(&self) -> &RecordedCause<P> {
        &self.cause
    }
}

/// The cause of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "", rename_all = "camelCase")]
#[schemars(bound = "P: Process")]
pub enum RecordedCause<P: Process> {
    /// An event of a source was received. Its version is the gate of the source.
    Received {
        /// The source.
        #[schemars(with = "String")]
        stream: StreamId,
        /// The version of the event.
        version: u64,
    },
    /// A timer fired.
    Fired(P::Timer),
    /// A command ended.
    Ended {
        /// The number of the command.
        number: u64,
        /// Its outcome.
        outcome: CommandOutcome,
    },
    /// The process is stuck at a command.
    Stuck {
        /// The number of the command.
        number: u64,
        /// The reason.
        reason: String,
    },
    /// Commands without an outcome are requested again.
    Retried,
    /// An operator resumed the process.
    Resumed,
}

/// A running timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningTimer<T> {
    /// The name.
    pub timer: T,
    /// The time at which it fires.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

/// A command without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuedCommand<C> {
    /// The number of the command in its process, from 1.
    pub number: u64,
    /// The command.
    pub command: C,
    /// The number of times that an operator resumed it.
    pub attempt: u32,
    /// The number of retries since then.
    pub retries: u32,
    /// The time of the next retry.
    #[schemars(with = "String")]
    pub until: Timestamp,
}

/// The deadline of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Watch {
    /// Neither a timer nor a command is open.
    #[default]
    Closed,
    /// The watchdog checks the process from this time on.
    Until(#[schemars(with = "String")] Timestamp),
    /// The process needs manual action.
    Stuck,
}

/// Returns the change that an event makes to the deadline of a process.
///
/// # Errors
/// Returns an error if the event cannot be decoded.
pub fn deadline_update<P: Process>(
    event: &RecordedEvent,
) -> Result<Option<DeadlineUpdate>, CodecError> {
    if event.stream.category() != P::CATEGORY {
        return Ok(None);
    }
    let decoded = event.decode()?;
    let watch = P::record(&decoded).and_then(|record| record.watch);
    Ok(watch.map(|watch| DeadlineUpdate {
        stream: event.stream.clone(),
        version: event.version,
        change: match watch {
            Watch::Closed => DeadlineChange::Closed,
            Watch::Until(at) => DeadlineChange::Open(at),
            Watch::Stuck => DeadlineChange::Stuck(event.at),
        },
    }))
}
