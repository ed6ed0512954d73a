//! `GET /orders/{orderId}`: an order as it is, at least at a version, or as it was at a time.

use cairn::{
    Commit, StreamId, Timestamp,
    dynamodb::{DynamoStore, Generations, Rows},
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response},
    },
    read_model::{Row, fold},
    store::{self, EventStore, Part, StoreError},
};
use futures_util::future::try_join_all;
use orders::{
    read_models::orders::{OrderView, Orders, render},
    values::OrderId,
};

/// The function. It needs `EVENTS_TABLE`, `ORDERS_TABLE` and `READ_MODELS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let store = environment.event_store()?;
    let rows = environment.rows("ORDERS_TABLE")?;
    api::function(environment, move |request| {
        get(store.clone(), rows.clone(), request)
    })
}

async fn get(
    store: DynamoStore,
    generations: Generations<Rows<Orders>>,
    request: Request,
) -> Result<Response, Problem> {
    let at: Option<Timestamp> = request.query("at")?;
    let version: Option<u64> = request.query("minVersion")?;
    let unknown = || Problem::not_found("there is no such order");
    let order_id: OrderId = request.path("orderId").parse().map_err(|_| unknown())?;
    let is_theirs = |view: &OrderView| request.caller.may_deal_with(&view.customer_id);
    if let Some(at) = at {
        let view = from_events(&store, order_id, Some(at)).await?;
        let view = view
            .filter(is_theirs)
            .ok_or_else(|| Problem::not_found("there was no such order at that time"))?;
        return Response::new(200, view);
    }
    let version = version.unwrap_or(1);
    let key = order_id.to_string();
    let row = generations.shown(|rows| {
        let key = key.clone();
        async move { rows.get(&key).await }
    });
    if let Some(row) = row.await?
        && let Some(view) = shown(&row)?
        && view.version >= version
    {
        return if is_theirs(&view) {
            Response::new(200, view)
        } else {
            Err(unknown())
        };
    }
    // The row is behind, or not there yet: the events know.
    let view = from_events(&store, order_id, None)
        .await?
        .filter(is_theirs)
        .ok_or_else(unknown)?;
    if view.version < version {
        return Err(Problem::not_found(format!(
            "the order is at version {}: there is no version {version} yet",
            view.version
        )));
    }
    Response::new(200, view)
}

/// The order as its events say, all of them or those by a time. What is shown is more than the states that snapshots hold,
/// so it begins with the first event.
async fn from_events(
    store: &DynamoStore,
    order_id: OrderId,
    by: Option<Timestamp>,
) -> Result<Option<OrderView>, Problem> {
    let streams = [
        order_id.order_stream(),
        order_id.fulfilment_stream(),
        order_id.shipment_stream(),
    ];
    let histories = streams.iter().map(|stream| history(store, stream, by));
    let commits = try_join_all(histories).await?;
    let events: Vec<_> = commits
        .iter()
        .flatten()
        .flat_map(Commit::recorded)
        .collect();
    let row = fold::<Orders>(&events).map_err(|error| Problem::internal(&error))?;
    row.map_or(Ok(None), |row| shown(&row))
}

async fn history(
    store: &DynamoStore,
    stream: &StreamId,
    by: Option<Timestamp>,
) -> Result<Vec<Commit>, StoreError> {
    match by {
        Some(time) => store::read_by(store, stream, time).await,
        None => store.read(stream, &Part::all()).await,
    }
}

fn shown(row: &Row) -> Result<Option<OrderView>, Problem> {
    render(row).map_err(|error| Problem::internal(&error))
}
