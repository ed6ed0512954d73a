//! The payment of one order: what the provider has said, and what it was for.

use cairn::{Aggregate, Decider, event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::Money;

/// The payment's rules.
#[derive(Debug)]
pub struct Payment;

/// What the provider has done; recorded before anything depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// It authorized the amount.
    RecordAuthorization(Authorization),
    /// It declined.
    RecordDecline {
        /// How much was asked for.
        amount: Money,
        /// Why.
        reason: String,
    },
    /// It took the money.
    RecordCapture,
    /// It gave up the authorization.
    RecordVoid,
    /// It gave the money back.
    RecordRefund,
}

/// A provider's promise to pay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Authorization {
    /// The provider's reference.
    pub reference: String,
    /// How much.
    pub amount: Money,
}

/// What happened to a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// The provider authorized it.
    #[serde(rename = "PaymentAuthorized")]
    Authorized(Authorization),
    /// The provider declined it.
    #[serde(rename = "PaymentDeclined")]
    Declined {
        /// How much was asked for.
        amount: Money,
        /// Why.
        reason: String,
    },
    /// The money was taken.
    #[serde(rename = "PaymentCaptured")]
    Captured(Authorization),
    /// The authorization was given up.
    #[serde(rename = "PaymentVoided")]
    Voided(Authorization),
    /// The money was given back.
    #[serde(rename = "PaymentRefunded")]
    Refunded(Authorization),
}

impl event::Event for Event {}

/// Where a payment stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Nothing was asked of the provider, or no answer is known.
    None,
    /// Promised.
    Authorized(Authorization),
    /// Refused.
    Declined,
    /// Taken.
    Captured(Authorization),
    /// Given up before it was taken.
    Voided,
    /// Given back.
    Refunded,
}

/// Why a payment refuses a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The payment has gone further than that.
    #[error("the payment is in a different state")]
    OutOfOrder,
}

impl Decider for Payment {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn initial() -> State {
        State::None
    }

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (command, state) {
            (Command::RecordAuthorization(authorization), State::None) => {
                Ok(vec![Event::Authorized(authorization.clone())])
            }
            (Command::RecordDecline { amount, reason }, State::None) => Ok(vec![Event::Declined {
                amount: *amount,
                reason: reason.clone(),
            }]),
            (Command::RecordCapture, State::Authorized(authorization)) => {
                Ok(vec![Event::Captured(authorization.clone())])
            }
            (Command::RecordVoid, State::Authorized(authorization)) => {
                Ok(vec![Event::Voided(authorization.clone())])
            }
            (Command::RecordRefund, State::Captured(authorization)) => {
                Ok(vec![Event::Refunded(authorization.clone())])
            }
            // Undoing what did not happen, or is undone already, leaves nothing to do.
            // A promise that was used is none any more: where its refund was settled by hand, too.
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
    const CATEGORY: &'static str = "payment";
}
