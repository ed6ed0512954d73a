//! `GET /orders/{orderId}/events`: the events of an order, causes before effects.

use cairn::{Commit, causality::in_causal_order, cloudevent::CloudEvent, store};
use cairn_aws::{
    dynamodb::DynamoStore,
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response},
    },
};
use orders::{
    order::Event,
    values::{CustomerId, OrderId},
};
use serde_json::json;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let store = app.event_store()?;
    let source = app.variable("EVENT_SOURCE")?;
    api::function(app, move |request| {
        list(store.clone(), source.clone(), request)
    })
}

async fn list(store: DynamoStore, source: String, request: Request) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("order not found");
    let order_id: OrderId = request.path("orderId").parse().map_err(|_| unknown())?;
    let others = [
        order_id.order_stream(),
        order_id.payment_stream(),
        order_id.shipment_stream(),
    ];
    let saga = order_id.fulfilment_stream();
    let mut histories = store::read_together(&store, &saga, &others, None).await?;
    // Among independent commits, those of the saga come last.
    histories.rotate_left(1);
    let placed = histories.first().and_then(|commits| commits.first());
    let customer_id = placed.map(customer_of).transpose()?.flatten();
    if !customer_id.is_some_and(|id| request.caller.can_access(id.as_str())) {
        return Err(unknown());
    }
    let events: Vec<_> = in_causal_order(&histories)
        .into_iter()
        .flat_map(Commit::recorded)
        .map(|event| CloudEvent::new(&source, &event))
        .collect();
    Response::new(200, json!({ "events": events }))
}

/// Returns the customer from the commit that placed the order.
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
