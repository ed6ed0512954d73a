//! The stock of one SKU: units on hand, and the units reserved for each order.
//!
//! Events are stored: their names and members never change.

use std::collections::BTreeMap;

use cairn::{Aggregate, Decider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{OrderId, Quantity, Sku};

/// The stock's rules.
#[derive(Debug)]
pub struct Stock;

/// An event of the stock of a SKU.
#[derive(Clone, Debug, PartialEq, Eq, cairn::Event)]
#[event(prefix = "Stock")]
pub enum Event {
    /// Units of a SKU were received.
    Received {
        /// The number of units received.
        quantity: u64,
    },
    /// Units of a SKU were reserved for an order.
    Reserved {
        /// The order that the units are reserved for.
        order_id: OrderId,
        /// The number of units reserved.
        quantity: u64,
    },
    /// The units reserved for an order were released.
    Released {
        /// The order that the units were reserved for.
        order_id: OrderId,
        /// The number of units released.
        quantity: u64,
    },
    /// The units reserved for an order were allocated to it, and are no longer on hand.
    Allocated {
        /// The order that the units are allocated to.
        order_id: OrderId,
        /// The number of units allocated.
        quantity: u64,
    },
    /// The units allocated to an order were returned, and are reserved for it again.
    Returned {
        /// The order that the units were allocated to.
        order_id: OrderId,
        /// The number of units returned.
        quantity: u64,
    },
}

/// The state of the stock of a SKU. It is empty before the first receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    on_hand: u64,
    reservations: BTreeMap<OrderId, u64>,
}

impl State {
    /// The number of open reservations from which on no order can reserve units.
    ///
    /// Reservations stay open while a provider is unavailable. Without a limit, the snapshot of a
    /// SKU that sells well would grow over the size of a commit, and every load would read all
    /// commits since the last snapshot.
    pub const MAX_RESERVATIONS: usize = 5_000;

    /// Returns the number of units on hand, including reserved units.
    pub fn on_hand(&self) -> u64 {
        self.on_hand
    }

    /// Returns the number of units reserved for orders, which is never more than are on hand.
    pub fn reserved(&self) -> u64 {
        let reserved = self.reservations.values();
        reserved.fold(0, |sum: u64, quantity| sum.saturating_add(*quantity))
    }

    fn reserved_for(&self, order: OrderId) -> Option<u64> {
        self.reservations.get(&order).copied()
    }

    /// Returns the number of units that can still be reserved.
    pub fn available(&self) -> u64 {
        self.on_hand.saturating_sub(self.reserved())
    }
}

/// A command to the stock of a SKU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Receives units.
    Receive(Quantity),
    /// Reserves units for an order.
    Reserve {
        /// The order to reserve units for.
        order: OrderId,
        /// The number of units to reserve.
        quantity: u64,
    },
    /// Releases the units that are reserved for an order.
    Release {
        /// The order with the reservation.
        order: OrderId,
    },
    /// Allocates the reserved units to their order: they are no longer on hand.
    Allocate {
        /// The order with the reservation.
        order: OrderId,
    },
    /// Returns allocated units to the stock, and reserves them for their order until a release.
    Return {
        /// The order that the units were allocated to.
        order: OrderId,
        /// The number of units to return.
        quantity: u64,
    },
}

/// The reason for which the stock rejects a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There are not enough units.
    #[error("out of stock")]
    OutOfStock,
    /// Too many orders have an open reservation; see [`State::MAX_RESERVATIONS`].
    #[error("too many orders in progress")]
    TooManyReservations,
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

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match *command {
            Command::Receive(quantity) => Ok(receive(quantity)),
            Command::Reserve { order, quantity } => reserve(state, order, quantity),
            Command::Release { order } => Ok(release(state, order)),
            Command::Allocate { order } => allocate(state, order),
            Command::Return { order, quantity } => Ok(take_back(state, order, quantity)),
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
    type Id = Sku;

    const CATEGORY: &'static str = "stock";
}

fn receive(quantity: Quantity) -> Vec<Event> {
    let quantity = quantity.get();
    vec![Event::Received { quantity }]
}

fn reserve(state: &State, order_id: OrderId, quantity: u64) -> Result<Vec<Event>, Rejection> {
    match state.reserved_for(order_id) {
        Some(_) => Err(Rejection::AlreadyReserved),
        None if quantity > state.available() => Err(Rejection::OutOfStock),
        None if state.reservations.len() >= State::MAX_RESERVATIONS => {
            Err(Rejection::TooManyReservations)
        }
        None => Ok(vec![Event::Reserved { order_id, quantity }]),
    }
}

/// A release of nothing changes nothing.
fn release(state: &State, order_id: OrderId) -> Vec<Event> {
    let reserved = state.reserved_for(order_id).into_iter();
    reserved
        .map(|quantity| Event::Released { order_id, quantity })
        .collect()
}

fn allocate(state: &State, order_id: OrderId) -> Result<Vec<Event>, Rejection> {
    let reserved = state.reserved_for(order_id);
    let quantity = reserved.ok_or(Rejection::NotReserved)?;
    Ok(vec![Event::Allocated { order_id, quantity }])
}

/// The state does not record allocations, or it would grow with every order. The saga knows that
/// the stock was allocated; its event is in the same append.
fn take_back(state: &State, order_id: OrderId, quantity: u64) -> Vec<Event> {
    match state.reserved_for(order_id) {
        // The units are still reserved: the abandoned confirmation never allocated them.
        Some(_) => vec![],
        None => vec![Event::Returned { order_id, quantity }],
    }
}
