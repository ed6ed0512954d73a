//! The decider: an aggregate as three pure functions.
//!
//! `decide` may refuse and `evolve` may not. Neither reads a clock, draws a random number or waits, so the same history comes
//! to the same state everywhere: in a function, in a test, in a read that asks how it was last week.

use std::fmt::Debug;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::event::Event;

/// An aggregate's rules, without a clock, a random source or any I/O.
///
/// `now` and fresh ids are part of a command where a decision needs them.
pub trait Decider {
    /// What the past adds up to. Its variants hold only what is true then.
    type State;
    /// A request that may be refused.
    type Command;
    /// A fact, in the past tense.
    type Event;
    /// Why a command was refused.
    type Rejection;

    /// The state before the first event.
    fn initial() -> Self::State;

    /// Checks a command against a state.
    ///
    /// No events mean: accepted, and there is nothing left to do. The same command twice is
    /// therefore a success that writes nothing.
    ///
    /// # Errors
    /// The rejection, when the state does not allow the command.
    fn decide(
        state: &Self::State,
        command: &Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The state after one more event. Total: history has happened, so it never refuses or panics.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;

    /// The state after a whole history.
    fn fold<'a>(events: impl IntoIterator<Item = &'a Self::Event>) -> Self::State
    where
        Self::Event: 'a,
    {
        events.into_iter().fold(Self::initial(), Self::evolve)
    }
}

/// A decider whose events are stored in streams of one category.
///
/// A state is stored as well, in snapshots, but only for code that has the same one: any change of its
/// type makes the old snapshots unreadable, and they are ignored.
pub trait Aggregate:
    Decider<
        State: Clone + Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync,
        Command: Send + Sync,
        Event: Event + Send + Sync,
        Rejection: Send,
    > + 'static
{
    /// The first part of the stream ids, `order` in `order-<uuid>`. It is stored: never change it.
    const CATEGORY: &'static str;

    /// Raise it when `evolve` comes to other states from the same events although the type of the
    /// state is the same. Snapshots of other revisions are ignored.
    const REVISION: u32 = 1;

    /// A snapshot rides in every commit that completes this many, and a load reads this many at
    /// most, unless newer code ignores the snapshots that there are. At least 1.
    ///
    /// A longer interval saves write units and costs read units. With commits of `c` bytes, a
    /// snapshot of `s` bytes and a share `f` of commands that find the state in memory, a command
    /// costs least at about `sqrt(40 * s / c / (1 - f))` commits; the curve is flat around it. For
    /// commits of 600 bytes and snapshots of 1.4 KB, that is 10 when nothing is in memory and 14 when
    /// half is. `infra/bench` measures the curve.
    const SNAPSHOT_EVERY: u32 = 16;
}
