//! `GET /orders/{orderId}/events`: everything that happened to an order, oldest first.

use cairn::{
    Commit,
    cloudevent::CloudEvent,
    dynamodb::DynamoStore,
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response},
    },
    store::{EventStore, Part},
};
use futures_util::future::try_join_all;
use orders::{
    order::Event,
    values::{CustomerId, OrderId},
};
use serde_json::json;

/// The function. It needs `EVENTS_TABLE` and `EVENT_SOURCE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let store = environment.event_store()?;
    let source = environment.setting("EVENT_SOURCE")?;
    api::function(environment, move |request| {
        list(store.clone(), source.clone(), request)
    })
}

async fn list(store: DynamoStore, source: String, request: Request) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("there is no such order");
    let order_id: OrderId = request.path("orderId").parse().map_err(|_| unknown())?;
    // Where two streams were written to in the same millisecond, the effect stands before the
    // saga's record of it.
    let streams = [
        order_id.order_stream(),
        order_id.payment_stream(),
        order_id.shipment_stream(),
        order_id.fulfilment_stream(),
    ];
    let all = Part::all();
    let histories = try_join_all(streams.iter().map(|stream| store.read(stream, &all))).await?;
    let placed = histories.first().and_then(|commits| commits.first());
    let customer_id = placed.map(customer_of).transpose()?.flatten();
    if !customer_id.is_some_and(|id| request.caller.may_deal_with(id.as_str())) {
        return Err(unknown());
    }
    let mut events: Vec<_> = histories
        .iter()
        .flatten()
        .flat_map(Commit::recorded)
        .collect();
    // Stable, and time never goes backwards within a stream: each stream keeps its order.
    events.sort_by_key(|event| event.at);
    let events: Vec<_> = events
        .iter()
        .map(|event| CloudEvent::new(&source, event))
        .collect();
    Response::new(200, json!({ "events": events }))
}

/// Whose order it is, from the commit that placed it.
fn customer_of(placed: &Commit) -> Result<Option<CustomerId>, Problem> {
    let first = placed.recorded().next();
    let event = first.map(|first| first.decode::<Event>()).transpose();
    Ok(match event.map_err(|error| Problem::internal(&error))? {
        Some(Event::Placed(order)) => Some(order.customer_id),
        Some(Event::Confirmed { .. } | Event::Shipped { .. } | Event::Cancelled { .. }) | None => {
            None
        }
    })
}
