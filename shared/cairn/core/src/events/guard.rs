//! Guards: the checks behind the guarantees.
//!
//! A test can switch a guard off on its thread to prove that a guarantee fails without it. The
//! switch exists in builds with the feature `unguarded` only. In all other builds, each guard is a
//! constant `true`.

/// A check that a test can switch off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// An effect and its version gate change together, from one version to the next.
    VersionGate,
    /// Missing events are read from the store before a later event is applied.
    GapFilling,
    /// A commit at the version of an append is recognized as the append's own by its id.
    CommitId,
    /// A command whose id is in the stream is not handled again.
    CommandId,
    /// The commands of a step and the saga's record of them are one append.
    AtomicStep,
    /// A rejection on a possibly stale state is decided again on the current state.
    Recheck,
    /// Every attempt at a provider call has the same key.
    ProviderKey,
    /// The last completed step is compensated first.
    CompensationOrder,
}

/// Returns true unless a test switched the guard off on this thread.
#[cfg(not(feature = "unguarded"))]
pub const fn holds(_: Guard) -> bool {
    true
}

#[cfg(feature = "unguarded")]
mod switch {
    use std::cell::Cell;

    use super::Guard;

    thread_local! {
        static OFF: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    /// Returns true unless a test switched the guard off on this thread.
    pub fn holds(guard: Guard) -> bool {
        OFF.get() != Some(guard)
    }

    /// Switches a guard off on this thread, and the previous one on again.
    pub fn switch_off(guard: Option<Guard>) {
        OFF.set(guard);
    }
}

#[cfg(feature = "unguarded")]
pub use switch::holds;
#[cfg(feature = "unguarded")]
pub use switch::switch_off;
