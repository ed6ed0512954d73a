//! Given/when/then for deciders: a test is a sentence about behaviour.
//!
//! ```
//! use cairn::{Decider, spec::given};
//! # struct Door;
//! # #[derive(Debug, PartialEq)] enum Event { Opened, Closed }
//! # #[derive(Debug, PartialEq)] enum Rejection { Already }
//! # enum Command { Open, Close }
//! # impl Decider for Door {
//! #     type State = bool; type Command = Command; type Event = Event; type Rejection = Rejection;
//! #     fn initial() -> bool { false }
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

/// The history that a test starts from.
pub fn given<D: Decider>(history: impl IntoIterator<Item = D::Event>) -> Given<D> {
    Given {
        state: history
            .into_iter()
            .fold(D::initial(), |state, event| D::evolve(state, &event)),
    }
}

/// A state, ready for a command.
pub struct Given<D: Decider> {
    state: D::State,
}

impl<D: Decider> Given<D> {
    /// Takes the decision.
    pub fn when(self, command: &D::Command) -> Outcome<D> {
        Outcome {
            decision: D::decide(&self.state, command),
        }
    }

    /// The state itself, for assertions about evolve.
    pub fn state(self) -> D::State {
        self.state
    }
}

/// What came of a command.
pub struct Outcome<D: Decider> {
    decision: Result<Vec<D::Event>, D::Rejection>,
}

impl<D> Outcome<D>
where
    D: Decider<Event: Debug + PartialEq, Rejection: Debug + PartialEq>,
{
    /// The command was accepted with exactly these events.
    ///
    /// # Panics
    /// When it was refused, or gave other events.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) {
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(self.decision, Ok(expected));
    }

    /// The command was accepted and there was nothing to do.
    ///
    /// # Panics
    /// When it was refused, or gave events.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// The command was refused for exactly this reason.
    ///
    /// # Panics
    /// When it was accepted, or refused otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: &D::Rejection) {
        match self.decision {
            Err(rejection) => assert_eq!(&rejection, expected),
            Ok(events) => panic!("expected {expected:?}, but it was accepted with {events:?}"),
        }
    }
}
