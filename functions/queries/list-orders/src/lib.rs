//! `GET /customers/{customerId}/orders`: a customer's orders, newest first, page by page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn::{
    Timestamp,
    dynamodb::{Generations, Index, Rows},
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response},
    },
    read_model::Row,
};
use orders::{
    read_models::orders::{Orders, render},
    values::{CustomerId, OrderId},
};
use serde_json::{Value, json};

const BY_CUSTOMER: Index = Index {
    name: "byCustomer",
    key: "customerId",
};
const MOST: u32 = 100;
const USUAL: u32 = 20;

/// The function. It needs `ORDERS_TABLE` and `READ_MODELS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let rows = environment.rows("ORDERS_TABLE")?;
    api::function(environment, move |request| list(rows.clone(), request))
}

async fn list(
    generations: Generations<Rows<Orders>>,
    request: Request,
) -> Result<Response, Problem> {
    let customer_id: CustomerId = request
        .path("customerId")
        .parse()
        .map_err(|error| Problem::not_found(format!("the customer id {error}")))?;
    if !request.caller.may_deal_with(customer_id.as_str()) {
        return Err(Problem::not_found("there is no such customer"));
    }
    let limit = request.query("limit")?.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "the parameter limit must be from 1 to {MOST}"
        )));
    }
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
    let mut orders = vec![];
    for row in &found.rows {
        orders.extend(render(row).map_err(|error| Problem::internal(&error))?);
    }
    let mut body = json!({ "orders": orders });
    if let (Some(next), Value::Object(body)) = (found.next, &mut body) {
        body.insert("cursor".to_owned(), cursor_after(next).into());
    }
    Response::new(200, body)
}

/// The attributes that say where a page of the index begins.
const POSITION: [&str; 3] = ["customerId", "orderId", "placedAt"];

fn cursor_after(position: Row) -> String {
    URL_SAFE_NO_PAD.encode(Value::Object(position).to_string())
}

/// The position that a cursor stands for. It must be one of this customer's.
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
            Problem::bad_request("the cursor is none that an earlier page of this list has given")
        })
}
