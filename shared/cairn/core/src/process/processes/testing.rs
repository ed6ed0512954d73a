//! Given/when/then for processes.

use super::{Cause, Outputs, Process};
use crate::timestamp::Timestamp;

/// Starts a test from own events.
pub fn given<P: Process>(history: impl IntoIterator<Item = P::Event>) -> Given<P> {
    let mut state = P::State::default();
    for event in history {
        state = P::evolve(state, &event);
    }
    Given { state }
}

/// The state of a test before its cause.
pub struct Given<P: Process> {
    state: P::State,
}

impl<P: Process> Given<P> {
    /// Decides on a cause at a time.
    pub fn when(self, cause: &Cause<P>, at: Timestamp) -> Decided<P> {
        Decided {
            outputs: P::decide(&self.state, cause, at),
        }
    }
}

/// The outputs of a decision.
pub struct Decided<P: Process> {
    outputs: Outputs<P>,
}

impl<P: Process> Decided<P> {
    /// Asserts that the decision has exactly these outputs.
    ///
    /// # Panics
    /// Panics if it has others.
    #[track_caller]
    pub fn then(self, expected: &Outputs<P>) {
        assert_eq!(&self.outputs, expected);
    }
}
