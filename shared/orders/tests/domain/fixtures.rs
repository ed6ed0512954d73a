//! Fixtures made of the sample order: its request body, history and stored form.

use cairn::{Metadata, RecordedEvent, StreamId, Timestamp, event::Event};
use orders::values::OrderId;
use serde_json::{Value, json};

pub(crate) const OTHER_ORDER: &str = "0e2f1a54-9d3c-4b57-8f61-2a7c5d90b3e8";

pub(crate) fn other_order_id() -> OrderId {
    OTHER_ORDER.parse().unwrap()
}

/// The request body of the sample order. Two of its three lines have the same SKU.
pub(crate) fn body() -> Value {
    json!({
        "customerId": "c-42",
        "lines": [
            { "sku": "TEA-01", "quantity": 2, "unitPrice": { "amount": 1250, "currency": "EUR" } },
            { "sku": "CUP-07", "quantity": 1, "unitPrice": { "amount": 900, "currency": "EUR" } },
            { "sku": "TEA-01", "quantity": 1, "unitPrice": { "amount": 1100, "currency": "EUR" } },
        ],
        "payment": { "token": "tok_visa" },
        "shipTo": {
            "name": "A. Lovelace",
            "line1": "1 Main St",
            "city": "Berlin",
            "postalCode": "10115",
            "country": "DE",
        },
    })
}

/// Returns a time of day on 2026-11-23.
pub(crate) fn at(time: &str) -> Timestamp {
    format!("2026-11-23T{time}Z").parse().unwrap()
}

/// Returns the complete history of a stream, each event with its time of day.
pub(crate) fn recorded<E: Event>(
    stream: &StreamId,
    events: impl IntoIterator<Item = (&'static str, E)>,
) -> Vec<RecordedEvent> {
    (1..)
        .zip(events)
        .map(|(version, (time, event))| RecordedEvent {
            stream: stream.clone(),
            version,
            at: at(time),
            metadata: Metadata::default(),
            event: event.encode().unwrap(),
        })
        .collect()
}

/// Returns an event's stored name and JSON.
pub(crate) fn stored<E: Event>(event: &E) -> (String, String) {
    let stored = event.encode().unwrap();
    (stored.name, stored.data.get().to_owned())
}
