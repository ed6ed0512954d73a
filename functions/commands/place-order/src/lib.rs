//! `POST /orders`: places an order.

use cairn::{
    dynamodb::Repository,
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response, problem},
    },
};
use orders::{
    order::{Command, Order},
    requests,
    values::OrderId,
};
use serde_json::json;

/// The function. It needs `EVENTS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let orders = environment.repository()?;
    api::function(environment, move |request| place(orders.clone(), request))
}

async fn place(orders: Repository<Order>, request: Request) -> Result<Response, Problem> {
    let order = requests::place_order(&request.json()?).map_err(Problem::invalid)?;
    if !request.caller.may_deal_with(order.customer_id.as_str()) {
        return Err(Problem::forbidden("the token is not this customer's"));
    }
    // A key names the order, so its retry meets the order that it has placed.
    let order_id = match &request.key {
        Some(key) => OrderId::from_key(key),
        None => OrderId::new(request.new_id),
    };
    let context = request.context("place-order", &order)?;
    let total = order.lines.total();
    let command = Command::Place(Box::new(order));
    let placed = orders
        .create(&order_id.order_stream(), &command, &context)
        .await
        .map_err(|error| {
            problem(error, |rejection, _| {
                Problem::new(409, "already-placed", "Already placed").detail(rejection.to_string())
            })
        })?;
    let body = json!({
        "orderId": order_id,
        "status": placed.current.state.status(),
        "version": placed.current.version,
        "total": total,
    });
    Ok(Response::new(201, body)?
        .at(format!("/orders/{order_id}"))?
        .replayed(placed.replayed))
}
