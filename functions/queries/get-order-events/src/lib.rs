//! `GET /orders/{orderId}/events`: the events of an order, causes before effects.

use cairn::{
    Aggregate, Commit,
    causality::in_causal_order,
    cloudevent::CloudEvent,
    store::{self, EventStore},
};
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{Problem, Request, Response, query},
};
use orders::{
    fulfilment::Saga,
    order::{Event, Order},
    payment::Payment,
    shipment::Shipment,
    values::{CustomerId, OrderId},
};
use serde_json::json;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let parts = (app.event_store()?, app.variable("EVENT_SOURCE")?);
    query(app, orders::CLAIMS, parts, list)
}

async fn list<S: EventStore>(
    (store, source): (S, String),
    request: Request,
) -> Result<Response, Problem> {
    let unknown = "order not found";
    let order_id: OrderId = request.id("orderId", unknown)?;
    let others = [
        Order::stream(&order_id),
        Payment::stream(&order_id),
        Shipment::stream(&order_id),
    ];
    let saga = Saga::stream(&order_id);
    let mut histories = store::read_together(&store, &saga, &others, None).await?;
    // Among independent commits, those of the saga come last.
    histories.rotate_left(1);
    let placed = histories.first().and_then(|commits| commits.first());
    let customer_id = placed.map(customer_of).transpose()?.flatten();
    if !customer_id.is_some_and(|id| request.caller.can_access(id.as_str())) {
        return Err(Problem::not_found(unknown));
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
