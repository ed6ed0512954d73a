//! Deadlines: the times at which the watchdog checks a stream.
//!
//! A row states that a process is open, and the time until which no check is necessary. The
//! deadline tracker writes it from the DynamoDB Stream and not from the bus, so that a lost
//! delivery cannot hide a process. The time is a lower bound: the watchdog reads the streams
//! themselves before it acts. A process that ends in time therefore costs two writes, one at its
//! start and one at its end, for any number of steps.

use serde::{Deserialize, Serialize};

use crate::{commit::RecordedEvent, event::CodecError, stream::StreamId, timestamp::Timestamp};

/// The change that an event makes to a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlineUpdate {
    /// The monitored stream.
    pub stream: StreamId,
    /// The version of the event. An update with an earlier version than the stored one has no
    /// effect.
    pub version: u64,
    /// The change.
    pub change: DeadlineChange,
}

/// A change of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineChange {
    /// The watchdog checks the stream from this time on.
    Open(Timestamp),
    /// The stream has been stuck since this time: it needs manual action.
    Stuck(Timestamp),
    /// The deadline is removed.
    Closed,
}

/// A deadline as stored in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDeadline {
    /// The deadline.
    pub deadline: Deadline,
    /// True if the stream needs manual action.
    pub is_stuck: bool,
}

/// A stream that the watchdog checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The stream.
    pub stream: StreamId,
    /// The version of the stream when the row was written.
    pub version: u64,
    /// The time from which the watchdog checks the stream. For a stuck stream, it is the time since
    /// which it has been stuck until the first check.
    pub at: Timestamp,
    /// The version at which a provider throttled the pending step. While the stream is at this
    /// version, the watchdog requests the step again at `at`. This uses up no retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
}

/// A process over several streams that has deadlines, such as a saga.
pub trait Monitored: Send + Sync + 'static {
    /// Returns the streams that determine the state of the process. Its deadline has the id of one
    /// of them. The result is empty if `last` ends its stream with nothing left to do.
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    fn streams(last: &RecordedEvent) -> Result<Vec<StreamId>, CodecError>;

    /// Returns true if the process is unfinished or stuck after all events of those streams.
    ///
    /// # Errors
    /// Returns an error if an event cannot be decoded.
    fn is_unfinished(events: &[RecordedEvent]) -> Result<bool, CodecError>;
}

/// The functions of a [`Monitored`] as values.
#[derive(Clone, Copy, Debug)]
pub struct AnyMonitored {
    /// See [`Monitored::streams`].
    pub streams: fn(&RecordedEvent) -> Result<Vec<StreamId>, CodecError>,
    /// See [`Monitored::is_unfinished`].
    pub is_unfinished: fn(&[RecordedEvent]) -> Result<bool, CodecError>,
}

impl AnyMonitored {
    /// Creates the value of a type.
    pub const fn new<P: Monitored>() -> Self {
        Self {
            streams: P::streams,
            is_unfinished: P::is_unfinished,
        }
    }
}
