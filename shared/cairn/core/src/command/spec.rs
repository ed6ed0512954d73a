//! Given/when/then for deciders.
//!
//! Two tests of a door read as sentences about its behaviour:
//!
//! ```
//! use cairn::{Decider, spec::given};
//! # struct Door;
//! # #[derive(Debug, PartialEq)] enum Event { Opened, Closed }
//! # #[derive(Debug, PartialEq)] enum Rejection { Already }
//! # enum Command { Open, Close }
//! # impl Decider for Door {
//! #     type State = bool; type Command = Command; type Event = Event; type Rejection = Rejection;
//! #     fn decide(open: &bool, command: &Command) -> Result<Vec<Event>, Rejection> {
//! #         match (open, command) {
//! #             (false, Command::Open) => Ok(vec![Event::Opened]),
//! #             (true, Command::Close) => Ok(vec![Event::Closed]),
//! #             (true, Command::Open) | (false, Command::Close) => Err(Rejection::Already),
//! #         }
//! #     }
//! #     fn evolve(_: bool, event: &Event) -> bool { matches!(event, Event::Opened) }
//! # }
//! given::<Door>([]).when(&Command::Open).then([Event::Opened]);
//! given::<Door>([Event::Opened]).when(&Command::Open).then_rejected(&Rejection::Already);
//! ```

use std::fmt::Debug;

use crate::decider::Decider;

/// Starts a test from a history.
pub fn given<D: Decider>(history: impl IntoIterator<Item = D::Event>) -> Given<D> {
    Given {
        state: history
            .into_iter()
            .fold(D::initial(), |state, event| D::evolve(state, &event)),
    }
}

/// The state of a test before its command.
pub struct Given<D: Decider> {
    state: D::State,
}

impl<D: Decider> Given<D> {
    /// Decides the command.
    pub fn when(self, command: &D::Command) -> Outcome<D> {
        Outcome {
            decision: D::decide(&self.state, command),
        }
    }

    /// Returns the state, for assertions about `evolve`.
    pub fn state(self) -> D::State {
        self.state
    }
}

/// The result of a command.
pub struct Outcome<D: Decider> {
    decision: Result<Vec<D::Event>, D::Rejection>,
}

impl<D> Outcome<D>
where
    D: Decider<Event: Debug + PartialEq, Rejection: Debug + PartialEq>,
{
    /// Asserts that the command was accepted with exactly these events.
    ///
    /// # Panics
    /// Panics if it was rejected, or returned other events.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) {
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(self.decision, Ok(expected));
    }

    /// Asserts that the command was accepted and changed nothing.
    ///
    /// # Panics
    /// Panics if it was rejected, or returned events.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// Asserts that the command was rejected with exactly this reason.
    ///
    /// # Panics
    /// Panics if it was accepted, or rejected with another reason.
    #[track_caller]
    pub fn then_rejected(self, expected: &D::Rejection) {
        match self.decision {
            Err(rejection) => assert_eq!(&rejection, expected),
            Ok(events) => panic!("expected {expected:?}, but the command was accepted: {events:?}"),
        }
    }
}
