//! The shipment of one order: the carrier's response and the label.
//!
//! Events are stored: their names and members never change.

use cairn::{Aggregate, Decider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::OrderId;

/// The shipment's rules.
#[derive(Debug)]
pub struct Shipment;

/// An event of a shipment.
#[derive(Clone, Debug, PartialEq, Eq, cairn::Event)]
#[event(prefix = "Shipment")]
pub enum Event {
    /// A shipment was arranged with the carrier.
    Arranged(Label),
    /// The carrier refused a shipment.
    Refused {
        /// The carrier's reason.
        reason: String,
    },
    /// A shipment was cancelled with the carrier.
    Cancelled(Label),
}

/// A shipping label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Label {
    /// The name of the carrier.
    pub carrier: String,
    /// The carrier's tracking number.
    pub tracking_number: String,
}

/// The state of a shipment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// No request was sent to the carrier, or its outcome is unknown.
    #[default]
    None,
    /// The carrier accepted the shipment.
    Arranged(Label),
    /// The carrier refused the shipment.
    Refused,
    /// The carrier cancelled the shipment.
    Cancelled,
}

/// An outcome at the carrier, to record before a step depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The carrier accepted the shipment and issued a label.
    RecordArrangement(Label),
    /// The carrier refused the shipment.
    RecordRefusal {
        /// The carrier's reason.
        reason: String,
    },
    /// The carrier cancelled the label.
    RecordCancellation,
}

/// The reason for which a shipment rejects a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the carrier has already responded")]
    AlreadyAnswered,
}

impl Decider for Shipment {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (command, state) {
            (Command::RecordArrangement(label), State::None) => {
                Ok(vec![Event::Arranged(label.clone())])
            }
            (Command::RecordRefusal { reason }, State::None) => Ok(vec![refused(reason)]),
            (Command::RecordCancellation, State::Arranged(label)) => {
                Ok(vec![Event::Cancelled(label.clone())])
            }
            // Cancelling what was never arranged, or is already cancelled, changes nothing.
            (Command::RecordCancellation, State::None | State::Refused | State::Cancelled) => {
                Ok(vec![])
            }
            (
                Command::RecordArrangement(_) | Command::RecordRefusal { .. },
                State::Arranged(_) | State::Refused | State::Cancelled,
            ) => Err(Rejection::AlreadyAnswered),
        }
    }

    fn evolve(_: State, event: &Event) -> State {
        match event {
            Event::Arranged(label) => State::Arranged(label.clone()),
            Event::Refused { .. } => State::Refused,
            Event::Cancelled(_) => State::Cancelled,
        }
    }
}

impl Aggregate for Shipment {
    type Id = OrderId;

    const CATEGORY: &'static str = "shipment";
}

fn refused(reason: &str) -> Event {
    Event::Refused {
        reason: reason.to_owned(),
    }
}
