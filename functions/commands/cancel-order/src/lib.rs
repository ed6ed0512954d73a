//! `POST /orders/{orderId}/cancel`: cancels an order that is not shipped yet.

use cairn::{
    dynamodb::Repository,
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response, problem},
        caller::Caller,
    },
};
use orders::{
    order::{Canceller, Command, Order, Rejection},
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
    api::function(environment, move |request| cancel(orders.clone(), request))
}

async fn cancel(orders: Repository<Order>, request: Request) -> Result<Response, Problem> {
    let unknown = || Problem::not_found(Rejection::NotPlaced.to_string());
    let reason = requests::cancel_order(&request.json()?).map_err(Problem::invalid)?;
    let order_id: OrderId = request.path("orderId").parse().map_err(|_| unknown())?;
    if let Caller::User(id) = &request.caller {
        let order = orders.load(&order_id.order_stream()).await?;
        let placed = order.state.placed().ok_or_else(unknown)?;
        if placed.customer_id.as_str() != id {
            return Err(unknown());
        }
    }
    // A request is the same whoever sends it: its digest must not say who.
    let asked = Command::Cancel {
        reason: reason.clone(),
        by: Canceller::Customer,
    };
    let context = request.context("cancel-order", &asked)?;
    let by = match &request.caller {
        Caller::User(_) => Canceller::Customer,
        Caller::Operator(_) => Canceller::Operator,
        Caller::Anybody => Canceller::Somebody,
    };
    let command = Command::Cancel { reason, by };
    let cancelled = orders
        .handle(&order_id.order_stream(), &command, &context)
        .await
        .map_err(|error| {
            problem(error, |rejection, version| {
                refused(order_id, rejection, version)
            })
        })?;
    let body = json!({
        "orderId": order_id,
        "status": cancelled.current.state.status(),
        "version": cancelled.current.version,
    });
    Ok(Response::new(200, body)?.replayed(cancelled.replayed))
}

fn refused(order_id: OrderId, rejection: Rejection, version: u64) -> Problem {
    match rejection.status() {
        None => Problem::not_found(rejection.to_string()),
        Some(status) => Problem::new(409, "cannot-be-cancelled", "The order cannot be cancelled")
            .detail(rejection.to_string())
            .with(
                "order",
                json!({ "orderId": order_id, "status": status, "version": version }),
            ),
    }
}
