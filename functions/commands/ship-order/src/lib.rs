//! `POST /orders/{orderId}/ship`: hands a confirmed order to the carrier.

use cairn::{
    dynamodb::Repository,
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response, problem},
    },
};
use orders::{
    order::{Command, Order, Rejection},
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
    api::function(environment, move |request| ship(orders.clone(), request))
}

async fn ship(orders: Repository<Order>, request: Request) -> Result<Response, Problem> {
    request.caller.operates()?;
    // The body says nothing yet; its digest is still part of the request's identity.
    let body = requests::ship_order(&request.json()?).map_err(Problem::invalid)?;
    let order_id: OrderId = request
        .path("orderId")
        .parse()
        .map_err(|_| Problem::not_found(Rejection::NotPlaced.to_string()))?;
    let context = request.context("ship-order", &body)?;
    let shipped = orders
        .handle(&order_id.order_stream(), &Command::Ship, &context)
        .await
        .map_err(|error| {
            problem(error, |rejection, version| {
                refused(order_id, rejection, version)
            })
        })?;
    let body = json!({
        "orderId": order_id,
        "status": shipped.current.state.status(),
        "version": shipped.current.version,
    });
    Ok(Response::new(200, body)?.replayed(shipped.replayed))
}

fn refused(order_id: OrderId, rejection: Rejection, version: u64) -> Problem {
    match rejection.status() {
        None => Problem::not_found(rejection.to_string()),
        Some(status) => Problem::new(409, "cannot-be-shipped", "The order cannot be shipped")
            .detail(rejection.to_string())
            .with(
                "order",
                json!({ "orderId": order_id, "status": status, "version": version }),
            ),
    }
}
