//! `GET /orders/{orderId}`: the current order, optionally at a minimum version, or the order at a
//! time.

use cairn::{
    Timestamp,
    read_model::LiveRows,
    read_model::Row,
    store::{self, EventStore},
};
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{Problem, Request, Response, query},
};
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
    let row = rows.row(&order_id.to_string()).await?;
    if let Some(view) = shown(row.as_ref())?
        && view.version >= version
        && !view.is_torn()
    {
        return if is_theirs(&view) {
            Response::new(200, view)
        } else {
            Err(Problem::not_found(unknown))
        };
    }
    // The row is missing, outdated or torn: read the streams instead.
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
    let row = of_histories(&histories).map_err(|error| Problem::internal(&error))?;
    shown(row.as_ref())
}

fn shown(row: Option<&Row>) -> Result<Option<OrderView>, Problem> {
    let view = row.map(render).transpose();
    Ok(view.map_err(|error| Problem::internal(&error))?.flatten())
}
