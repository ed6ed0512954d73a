//! Deadlines: what has to go on, and when to look whether it does.
//!
//! A row says that something is open and until when nothing need be done about it. It comes from the
//! event table's stream and not from the bus, so a delivery that was lost cannot hide anything. It is
//! a lower bound only: who finds a row past its time asks the streams themselves what they wait for. So
//! a process that ends in time costs one write when it opens and one when it is closed, however
//! many steps it has.

use serde::{Deserialize, Serialize};

use crate::{stream::StreamId, timestamp::Timestamp};

/// What an event says about a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What is watched.
    pub stream: StreamId,
    /// How far it had come: a mark of an earlier version than one that is there changes nothing.
    pub version: u64,
    /// What is to be done about it.
    pub kind: Kind,
}

/// What is to be done about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To look after it from this time on.
    Open(Timestamp),
    /// To count it among those that wait for people, since this time.
    Parked(Timestamp),
    /// Nothing any more.
    Closed,
}

/// A deadline as it stands in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The deadline.
    pub deadline: Deadline,
    /// Whether it waits for people.
    pub is_parked: bool,
}

/// Something that has to be looked after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// What it is.
    pub stream: StreamId,
    /// How far it had come when the row was written.
    pub version: u64,
    /// From when on it has to be looked after, or since when it waits for people.
    pub at: Timestamp,
    /// The version at which a provider has throttled what was due. While the stream is at this version,
    /// the step is to be asked for again at `at`, and that uses up no retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
}
