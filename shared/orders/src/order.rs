//! The order: placed, confirmed, shipped, or cancelled with a reason.

use cairn::{
    Aggregate, Decider,
    event::{self, Upcaster},
    sealed::Sealed,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::values::{Address, CustomerId, Email, Item, Lines, Money, PaymentToken, Text, items};

/// The order's rules.
#[derive(Debug)]
pub struct Order;

/// What the customer asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// Who.
    pub customer_id: CustomerId,
    /// What.
    pub lines: Lines,
    /// The sum over the lines.
    pub total: Money,
    /// How it is paid.
    pub payment: Payment,
    /// The delivery address, encrypted with the customer's key.
    pub ship_to: Sealed<Address>,
    /// Where the customer is told how it goes, sealed; they are not told where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Sealed<Email>>,
}

/// How an order is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Payment {
    /// The means of payment, as its provider knows it.
    pub token: PaymentToken,
}

/// What can be asked of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Place it.
    Place(Box<PlaceOrder>),
    /// Confirm it: everything it needs is there and paid.
    Confirm,
    /// Hand it to the carrier.
    Ship,
    /// Cancel it.
    Cancel {
        /// Why.
        reason: Text,
        /// Who wants it.
        by: Canceller,
    },
}

/// An order to place. Its total follows from its lines; what is personal in it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceOrder {
    /// Who.
    pub customer_id: CustomerId,
    /// What.
    pub lines: Lines,
    /// How it is paid.
    pub payment: Payment,
    /// The delivery address, encrypted with the customer's key.
    pub ship_to: Sealed<Address>,
    /// Where the customer is told how it goes, sealed; they are not told where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Sealed<Email>>,
}

/// Who cancelled an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Canceller {
    /// The customer.
    Customer,
    /// An operator, in the customer's name.
    Operator,
    /// Who asks over an open API, and nobody knows whether it is the one or the other.
    #[serde(rename = "somebody")]
    Unknown,
    /// Its fulfilment, which could not go through.
    Fulfilment,
}

/// What happened to an order. Events about it carry what their readers need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// It was placed.
    #[serde(rename = "OrderPlaced")]
    Placed(Box<Placed>),
    /// It was confirmed.
    #[serde(rename = "OrderConfirmed", rename_all = "camelCase")]
    Confirmed {
        /// Whose.
        customer_id: CustomerId,
        /// What was sold.
        items: Vec<Item>,
        /// For how much.
        total: Money,
    },
    /// It was handed to the carrier.
    #[serde(rename = "OrderShipped", rename_all = "camelCase")]
    Shipped {
        /// Whose.
        customer_id: CustomerId,
    },
    /// It was cancelled.
    #[serde(rename = "OrderCancelled", rename_all = "camelCase")]
    Cancelled {
        /// Whose.
        customer_id: CustomerId,
        /// Why.
        reason: Text,
        /// Who wanted it.
        #[serde(rename = "cancelledBy")]
        by: Canceller,
    },
}

impl event::Event for Event {
    const UPCASTERS: &'static [Upcaster] = &[Upcaster {
        name: "OrderCancelled",
        from: 1,
        lift: Some(with_canceller),
    }];
}

/// Version 1 said `by: customer` of whoever asked for it: docs/decisions/0027.
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

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// There is none yet.
    NotPlaced,
    /// It waits to be fulfilled.
    Placed(Box<Placed>),
    /// It is paid and packed.
    Confirmed(Box<Placed>),
    /// It is on its way.
    Shipped(Box<Placed>),
    /// It will not be fulfilled.
    Cancelled(Box<Placed>),
}

impl State {
    /// The status as the outside knows it; `None` where there is no order.
    pub fn status(&self) -> Option<&'static str> {
        match self {
            Self::NotPlaced => None,
            Self::Placed(_) => Some("placed"),
            Self::Confirmed(_) => Some("confirmed"),
            Self::Shipped(_) => Some("shipped"),
            Self::Cancelled(_) => Some("cancelled"),
        }
    }

    /// What the customer asked for; `None` where there is no order.
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

/// Why an order refuses a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such order.
    #[error("order not found")]
    NotPlaced,
    /// An order with this id is there already.
    #[error("the order already exists")]
    AlreadyPlaced,
    /// It is not confirmed yet.
    #[error("the order is not confirmed yet")]
    NotConfirmed,
    /// It is confirmed already.
    #[error("the order is already confirmed")]
    AlreadyConfirmed,
    /// It has been shipped.
    #[error("the order has been shipped")]
    AlreadyShipped,
    /// It was cancelled.
    #[error("the order was cancelled")]
    Cancelled,
}

impl Rejection {
    /// The status of the order that refuses; `None` where the refusal does not tell.
    pub fn status(self) -> Option<&'static str> {
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

    fn initial() -> State {
        State::NotPlaced
    }

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (command, state) {
            (Command::Place(order), State::NotPlaced) => Ok(vec![placed(order)]),
            (
                Command::Place(_),
                State::Placed(_) | State::Confirmed(_) | State::Shipped(_) | State::Cancelled(_),
            ) => Err(Rejection::AlreadyPlaced),

            (Command::Confirm, State::Placed(order)) => Ok(vec![Event::Confirmed {
                customer_id: order.customer_id.clone(),
                items: items(&order.lines),
                total: order.total,
            }]),
            (Command::Confirm, State::Confirmed(_)) => Err(Rejection::AlreadyConfirmed),

            (Command::Ship, State::Confirmed(order)) => Ok(vec![Event::Shipped {
                customer_id: order.customer_id.clone(),
            }]),
            (Command::Ship, State::Placed(_)) => Err(Rejection::NotConfirmed),

            (Command::Cancel { reason, by }, State::Placed(order) | State::Confirmed(order)) => {
                Ok(vec![Event::Cancelled {
                    customer_id: order.customer_id.clone(),
                    reason: reason.clone(),
                    by: *by,
                }])
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
            (Event::Placed(placed), _) => State::Placed(placed.clone()),
            (Event::Confirmed { .. }, State::Placed(order)) => State::Confirmed(order),
            (Event::Shipped { .. }, State::Placed(order) | State::Confirmed(order)) => {
                State::Shipped(order)
            }
            (Event::Cancelled { .. }, State::Placed(order) | State::Confirmed(order)) => {
                State::Cancelled(order)
            }
            (
                Event::Confirmed { .. } | Event::Shipped { .. } | Event::Cancelled { .. },
                state @ (State::NotPlaced
                | State::Confirmed(_)
                | State::Shipped(_)
                | State::Cancelled(_)),
            ) => state,
        }
    }
}

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
}

fn placed(order: &PlaceOrder) -> Event {
    Event::Placed(Box::new(Placed {
        customer_id: order.customer_id.clone(),
        total: order.lines.total(),
        lines: order.lines.clone(),
        payment: order.payment.clone(),
        ship_to: order.ship_to.clone(),
        email: order.email.clone(),
    }))
}
