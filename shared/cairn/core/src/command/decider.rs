//! The decider: an aggregate as three pure functions.
//!
//! `decide` can reject a command; `evolve` cannot reject an event. Neither reads a clock, uses a
//! random number or waits. The same history therefore results in the same state in a function, in a
//! test, and in a query of a past state.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{event::Event, stream::StreamId};

/// The rules of an aggregate, without a clock, random numbers or I/O.
///
/// If a decision needs the time or a new id, the command carries it.
pub trait Decider {
    /// The state that the events add up to. Each variant has only the fields that are valid in it.
    ///
    /// The default is the state before the first event.
    type State: Default;
    /// A request, which the rules can reject.
    type Command;
    /// A fact, in the past tense.
    type Event;
    /// The reason for the rejection of a command.
    type Rejection;

    /// Returns the state before the first event.
    fn initial() -> Self::State {
        Self::State::default()
    }

    /// Checks a command against a state, and returns the events that follow.
    ///
    /// An empty list means that the command is accepted and changes nothing. A repeated command is
    /// therefore a success that writes nothing.
    ///
    /// # Errors
    /// Returns a rejection if the state does not allow the command.
    fn decide(
        state: &Self::State,
        command: &Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Returns the state after an event. It is total: an event has happened, so this never panics.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;

    /// Returns the state after a whole history.
    fn fold<'a>(events: impl IntoIterator<Item = &'a Self::Event>) -> Self::State
    where
        Self::Event: 'a,
    {
        events.into_iter().fold(Self::initial(), Self::evolve)
    }
}

/// A decider whose events are stored in streams of one category.
///
/// Snapshots store the state too. A change of the state's type changes its fingerprint, and
/// snapshots with another fingerprint are ignored.
pub trait Aggregate:
    Decider<
        State: Clone + Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync,
        Command: Send + Sync,
        Event: Event + Send + Sync,
        Rejection: Send,
    > + 'static
{
    /// The id of an instance, such as `OrderId`. Its text is the key of a stream id.
    type Id: Display + FromStr<Err: Display> + Send + Sync;

    /// The first part of the stream ids, such as `order` in `order-<uuid>`. It is stored: never
    /// change it.
    const CATEGORY: &'static str;

    /// The revision of `evolve`. Increase it if the same events result in another state of the same
    /// type. Snapshots of other revisions are ignored.
    const REVISION: u32 = 1;

    /// The snapshot interval in commits, at least 1. A load reads at most this many commits, unless
    /// newer code ignores the stored snapshots.
    ///
    /// A longer interval costs fewer write request units and more read request units. With commits
    /// of `c` bytes, snapshots of `s` bytes and a share `f` of commands that find the state in the
    /// cache, the cost is lowest near `sqrt(40 * s / c / (1 - f))` commits. For commits of 600 bytes and
    /// snapshots of 1.4 KB, this is 10 without cache hits, and 14 with a hit for every second
    /// command. `infra/bench` measures the curve, which is flat around the minimum.
    const SNAPSHOT_EVERY: u32 = 16;

    /// Returns the stream of an instance.
    ///
    /// # Panics
    /// Panics if the text of the id is no valid key; see [`StreamId`].
    #[expect(clippy::expect_used, reason = "an id is checked when it is parsed")]
    fn stream(id: &Self::Id) -> StreamId {
        StreamId::new(Self::CATEGORY, &id.to_string()).expect("an id is the key of a stream")
    }
}
