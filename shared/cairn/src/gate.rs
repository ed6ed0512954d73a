//! The version gate: an event's effect, once and in order, whatever the bus does.
//!
//! The version of the last event applied from a stream is kept *with* the effect, and moves from
//! n-1 to n in the same conditional write. An event that comes again finds the gate past it. An
//! event that comes early finds a gap, and the missing events are read from the store.
//! Lost, late, reordered and repeated deliveries therefore all end in the same state.

use std::future::Future;

use crate::{
    commit::{Commit, RecordedEvent},
    guard::{Guard, holds},
    store::{EventStore, ReadRange, StoreError},
};

/// The result of an event at a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The effect took place and the gate moved to the event's version.
    Applied,
    /// The gate is at this version or past it: nothing changed.
    Duplicate,
    /// The gate is before the version that precedes the event's: nothing changed.
    Gap {
        /// Where it is; 0 before the first event.
        at: u64,
    },
}

/// A target whose effects have a checkpoint, the version gate: for example a table of rows.
pub trait Checkpointed: Send + Sync {
    /// Applies an event if it is the next one of its stream.
    ///
    /// Effect and gate change in one write, or neither does.
    ///
    /// # Errors
    /// When the write fails; the effect may have taken place.
    fn advance(
        &self,
        event: &RecordedEvent,
    ) -> impl Future<Output = Result<Advance, StoreError>> + Send;

    /// How many of the first of some events fit into one write, at least one.
    fn fitting(_events: &[RecordedEvent]) -> usize {
        1
    }

    /// Applies events that fit into one write if each is the next one of its stream, and says whether they are: if not,
    /// nothing changes.
    ///
    /// # Errors
    /// As [`Checkpointed::advance`].
    fn advance_all(
        &self,
        _events: &[RecordedEvent],
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async { Ok(false) }
    }
}

/// The result of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The event was applied.
    Applied,
    /// It had been applied before, or there is nothing left to do at it.
    Duplicate,
    /// The event was applied after this many earlier ones that had not arrived.
    CaughtUp(u64),
    /// Nothing is done yet: a provider throttles. The work stays due, and is asked for again later.
    Postponed,
}

impl Delivery {
    /// The outcome as it stands in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::CaughtUp(_) => "caught-up",
            Self::Postponed => "postponed",
        }
    }
}

/// Applies an event, and before it those that the gate has not seen.
///
/// # Errors
/// When a write or read fails, or when the store lacks the events in between.
pub async fn deliver(
    projection: &impl Checkpointed,
    store: &impl EventStore,
    event: &RecordedEvent,
) -> Result<Delivery, StoreError> {
    let at = match projection.advance(event).await? {
        Advance::Applied => return Ok(Delivery::Applied),
        Advance::Duplicate => return Ok(Delivery::Duplicate),
        Advance::Gap { .. } if !holds(Guard::GapFilling) => return Ok(Delivery::Duplicate),
        Advance::Gap { at } => at,
    };
    let missing = ReadRange {
        to: event.version,
        ..ReadRange::after(at)
    };
    let commits = store.read(&event.stream, &missing).await?;
    let missing: Vec<_> = commits
        .iter()
        .flat_map(Commit::recorded)
        .filter(|missing| missing.version > at && missing.version <= event.version)
        .collect();
    for missing in &missing {
        if let Advance::Gap { at } = projection.advance(missing).await? {
            return Err(StoreError::Corrupt {
                stream: event.stream.clone(),
                reason: format!("a reader is at version {at} and the store has no next event"),
            });
        }
    }
    match missing.last() {
        Some(last) if last.version == event.version => {
            let filled = event.version - at - 1;
            tracing::info!(stream = %event.stream, version = event.version, filled, "missing events read");
            Ok(Delivery::CaughtUp(filled))
        }
        Some(_) | None => Err(StoreError::Corrupt {
            stream: event.stream.clone(),
            reason: format!("event {} was delivered but is not stored", event.version),
        }),
    }
}
