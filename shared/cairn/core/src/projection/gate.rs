//! The version gate: each event takes effect once and in order.
//!
//! The gate is the version of the last event that was applied from a stream. It is stored *with*
//! the effect, and moves in the same conditional write. An event that comes again finds the gate
//! past it. An event that comes early finds a gap, and the missing events are read from the store.
//! Lost, late, reordered and repeated deliveries therefore all end in the same state.
//!
//! [`deliver_all`] applies a batch. All events of a row that wait in the batch are one write.

use std::{borrow::Cow, collections::BTreeMap, future::Future, sync::Arc};

use futures_util::future::join_all;

use crate::{
    commit::{Commit, RecordedEvent},
    error::BoxError,
    event::CodecError,
    guard::{Guard, holds},
    store::{EventStore, ReadRange, StoreError},
    stream::StreamId,
};

// For tests of the kit.
#[doc(hidden)]
pub mod memory;

/// The result of a write behind gates.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The effects of this number of first events were written, and each gate moved to the version
    /// of its last event.
    Applied(usize),
    /// The first event of a stream does not follow its gate; nothing changed. The versions are
    /// those of the gates, 0 before the first event. They include a gate that was not followed.
    NotNext(BTreeMap<StreamId, u64>),
}

/// A target with version gates, such as a table of rows.
#[doc(hidden)]
pub trait Checkpointed: Send + Sync {
    /// Returns the name of the row or of the shard that the events of a stream change, or `None` if
    /// they are ignored. A write takes events with the same name only.
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>>;

    /// Applies the first events that fit into one write, at least one, if each is the next one of
    /// its stream. The events have one target, and those of each stream are consecutive.
    ///
    /// The effects and the gates change in one write, or none does.
    ///
    /// # Errors
    /// Returns an error if the write fails. The effects can have been written nevertheless.
    fn advance(
        &self,
        events: &[&RecordedEvent],
    ) -> impl Future<Output = Result<Advance, DeliveryError>> + Send;
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

/// The result of an event of a batch. The events that failed with the same call share its error.
#[doc(hidden)]
pub type Delivered = Result<Delivery, Arc<DeliveryError>>;

/// The maximum number of rows or shards that are written concurrently.
const AT_ONCE: usize = 16;

/// Applies events, after the events that their gates are missing. Returns the results in the order
/// of the events.
///
/// The events can have any order and can be repeated. The result is that of one delivery after the
/// other, with fewer writes: a row takes all its events in one write if they fit, and the missing
/// events of a stream are one read. An event that cannot be applied fails alone, with the later
/// events of its stream. A transient error fails the events whose row was not written.
#[doc(hidden)]
pub async fn deliver_all(
    projection: &impl Checkpointed,
    store: &impl EventStore,
    events: &[RecordedEvent],
) -> Vec<Delivered> {
    let mut targets = BTreeMap::<Cow<'_, str>, Target<'_>>::new();
    for event in events {
        if let Some(name) = projection.target(&event.stream) {
            let target = targets.entry(name).or_default();
            let stream = target.waiting.entry(&event.stream).or_default();
            stream.entry(event.version).or_insert(Cow::Borrowed(event));
        }
    }
    let mut outcomes = BTreeMap::new();
    let mut targets = targets.into_values();
    loop {
        let mut side_by_side = vec![];
        for target in targets.by_ref().take(AT_ONCE) {
            side_by_side.push(target.deliver(projection, store));
        }
        if side_by_side.is_empty() {
            break;
        }
        outcomes.extend(join_all(side_by_side).await.into_iter().flatten());
    }
    let delivered = events.iter().map(|event| {
        let Some(outcome) = outcomes.get_mut(&(&event.stream, event.version)) else {
            return Ok(Delivery::Duplicate);
        };
        let first = outcome.clone();
        if first.is_ok() {
            *outcome = Ok(Delivery::Duplicate);
        }
        first
    });
    delivered.collect()
}

/// A stream, and the version of an event.
type Position<'e> = (&'e StreamId, u64);

/// The events of a row, or of a shard of counters.
#[derive(Default)]
struct Target<'e> {
    /// The events that are not applied, by stream and version. A stream has at least one.
    waiting: BTreeMap<&'e StreamId, BTreeMap<u64, Cow<'e, RecordedEvent>>>,
    /// The number of events that were missing before a delivered one.
    gaps: BTreeMap<Position<'e>, u64>,
    outcomes: BTreeMap<Position<'e>, Delivered>,
}

impl<'e> Target<'e> {
    async fn deliver(
        mut self,
        projection: &impl Checkpointed,
        store: &impl EventStore,
    ) -> BTreeMap<Position<'e>, Delivered> {
        let mut most = usize::MAX;
        while !self.waiting.is_empty() {
            let (positions, mut next) = self.next();
            next.truncate(most);
            match projection.advance(&next).await {
                Ok(Advance::Applied(taken)) => {
                    for position in positions.into_iter().take(taken) {
                        self.settle_applied(position);
                    }
                }
                Ok(Advance::NotNext(gates)) => self.follow(&gates, store).await,
                Err(error) if error.is_transient() => self.fail_all(error),
                // One of the events cannot be applied.
                Err(_) if next.len() > 1 => most = 1,
                Err(error) => {
                    if let Some((stream, version)) = positions.first() {
                        self.fail(stream, *version, &Arc::new(error));
                    }
                }
            }
        }
        self.outcomes
    }

    /// Returns the waiting events of each stream up to the first gap.
    fn next(&self) -> (Vec<Position<'e>>, Vec<&RecordedEvent>) {
        let streams = self.waiting.iter().flat_map(|(stream, events)| {
            let first = events.keys().next().copied().unwrap_or_default();
            let in_order = events.iter().zip(first..);
            in_order
                .take_while(|((version, _), expected)| *version == expected)
                .map(|((version, event), _)| ((*stream, *version), event.as_ref()))
        });
        streams.unzip()
    }

    fn settle(&mut self, position: Position<'e>, outcome: Delivered) {
        let (stream, version) = position;
        if let Some(events) = self.waiting.get_mut(stream) {
            events.remove(&version);
            if events.is_empty() {
                self.waiting.remove(stream);
            }
        }
        self.outcomes.insert(position, outcome);
    }

    fn settle_applied(&mut self, position: Position<'e>) {
        let outcome = match self.gaps.get(&position) {
            Some(filled) => Delivery::CaughtUp(*filled),
            None => Delivery::Applied,
        };
        self.settle(position, Ok(outcome));
    }

    /// Settles the events of a stream from a version on, because each needs the one before it.
    fn fail(&mut self, stream: &'e StreamId, from: u64, error: &Arc<DeliveryError>) {
        let events = self.waiting.get(stream).into_iter();
        let versions: Vec<_> = events
            .flat_map(|events| events.range(from..))
            .map(|(version, _)| *version)
            .collect();
        for version in versions {
            self.settle((stream, version), Err(error.clone()));
        }
    }

    fn fail_all(&mut self, error: DeliveryError) {
        let error = Arc::new(error);
        for stream in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.fail(stream, 0, &error);
        }
    }

    /// Removes the events that were applied before, and adds those that the gates are missing.
    async fn follow(&mut self, gates: &BTreeMap<StreamId, u64>, store: &impl EventStore) {
        let mut has_changed = false;
        for (stream, at) in gates {
            let Some((&stream, events)) = self.waiting.get_key_value(stream) else {
                continue;
            };
            let (applied, later): (Vec<u64>, Vec<u64>) =
                events.keys().partition(|version| *version <= at);
            has_changed |= !applied.is_empty();
            for version in applied {
                self.settle((stream, version), Ok(Delivery::Duplicate));
            }
            if later.first().is_some_and(|first| *first > at + 1) {
                has_changed = true;
                if let Err(error) = self.fill(stream, *at, &later, store).await {
                    self.fail(stream, 0, &Arc::new(error));
                }
            }
        }
        if !has_changed {
            let reason = "a write was refused, but each event follows its gate";
            self.fail_all(DeliveryError::Unavailable(reason.into()));
        }
    }

    /// Reads the events after a gate that are missing up to the last waiting one.
    async fn fill(
        &mut self,
        stream: &'e StreamId,
        at: u64,
        waiting: &[u64],
        store: &impl EventStore,
    ) -> Result<(), DeliveryError> {
        if !holds(Guard::GapFilling) {
            for version in waiting {
                self.settle((stream, *version), Ok(Delivery::Duplicate));
            }
            return Ok(());
        }
        let last = waiting.last().copied().unwrap_or_default();
        let range = ReadRange {
            to: last,
            ..ReadRange::after(at)
        };
        let commits = store.read(stream, &range).await?;
        let stored = commits.iter().flat_map(Commit::recorded);
        let stored = stored.filter(|event| event.version > at && event.version <= last);
        let mut missing: BTreeMap<u64, RecordedEvent> =
            stored.map(|event| (event.version, event)).collect();
        let mut reached = at;
        for &version in waiting {
            if missing.remove(&version).is_none() {
                let reason = format!("event {version} was delivered but is not stored");
                let error = StoreError::Corrupt {
                    stream: stream.clone(),
                    reason,
                };
                self.fail(stream, version, &Arc::new(error.into()));
                break;
            }
            let filled = version - reached - 1;
            if filled > 0 {
                tracing::info!(%stream, version, filled, "missing events read");
                self.gaps.insert((stream, version), filled);
            }
            reached = version;
        }
        if let Some(events) = self.waiting.get_mut(stream) {
            let missing = missing
                .into_iter()
                .filter(|(version, _)| *version < reached);
            events.extend(missing.map(|(version, event)| (version, Cow::Owned(event))));
        }
        Ok(())
    }
}
