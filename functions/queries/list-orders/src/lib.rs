//! `GET /customers/{customerId}/orders`: a customer's orders, newest first, in pages.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn::{
    Timestamp,
    error::BoxError,
    read_model::{ReadModel, Row},
    store::{self, Consistency, EventStore, ReadRange, StoreError},
};
use cairn_aws::{
    dynamodb::{DynamoStore, Generations, Index, Rows},
    lambda::{
        AppContext, ConfigError, Handler,
        api::{Problem, Request, Response, query},
        metrics::Metrics,
    },
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use orders::{
    read_models::orders::{
        OrderView, Orders, of_histories, render, render_without_fulfilment, streams,
    },
    values::{CustomerId, OrderId},
};
use serde_json::{Value, json};

const BY_CUSTOMER: Index = Index {
    name: "byCustomer",
    key: "customerId",
};
const MOST: u64 = 100;
/// The number of fulfilments that are read at the same time.
const AT_ONCE: usize = 16;
const USUAL: u64 = 20;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let parts = (app.clone(), app.event_store()?, app.rows()?);
    query(app, orders::CLAIMS, parts, list)
}

async fn list(
    (app, store, generations): (AppContext, DynamoStore, Generations<Rows<Orders>>),
    request: Request,
) -> Result<Response, Problem> {
    let customer_id: CustomerId = request
        .path("customerId")
        .parse()
        .map_err(|error| Problem::not_found(format!("the customer id {error}")))?;
    if !request.caller.can_access(customer_id.as_str()) {
        return Err(Problem::not_found("customer not found"));
    }
    let limit = request.integer("limit", 1..=MOST)?.unwrap_or(USUAL);
    let limit = u32::try_from(limit).map_err(|error| Problem::internal(&error))?;
    let cursor: Option<String> = request.query("cursor")?;
    let from = cursor
        .map(|cursor| position(&cursor, &customer_id))
        .transpose()?;

    let found = generations.shown(|rows| {
        let (customer_id, from) = (customer_id.clone(), from.clone());
        async move {
            let customer = customer_id.as_str();
            rows.latest(&BY_CUSTOMER, customer, limit, from).await
        }
    });
    let found = found.await?;
    let rows = found.rows.iter();
    let views: Vec<_> = rows.map(|row| view(&app, &store, row)).collect();
    let views = stream::iter(views).buffered(AT_ONCE);
    let views: Vec<_> = views.try_collect().await?;
    let orders: Vec<_> = views.into_iter().flatten().collect();
    let mut body = json!({ "orders": orders });
    if let (Some(next), Value::Object(body)) = (found.next, &mut body) {
        body.insert("cursor".to_owned(), cursor_after(next).into());
    }
    Response::new(200, body)
}

/// Returns the order of a row, with the steps of its fulfilment, or without them if they cannot be
/// decoded.
async fn view(
    app: &AppContext,
    store: &DynamoStore,
    row: &Row,
) -> Result<Option<OrderView>, Problem> {
    let order_id = row.get(Orders::KEY).and_then(Value::as_str);
    let order_id: OrderId = order_id
        .unwrap_or_default()
        .parse()
        .map_err(|error| Problem::internal(&error))?;
    match whole(store, row, order_id).await {
        Err(StoreError::Corrupt { stream, reason }) => {
            tracing::error!(%stream, reason, "fulfilment unreadable");
            app.emit(Metrics::default().count("UnreadableFulfilments", 1));
            render_without_fulfilment(row).map_err(|error| Problem::internal(&error))
        }
        view => Ok(view?),
    }
}

/// Returns the order with its fulfilment. If they are of different moments, which is rare, all
/// streams are read.
async fn whole(
    store: &DynamoStore,
    row: &Row,
    order_id: OrderId,
) -> Result<Option<OrderView>, StoreError> {
    let (fulfilment, others) = streams(order_id);
    let corrupt = |error: BoxError| StoreError::Corrupt {
        stream: fulfilment.clone(),
        reason: error.to_string(),
    };
    let range = ReadRange {
        consistency: Consistency::Eventual,
        ..ReadRange::all()
    };
    let steps = store.read(&fulfilment, &range).await?;
    let view = render(row, &steps).map_err(corrupt)?;
    if !view.as_ref().is_some_and(OrderView::is_torn) {
        return Ok(view);
    }
    let histories = store::read_together(store, &fulfilment, &others, None).await?;
    of_histories(&histories).map_err(corrupt)
}

/// The attributes of a position in the index.
const POSITION: [&str; 3] = ["customerId", "orderId", "placedAt"];

fn cursor_after(position: Row) -> String {
    URL_SAFE_NO_PAD.encode(Value::Object(position).to_string())
}

/// Decodes a cursor, which must be one of this customer's.
fn position(cursor: &str, customer_id: &CustomerId) -> Result<Row, Problem> {
    let decoded = URL_SAFE_NO_PAD.decode(cursor).ok();
    let position: Option<Row> = decoded.and_then(|json| serde_json::from_slice(&json).ok());
    position
        .filter(|position| {
            let text = |name: &str| {
                position
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            position.len() == POSITION.len()
                && text(BY_CUSTOMER.key) == customer_id.as_str()
                && text("orderId").parse::<OrderId>().is_ok()
                && text("placedAt").parse::<Timestamp>().is_ok()
        })
        .ok_or_else(|| {
            Problem::bad_request("Invalid cursor. Use the `cursor` of the previous page.")
        })
}
