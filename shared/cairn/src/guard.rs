//! Guards: the checks on which the promises stand.
//!
//! A test can switch one off on its thread, to see that what it guards is lost without it. There is a
//! switch only in builds for tests (feature `unguarded`); in all others every guard holds, and the
//! question is not even asked.

/// A guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// An effect and the version that it belongs to change together, from one version to the next.
    VersionGate,
    /// Events that did not arrive are read from the store before a later one is applied.
    GapFilling,
    /// A commit that holds the place of ours is ours if it has our id.
    CommitId,
    /// A command whose id is in the stream is not carried out again.
    CommandId,
    /// What a step does to our own streams and the saga's record of it are one append.
    AtomicStep,
    /// What is refused on a state that may be old is decided again on the state as it is.
    Recheck,
    /// A provider is asked with the same key at every try.
    ProviderKey,
    /// The step that was done last is undone first.
    CompensationOrder,
}

/// Whether a guard holds: always, but for the one that a test has switched off on this thread.
#[cfg(not(feature = "unguarded"))]
pub(crate) const fn holds(_: Guard) -> bool {
    true
}

#[cfg(feature = "unguarded")]
mod switch {
    use std::cell::Cell;

    use super::Guard;

    thread_local! {
        static OFF: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    pub(crate) fn holds(guard: Guard) -> bool {
        OFF.get() != Some(guard)
    }

    /// Switches a guard off on this thread, and the one before on again.
    pub fn switch_off(guard: Option<Guard>) {
        OFF.set(guard);
    }
}

#[cfg(feature = "unguarded")]
pub(crate) use switch::holds;
#[cfg(feature = "unguarded")]
pub use switch::switch_off;
