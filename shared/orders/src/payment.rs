//! The payment of one order: the provider's responses and the amount.
//!
//! Events are stored: their names and members never change.

use cairn::{Aggregate, Decider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{Money, OrderId};

/// The payment's rules.
#[derive(Debug)]
pub struct Payment;

/// An event of a payment.
#[derive(Clone, Debug, PartialEq, Eq, cairn::Event)]
#[event(prefix = "Payment")]
pub enum Event {
    /// The provider authorized a payment.
    Authorized(Authorization),
    /// The provider declined a payment.
    Declined {
        /// The requested amount.
        amount: Money,
        /// The provider's reason.
        reason: String,
    },
    /// The provider captured an authorized payment.
    Captured(Authorization),
    /// The provider voided an authorization.
    Voided(Authorization),
    /// The provider refunded a captured payment.
    Refunded(Authorization),
}

/// The provider's authorization of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Authorization {
    /// The provider's reference for the payment.
    pub reference: String,
    /// The authorized amount.
    pub amount: Money,
}

/// The state of a payment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// No request was sent to the provider, or its outcome is unknown.
    #[default]
    None,
    /// The provider authorized the payment.
    Authorized(Authorization),
    /// The provider declined the payment.
    Declined,
    /// The provider captured the payment.
    Captured(Authorization),
    /// The provider voided the authorization.
    Voided,
    /// The provider refunded the payment.
    Refunded,
}

/// An outcome at the provider, to record before a step depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The provider authorized the amount.
    RecordAuthorization(Authorization),
    /// The provider declined the payment.
    RecordDecline {
        /// The requested amount.
        amount: Money,
        /// The provider's reason.
        reason: String,
    },
    /// The provider captured the payment.
    RecordCapture,
    /// The provider voided the authorization.
    RecordVoid,
    /// The provider refunded the payment.
    RecordRefund,
}

/// The reason for which a payment rejects a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the payment is in a different state")]
    OutOfOrder,
}

impl Decider for Payment {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (command, state) {
            (Command::RecordAuthorization(authorization), State::None) => {
                Ok(vec![Event::Authorized(authorization.clone())])
            }
            (Command::RecordDecline { amount, reason }, State::None) => {
                Ok(vec![declined(*amount, reason)])
            }
            (Command::RecordCapture, State::Authorized(authorization)) => {
                Ok(vec![Event::Captured(authorization.clone())])
            }
            (Command::RecordVoid, State::Authorized(authorization)) => {
                Ok(vec![Event::Voided(authorization.clone())])
            }
            (Command::RecordRefund, State::Captured(authorization)) => {
                Ok(vec![Event::Refunded(authorization.clone())])
            }
            // Undoing something that did not happen, or that is already undone, changes nothing. A
            // captured authorization cannot be voided, even if its refund was settled manually.
            (
                Command::RecordVoid,
                State::None
                | State::Declined
                | State::Captured(_)
                | State::Voided
                | State::Refunded,
            )
            | (
                Command::RecordRefund,
                State::None
                | State::Authorized(_)
                | State::Declined
                | State::Voided
                | State::Refunded,
            ) => Ok(vec![]),
            (
                Command::RecordAuthorization(_) | Command::RecordDecline { .. },
                State::Authorized(_)
                | State::Declined
                | State::Captured(_)
                | State::Voided
                | State::Refunded,
            )
            | (
                Command::RecordCapture,
                State::None
                | State::Declined
                | State::Captured(_)
                | State::Voided
                | State::Refunded,
            ) => Err(Rejection::OutOfOrder),
        }
    }

    fn evolve(_: State, event: &Event) -> State {
        match event {
            Event::Authorized(authorization) => State::Authorized(authorization.clone()),
            Event::Declined { .. } => State::Declined,
            Event::Captured(authorization) => State::Captured(authorization.clone()),
            Event::Voided(_) => State::Voided,
            Event::Refunded(_) => State::Refunded,
        }
    }
}

impl Aggregate for Payment {
    type Id = OrderId;

    const CATEGORY: &'static str = "payment";
}

fn declined(amount: Money, reason: &str) -> Event {
    Event::Declined {
        amount,
        reason: reason.to_owned(),
    }
}
