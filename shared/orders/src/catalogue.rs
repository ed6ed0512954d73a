//! Every type of event that there is, of whatever aggregate.
//!
//! `events/schemas` holds the schema of each version of each, and an example of its data. What has been shipped stays as it
//! is there: `cargo run -p orders --example schemas` writes what is new.

use cairn::{Aggregate, schema::EventType};
use schemars::JsonSchema;

use crate::{fulfilment, order, payment, product, shipment, stock};

/// The types of events, aggregate by aggregate, in the order in which each declares them.
pub fn event_types() -> Vec<EventType> {
    [
        of::<order::Order>(),
        of::<fulfilment::Saga>(),
        of::<stock::Stock>(),
        of::<payment::Payment>(),
        of::<shipment::Shipment>(),
        of::<product::Product>(),
    ]
    .concat()
}

fn of<A: Aggregate<Event: JsonSchema>>() -> Vec<EventType> {
    EventType::of::<A::Event>(A::CATEGORY)
}
