//! The shipment of one order: what the carrier has agreed to.

use cairn::{Aggregate, Decider, event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shipment's rules.
#[derive(Debug)]
pub struct Shipment;

/// What the carrier has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// It agreed, and made a label.
    RecordArrangement(Label),
    /// It refused.
    RecordRefusal {
        /// Why.
        reason: String,
    },
    /// It took the label back.
    RecordCancellation,
}

/// A shipping label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Label {
    /// Who carries it.
    pub carrier: String,
    /// How to follow it.
    pub tracking_number: String,
}

/// What happened to a shipment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// It was arranged.
    #[serde(rename = "ShipmentArranged")]
    Arranged(Label),
    /// The carrier refused it.
    #[serde(rename = "ShipmentRefused")]
    Refused {
        /// Why.
        reason: String,
    },
    /// It was called off.
    #[serde(rename = "ShipmentCancelled")]
    Cancelled(Label),
}

impl event::Event for Event {}

/// Where a shipment stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Nothing was asked of the carrier, or no answer is known.
    None,
    /// Agreed.
    Arranged(Label),
    /// Refused.
    Refused,
    /// Called off.
    Cancelled,
}

/// Why a shipment refuses a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The carrier has answered before.
    #[error("the carrier has already responded")]
    AlreadyAnswered,
}

impl Decider for Shipment {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn initial() -> State {
        State::None
    }

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (command, state) {
            (Command::RecordArrangement(label), State::None) => {
                Ok(vec![Event::Arranged(label.clone())])
            }
            (Command::RecordRefusal { reason }, State::None) => Ok(vec![Event::Refused {
                reason: reason.clone(),
            }]),
            (Command::RecordCancellation, State::Arranged(label)) => {
                Ok(vec![Event::Cancelled(label.clone())])
            }
            // Calling off what was never arranged, or is off already, leaves nothing to do.
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
    const CATEGORY: &'static str = "shipment";
}
