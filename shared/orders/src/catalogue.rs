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
        of_aggregate::<order::Order>(),
        of_aggregate::<fulfilment::Saga>(),
        of_aggregate::<stock::Stock>(),
        of_aggregate::<payment::Payment>(),
        of_aggregate::<shipment::Shipment>(),
        of_aggregate::<product::Product>(),
    ]
    .concat()
}

fn of_aggregate<A: Aggregate<Event: JsonSchema>>() -> Vec<EventType> {
    EventType::list::<A::Event>(A::CATEGORY)
}
