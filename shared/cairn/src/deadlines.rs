//! Deadlines: what has to go on, and when to look whether it does.
//!
//! A row says that something is open and until when nothing need be done about it. It comes from the
//! event table's stream and not from the bus, so a delivery that was lost cannot hide anything. It is
//! a lower bound only: who finds a row past its time asks the streams themselves what they wait for. So
//! a process that ends in time costs one write when it opens and one when it is closed, however
//! many steps it has.

use serde::{Deserialize, Serialize};

use crate::{stream::StreamId, timestamp::Timestamp};

/// The change that an event makes to a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlineUpdate {
    /// The stream that is watched.
    pub stream: StreamId,
    /// The version of the event. An update of an earlier version than the stored one changes nothing.
    pub version: u64,
    /// The change.
    pub change: DeadlineChange,
}

/// A change of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineChange {
    /// The watchdog checks the stream from this time on.
    Open(Timestamp),
    /// The stream is stuck since this time: it needs manual action.
    Stuck(Timestamp),
    /// The deadline is removed.
    Closed,
}

/// A deadline as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDeadline {
    /// The deadline.
    pub deadline: Deadline,
    /// True if it needs manual action.
    pub is_stuck: bool,
}

/// A stream that the watchdog checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The stream.
    pub stream: StreamId,
    /// The version of the stream when the row was written.
    pub version: u64,
    /// The time from which the watchdog checks it, or since which it is stuck.
    pub at: Timestamp,
    /// The version at which a provider has throttled what was due. While the stream is at this version,
    /// the step is to be asked for again at `at`, and that uses up no retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
}
