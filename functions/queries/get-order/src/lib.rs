//! `GET /orders/{orderId}`: the current order, optionally at a minimum version, or the order at a
//! time.

use cairn::{Timestamp, read_model::Row, store};
use cairn_aws::{
    dynamodb::{DynamoStore, Generations, Rows},
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response},
    },
};
use orders::{
    read_models::orders::{OrderView, Orders, of_histories, render, streams},
    values::OrderId,
};

/// The largest integer that every JSON parser keeps exact.
const MAX_VERSION: u64 = (1 << 53) - 1;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let store = app.event_store()?;
    let rows = app.rows()?;
    api::function(app, move |request| {
        get(store.clone(), rows.clone(), request)
    })
}

async fn get(
    store: DynamoStore,
    generations: Generations<Rows<Orders>>,
    request: Request,
) -> Result<Response, Problem> {
    let at: Option<Timestamp> = request.query("at")?;
    let version = request.integer("minVersion", 0..=MAX_VERSION)?;
    let unknown = || Problem::not_found("order not found");
    let order_id: OrderId = request.path("orderId").parse().map_err(|_| unknown())?;
    let is_theirs = |view: &OrderView| request.caller.can_access(&view.customer_id);
    if let Some(at) = at {
        let view = from_events(&store, order_id, Some(at)).await?;
        let view = view
            .filter(is_theirs)
            .ok_or_else(|| Problem::not_found("the order did not exist at that time"))?;
        return Response::new(200, view);
    }
    let version = version.unwrap_or(1);
    let key = order_id.to_string();
    let row = generations.shown(|rows| {
        let key = key.clone();
        async move { rows.get(&key).await }
    });
    if let Some(view) = shown(row.await?.as_ref())?
        && view.version >= version
        && !view.is_torn()
    {
        return if is_theirs(&view) {
            Response::new(200, view)
        } else {
            Err(unknown())
        };
    }
    // The row is missing, outdated or torn: read the streams instead.
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

/// Folds the order's streams, up to a time if there is one. A view shows more than snapshots hold,
/// so it starts at the first event.
async fn from_events(
    store: &DynamoStore,
    order_id: OrderId,
    by: Option<Timestamp>,
) -> Result<Option<OrderView>, Problem> {
    let (saga, others) = streams(order_id);
    let histories = store::read_together(store, &saga, &others, by).await?;
    let row = of_histories(&histories).map_err(|error| Problem::internal(&error))?;
    shown(row.as_ref())
}

fn shown(row: Option<&Row>) -> Result<Option<OrderView>, Problem> {
    let view = row.map(render).transpose();
    Ok(view.map_err(|error| Problem::internal(&error))?.flatten())
}
