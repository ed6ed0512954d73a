//! The version gate: each event takes effect once and in order.
//!
//! The gate is the version of the last event that was applied from a stream. It is stored *with*
//! the effect, and moves from n-1 to n in the same conditional write. An event that comes again
//! finds the gate past it. An event that comes early finds a gap, and the missing events are read
//! from the store. Lost, late, reordered and repeated deliveries therefore all end in the same
//! state.

use std::future::Future;

use crate::{
    commit::{Commit, RecordedEvent},
    error::BoxError,
    event::CodecError,
    guard::{Guard, holds},
    store::{EventStore, ReadRange, StoreError},
};

/// The result of an event at a gate.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The effect was written, and the gate moved to the version of the event.
    Applied,
    /// The gate is at this version or past it; nothing changed.
    Duplicate,
    /// Events are missing between the gate and this event; nothing changed.
    Gap {
        /// The version of the gate; 0 before the first event.
        at: u64,
    },
}

/// A target with a version gate, such as a table of rows.
#[doc(hidden)]
pub trait Checkpointed: Send + Sync {
    /// Applies an event if it is the next one of its stream.
    ///
    /// The effect and the gate change in one write, or neither does.
    ///
    /// # Errors
    /// Returns an error if the write fails. The effect can have been written nevertheless.
    fn advance(
        &self,
        event: &RecordedEvent,
    ) -> impl Future<Output = Result<Advance, DeliveryError>> + Send;

    /// Returns how many of the first events fit into one write, at least one.
    fn fitting(&self, _events: &[RecordedEvent]) -> usize {
        1
    }

    /// Applies events that fit into one write, if each is the next one of its stream. Returns
    /// false, and changes nothing, if one is not.
    ///
    /// # Errors
    /// See [`Checkpointed::advance`].
    fn advance_all(
        &self,
        _events: &[RecordedEvent],
    ) -> impl Future<Output = Result<bool, DeliveryError>> + Send {
        async { Ok(false) }
    }
}

/// The result of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The event was applied.
    Applied,
    /// The event was applied before, or it changes nothing.
    Duplicate,
    /// The event was applied after this number of missing events.
    CaughtUp(u64),
    /// A provider throttles, so nothing was done. The step stays due, and is requested again later.
    Postponed,
}

impl Delivery {
    /// Returns the outcome as logs show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::CaughtUp(_) => "caught-up",
            Self::Postponed => "postponed",
        }
    }
}

/// The error of a delivery.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The target is throttled, unreachable or timed out. A later retry may succeed.
    #[error(transparent)]
    Unavailable(BoxError),
    /// The target rejects the effect permanently.
    #[error(transparent)]
    Permanent(BoxError),
    /// The store failed, or lacks the missing events.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DeliveryError {
    /// True if the same delivery may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Permanent(_) => false,
            Self::Store(error) => error.is_transient(),
        }
    }
}

impl From<CodecError> for DeliveryError {
    fn from(error: CodecError) -> Self {
        Self::Store(error.into())
    }
}

/// Applies an event, after the events that the gate is missing.
///
/// # Errors
/// Returns an error if a write or read fails, or the store lacks the missing events.
#[doc(hidden)]
pub async fn deliver(
    projection: &impl Checkpointed,
    store: &impl EventStore,
    event: &RecordedEvent,
) -> Result<Delivery, DeliveryError> {
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
                reason: format!("the gate is at version {at}, but the store has no next event"),
            }
            .into());
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
        }
        .into()),
    }
}
