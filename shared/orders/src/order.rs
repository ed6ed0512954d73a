//! The order: placed, confirmed, shipped, or cancelled with a reason.
//!
//! Events are stored: their names and members never change.

use cairn::{Aggregate, Decider, Input, api::Conflict, personal_data::Sealed};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::values::{
    Address, CustomerId, Email, Item, Lines, Money, OrderId, PaymentToken, Text, items,
};

/// The order's rules.
#[derive(Debug)]
pub struct Order;

/// An event of an order. It carries the data that its consumers need.
#[derive(Clone, Debug, PartialEq, Eq, cairn::Event)]
#[event(prefix = "Order")]
pub enum Event {
    /// An order was placed.
    Placed(Box<Placed>),
    /// An order was confirmed.
    Confirmed {
        /// The customer who placed the order.
        customer_id: CustomerId,
        /// The items sold, one for each SKU.
        items: Vec<Item>,
        /// The total of the order.
        total: Money,
    },
    /// An order was handed to the carrier.
    Shipped {
        /// The customer who placed the order.
        customer_id: CustomerId,
    },
    /// An order was cancelled.
    #[event(upcasters(with_canceller))]
    Cancelled {
        /// The customer who placed the order.
        customer_id: CustomerId,
        /// The reason for the cancellation.
        reason: Text,
        /// The party that cancelled the order.
        #[serde(rename = "cancelledBy")]
        by: Canceller,
    },
}

/// An order as the customer placed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The customer who placed the order.
    pub customer_id: CustomerId,
    /// The lines of the order.
    pub lines: Lines,
    /// The total of the lines.
    pub total: Money,
    /// The payment of the order.
    pub payment: Payment,
    /// The delivery address, encrypted with the customer's key.
    pub ship_to: Sealed<Address>,
    /// The customer's email address, encrypted with the customer's key, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Sealed<Email>>,
}

/// The payment of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Input)]
pub struct Payment {
    /// The payment provider's token for the means of payment.
    pub token: PaymentToken,
}

/// The party that cancelled an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Canceller {
    /// The customer.
    Customer,
    /// An operator, on behalf of the customer.
    Operator,
    /// An unidentified caller of an API without tokens. Version 1 did not identify any caller.
    #[serde(rename = "somebody")]
    Unknown,
    /// The fulfilment, because it could not be completed.
    Fulfilment,
}

impl Event {
    /// Returns the customer who placed the order.
    pub fn customer(&self) -> &CustomerId {
        match self {
            Self::Placed(placed) => &placed.customer_id,
            Self::Confirmed { customer_id, .. }
            | Self::Shipped { customer_id }
            | Self::Cancelled { customer_id, .. } => customer_id,
        }
    }
}

/// Version 1 stored `by: customer` for every caller. See docs/decisions/0027.
fn with_canceller(mut data: Value) -> Value {
    if let Some(members) = data.as_object_mut()
        && let Some(by) = members.remove("by")
    {
        let by = if by == "customer" {
            "somebody".into()
        } else {
            by
        };
        members.insert("cancelledBy".to_owned(), by);
    }
    data
}

/// The state of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// The order does not exist.
    #[default]
    NotPlaced,
    /// The fulfilment of the order is in progress.
    Placed(Box<Placed>),
    /// The order is paid and can be shipped.
    Confirmed(Box<Placed>),
    /// The carrier has the order.
    Shipped(Box<Placed>),
    /// The order will not be fulfilled.
    Cancelled(Box<Placed>),
}

impl State {
    /// Returns the status that clients see, or `None` if the order does not exist.
    pub fn status(&self) -> Option<&'static str> {
        match self {
            Self::NotPlaced => None,
            Self::Placed(_) => Some("placed"),
            Self::Confirmed(_) => Some("confirmed"),
            Self::Shipped(_) => Some("shipped"),
            Self::Cancelled(_) => Some("cancelled"),
        }
    }

    /// Returns the order as the customer placed it, or `None` if it does not exist.
    pub fn placed(&self) -> Option<&Placed> {
        match self {
            Self::NotPlaced => None,
            Self::Placed(placed)
            | Self::Confirmed(placed)
            | Self::Shipped(placed)
            | Self::Cancelled(placed) => Some(placed),
        }
    }
}

/// A command to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Places the order. Its total follows from its lines.
    Place(Box<Placed>),
    /// Confirms the order: its stock is reserved and its payment is captured.
    Confirm,
    /// Hands the order to the carrier.
    Ship,
    /// Cancels the order.
    Cancel {
        /// The reason for the cancellation.
        reason: Text,
        /// The party that cancels the order.
        by: Canceller,
    },
}

/// The reason for which an order rejects a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("order not found")]
    NotPlaced,
    #[error("the order already exists")]
    AlreadyPlaced,
    #[error("the order is not confirmed yet")]
    NotConfirmed,
    #[error("the order is already confirmed")]
    AlreadyConfirmed,
    #[error("the order has been shipped")]
    AlreadyShipped,
    #[error("the order was cancelled")]
    Cancelled,
}

impl Conflict for Rejection {
    fn status(&self) -> Option<&'static str> {
        match self {
            Self::NotPlaced | Self::AlreadyPlaced => None,
            Self::NotConfirmed => Some("placed"),
            Self::AlreadyConfirmed => Some("confirmed"),
            Self::AlreadyShipped => Some("shipped"),
            Self::Cancelled => Some("cancelled"),
        }
    }
}

impl Decider for Order {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (command, state) {
            (Command::Place(order), State::NotPlaced) => Ok(vec![placed(order)]),
            (
                Command::Place(_),
                State::Placed(_) | State::Confirmed(_) | State::Shipped(_) | State::Cancelled(_),
            ) => Err(Rejection::AlreadyPlaced),

            (Command::Confirm, State::Placed(order)) => Ok(vec![confirmed(order)]),
            (Command::Confirm, State::Confirmed(_)) => Err(Rejection::AlreadyConfirmed),

            (Command::Ship, State::Confirmed(order)) => Ok(vec![shipped(order)]),
            (Command::Ship, State::Placed(_)) => Err(Rejection::NotConfirmed),

            (Command::Cancel { reason, by }, State::Placed(order) | State::Confirmed(order)) => {
                Ok(vec![cancelled(order, reason, *by)])
            }
            (Command::Cancel { .. }, State::Cancelled(_)) => Ok(vec![]),

            (Command::Confirm | Command::Ship | Command::Cancel { .. }, State::NotPlaced) => {
                Err(Rejection::NotPlaced)
            }
            (Command::Confirm | Command::Ship | Command::Cancel { .. }, State::Shipped(_)) => {
                Err(Rejection::AlreadyShipped)
            }
            (Command::Confirm | Command::Ship, State::Cancelled(_)) => Err(Rejection::Cancelled),
        }
    }

    fn evolve(state: State, event: &Event) -> State {
        match (event, state) {
            (Event::Placed(order), State::NotPlaced) => State::Placed(order.clone()),
            (Event::Confirmed { .. }, State::Placed(order)) => State::Confirmed(order),
            (Event::Shipped { .. }, State::Confirmed(order)) => State::Shipped(order),
            (Event::Cancelled { .. }, State::Placed(order) | State::Confirmed(order)) => {
                State::Cancelled(order)
            }
            // `decide` returns no event in any other state.
            (
                Event::Placed(_)
                | Event::Confirmed { .. }
                | Event::Shipped { .. }
                | Event::Cancelled { .. },
                state @ (State::NotPlaced
                | State::Placed(_)
                | State::Confirmed(_)
                | State::Shipped(_)
                | State::Cancelled(_)),
            ) => state,
        }
    }
}

impl Aggregate for Order {
    type Id = OrderId;

    const CATEGORY: &'static str = "order";
}

fn placed(order: &Placed) -> Event {
    let total = order.lines.total();
    let order = order.clone();
    Event::Placed(Box::new(Placed { total, ..order }))
}

fn confirmed(order: &Placed) -> Event {
    Event::Confirmed {
        customer_id: order.customer_id.clone(),
        items: items(&order.lines),
        total: order.total,
    }
}

fn shipped(order: &Placed) -> Event {
    Event::Shipped {
        customer_id: order.customer_id.clone(),
    }
}

fn cancelled(order: &Placed, reason: &Text, by: Canceller) -> Event {
    Event::Cancelled {
        customer_id: order.customer_id.clone(),
        reason: reason.clone(),
        by,
    }
}
