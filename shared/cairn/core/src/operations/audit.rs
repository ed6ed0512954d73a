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

mod finding;
mod report;
mod scan;
mod scope;

pub use finding::Finding;
pub use report::{Omitted, Report, Rows};
pub use scan::StreamScan;
pub use scope::{NotAPart, Part, Scope, Window};

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
            settle: Duration::from_secs(60),
            overdue: Duration::from_secs(300),
        }
    }
}
