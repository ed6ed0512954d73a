//! The audit: the inconsistencies of stored data.
//!
//! An audit writes nothing, and can run on a live system. Its [`Scope`] is everything, a part of
//! everything, or the streams that changed. It compares only data that cannot change between two
//! reads. A row stores the versions that it has applied, and events
//! never change. A row that was read once is therefore compared with the events up to exactly these
//! versions.
//!
//! Publication is not recorded, because that would cost a second write per commit. The audit infers
//! it from the version gates: a gate at or after an event proves that the bus delivered to its
//! stream. An event is *unpublished* if it is old enough and no gate has reached it. The audit
//! cannot check the publication of a stream that no gate follows.

use std::time::Duration;

use crate::{commit::RecordedEvent, event::CodecError, stream::StreamId};

mod finding;
mod report;
mod scan;
mod scope;

pub use finding::Finding;
pub use report::{Omitted, Report, Rows};
pub use scan::StreamScan;
pub use scope::{NotAPart, Part, Scope, Window};

/// A process over several streams that has deadlines, such as a saga.
pub trait Process: Send + Sync + 'static {
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
    fn goes_on(events: &[RecordedEvent]) -> Result<bool, CodecError>;
}

/// The functions of a [`Process`] as values.
#[derive(Clone, Copy, Debug)]
pub struct AnyProcess {
    /// See [`Process::streams`].
    pub streams: fn(&RecordedEvent) -> Result<Vec<StreamId>, CodecError>,
    /// See [`Process::goes_on`].
    pub goes_on: fn(&[RecordedEvent]) -> Result<bool, CodecError>,
}

impl AnyProcess {
    /// Creates the value of a type.
    pub const fn new<P: Process>() -> Self {
        Self {
            streams: P::streams,
            goes_on: P::goes_on,
        }
    }
}

/// The ages at which the audit reports a delay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The age from which a committed event must have reached every consumer.
    pub settle: Duration,
    /// The time after a deadline by which the watchdog must have handled it.
    pub overdue: Duration,
}

impl Default for Limits {
    /// One minute and five minutes: the watchdog runs every minute.
    fn default() -> Self {
        Self {
            settle: Duration::from_mins(1),
            overdue: Duration::from_mins(5),
        }
    }
}
