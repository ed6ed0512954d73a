//! The stock of one SKU: what is on hand, and what of it is reserved for which order.

use std::collections::BTreeMap;

use cairn::{Aggregate, Decider, event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{OrderId, Quantity};

/// The stock's rules.
#[derive(Debug)]
pub struct Stock;

/// What can be asked of a SKU's stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Take in pieces.
    Receive(Quantity),
    /// Set pieces aside for an order.
    Reserve {
        /// For which order.
        order: OrderId,
        /// How many.
        quantity: u64,
    },
    /// Give up an order's reservation.
    Release {
        /// Whose.
        order: OrderId,
    },
    /// Let an order's reserved pieces go: they are its own now.
    Allocate {
        /// Whose.
        order: OrderId,
    },
    /// Take back pieces that had been let go, and keep them reserved until they are released.
    Return {
        /// Whose.
        order: OrderId,
        /// How many.
        quantity: u64,
    },
}

/// What happened to a SKU's stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// Pieces came in.
    #[serde(rename = "StockReceived")]
    Received {
        /// How many.
        quantity: u64,
    },
    /// Pieces were set aside.
    #[serde(rename = "StockReserved", rename_all = "camelCase")]
    Reserved {
        /// For which order.
        order_id: OrderId,
        /// How many.
        quantity: u64,
    },
    /// A reservation was given up.
    #[serde(rename = "StockReleased", rename_all = "camelCase")]
    Released {
        /// Whose.
        order_id: OrderId,
        /// How many.
        quantity: u64,
    },
    /// Reserved pieces became an order's own.
    #[serde(rename = "StockAllocated", rename_all = "camelCase")]
    Allocated {
        /// Whose.
        order_id: OrderId,
        /// How many.
        quantity: u64,
    },
    /// Allocated pieces came back, reserved.
    #[serde(rename = "StockReturned", rename_all = "camelCase")]
    Returned {
        /// Whose.
        order_id: OrderId,
        /// How many.
        quantity: u64,
    },
}

impl event::Event for Event {}

/// What is there. A SKU that was never received has nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    on_hand: u64,
    reservations: BTreeMap<OrderId, u64>,
}

impl State {
    /// The pieces in the house, reserved ones included.
    pub fn on_hand(&self) -> u64 {
        self.on_hand
    }

    /// The pieces set aside for orders; never more than are on hand.
    pub fn reserved(&self) -> u64 {
        let reserved = self.reservations.values();
        reserved.fold(0, |sum: u64, quantity| sum.saturating_add(*quantity))
    }

    /// The pieces that can still be reserved.
    pub fn available(&self) -> u64 {
        self.on_hand.saturating_sub(self.reserved())
    }
}

/// Why stock refuses a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There are not enough pieces.
    #[error("out of stock")]
    OutOfStock,
    /// The order has no reservation.
    #[error("no stock is reserved for this order")]
    NotReserved,
    /// The order has a reservation already.
    #[error("stock is already reserved for this order")]
    AlreadyReserved,
}

impl Decider for Stock {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn initial() -> State {
        State::default()
    }

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        let reserved = |order: &OrderId| state.reservations.get(order).copied();
        match *command {
            Command::Receive(quantity) => Ok(vec![Event::Received {
                quantity: quantity.get(),
            }]),
            Command::Reserve { order, quantity } => match reserved(&order) {
                Some(_) => Err(Rejection::AlreadyReserved),
                None if quantity > state.available() => Err(Rejection::OutOfStock),
                None => Ok(vec![Event::Reserved {
                    order_id: order,
                    quantity,
                }]),
            },
            // Nothing reserved is what a release is for: there is nothing left to do.
            Command::Release { order } => Ok(reserved(&order)
                .map(|quantity| Event::Released {
                    order_id: order,
                    quantity,
                })
                .into_iter()
                .collect()),
            Command::Allocate { order } => match reserved(&order) {
                Some(quantity) => Ok(vec![Event::Allocated {
                    order_id: order,
                    quantity,
                }]),
                None => Err(Rejection::NotReserved),
            },
            // What was allocated is not remembered, or the state would grow with every order: that
            // there was an allocation is for the saga to know, whose record is in the same append.
            Command::Return { order, quantity } => match reserved(&order) {
                // They were not let go: a confirmation that was given up has not happened.
                Some(_) => Ok(vec![]),
                None => Ok(vec![Event::Returned {
                    order_id: order,
                    quantity,
                }]),
            },
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match *event {
            Event::Received { quantity } => {
                state.on_hand = state.on_hand.saturating_add(quantity);
            }
            Event::Reserved { order_id, quantity } => {
                state.reservations.insert(order_id, quantity);
            }
            Event::Released { order_id, .. } => {
                state.reservations.remove(&order_id);
            }
            Event::Allocated { order_id, quantity } => {
                state.reservations.remove(&order_id);
                state.on_hand = state.on_hand.saturating_sub(quantity);
            }
            Event::Returned { order_id, quantity } => {
                state.on_hand = state.on_hand.saturating_add(quantity);
                state.reservations.insert(order_id, quantity);
            }
        }
        state
    }
}

impl Aggregate for Stock {
    const CATEGORY: &'static str = "stock";
}
