//! The event types of all aggregates.
//!
//! `events/schemas` has the schema of each version and examples of its data. A version that was
//! shipped never changes there. `cargo run -p orders --example schemas` writes new ones.

use cairn::{Aggregate, schema::EventType};
use schemars::JsonSchema;

use crate::{fulfilment, order, payment, product, shipment, stock};

/// Returns the event types, grouped by aggregate, in the order of their declaration.
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
