//! A product of the catalogue: the price of one SKU.
//!
//! Events are stored: their names and members never change.

use cairn::{Aggregate, Decider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{Money, Price, Sku};

/// The product's rules.
#[derive(Debug)]
pub struct Product;

/// An event of a product.
#[derive(Clone, Debug, PartialEq, Eq, cairn::Event)]
#[event(prefix = "Product")]
pub enum Event {
    /// The price of one unit was set.
    PriceSet {
        /// The new price of one unit.
        price: Money,
    },
}

/// The state of a product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// The product has no price: it cannot be sold.
    #[default]
    Unpriced,
    /// The product has a price.
    Priced {
        /// The price of one unit.
        price: Money,
    },
}

impl State {
    /// Returns the price of one unit, or `None` if no price was set.
    pub fn price(&self) -> Option<Money> {
        match self {
            Self::Unpriced => None,
            Self::Priced { price } => Some(*price),
        }
    }
}

/// A command to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Sets the price of one unit.
    SetPrice(Price),
}

/// A product accepts every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {}

impl Decider for Product {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (command, state) {
            (Command::SetPrice(price), State::Unpriced) => Ok(set(*price)),
            (Command::SetPrice(price), State::Priced { price: present }) => {
                Ok(changed(*present, *price))
            }
        }
    }

    fn evolve(_: State, event: &Event) -> State {
        match event {
            Event::PriceSet { price } => State::Priced { price: *price },
        }
    }
}

impl Aggregate for Product {
    type Id = Sku;

    const CATEGORY: &'static str = "product";
}

fn set(price: Price) -> Vec<Event> {
    vec![Event::PriceSet {
        price: price.money(),
    }]
}

/// Setting the current price again is no event.
fn changed(present: Money, price: Price) -> Vec<Event> {
    if price.money() == present {
        vec![]
    } else {
        set(price)
    }
}
