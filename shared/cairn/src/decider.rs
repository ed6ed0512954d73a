//! The decider: an aggregate as three pure functions.

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
/// The bounds are what an asynchronous command handler needs to hold a state across an await.
pub trait Aggregate:
    Decider<
        State: Clone + Send + Sync,
        Command: Send + Sync,
        Event: Event + Send + Sync,
        Rejection: Send,
    > + 'static
{
    /// The first part of the stream ids, `order` in `order-<uuid>`. It is stored: never change it.
    const CATEGORY: &'static str;
}
