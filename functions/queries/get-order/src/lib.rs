//! `GET /orders/{orderId}`: the current order, optionally at a minimum version, or the order at a
//! time.

use cairn::{
    Timestamp,
    error::BoxError,
    read_model::LiveRows,
    store::{self, Consistency, EventStore, ReadRange},
};
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{Problem, Request, Response, query},
};
use futures_util::future::try_join;
use orders::{
    read_models::orders::{OrderView, Orders, of_histories, render, streams},
    values::OrderId,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let parts = (app.event_store()?, app.rows::<Orders>()?);
    query(app, orders::CLAIMS, parts, get)
}

async fn get<S: EventStore>(
    (store, rows): (S, impl LiveRows),
    request: Request,
) -> Result<Response, Problem> {
    let at: Option<Timestamp> = request.query("at")?;
    let version = request.min_version()?;
    let unknown = "order not found";
    let order_id: OrderId = request.id("orderId", unknown)?;
    let is_theirs = |view: &OrderView| request.caller.can_access(&view.customer_id);
    if let Some(at) = at {
        let view = from_events(&store, order_id, Some(at)).await?;
        let view = view
            .filter(is_theirs)
            .ok_or_else(|| Problem::not_found("the order did not exist at that time"))?;
        return Response::new(200, view);
    }
    let key = order_id.to_string();
    let (fulfilment, _) = streams(order_id);
    let range = ReadRange {
        consistency: Consistency::Eventual,
        ..ReadRange::all()
    };
    let (row, steps) = try_join(rows.row(&key), store.read(&fulfilment, &range)).await?;
    if let Some(row) = row
        && let Some(view) = shown(render(&row, &steps))?
        && view.version >= version
        && !view.is_torn()
    {
        return if is_theirs(&view) {
            Response::new(200, view)
        } else {
            Err(Problem::not_found(unknown))
        };
    }
    // The row is missing, outdated or not of the moment of the steps: read all streams instead.
    let view = from_events(&store, order_id, None)
        .await?
        .filter(is_theirs)
        .ok_or_else(|| Problem::not_found(unknown))?;
    if view.version < version {
        return Err(Problem::not_found(format!(
            "the order is at version {}: there is no version {version} yet",
            view.version
        )));
    }
    Response::new(200, view)
}

/// Folds the order's streams, up to a time if there is one. A view shows more than snapshots hold,
/// so it starts at the first event.
async fn from_events(
    store: &impl EventStore,
    order_id: OrderId,
    by: Option<Timestamp>,
) -> Result<Option<OrderView>, Problem> {
    let (saga, others) = streams(order_id);
    let histories = store::read_together(store, &saga, &others, by).await?;
    shown(of_histories(&histories))
}

fn shown(view: Result<Option<OrderView>, BoxError>) -> Result<Option<OrderView>, Problem> {
    view.map_err(|error| Problem::internal(&error))
}
