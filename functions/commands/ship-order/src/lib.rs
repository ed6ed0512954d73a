//! `POST /orders/{orderId}/ship`: hands a confirmed order to the carrier.

use std::sync::Arc;

use cairn::Context;
use cairn_aws::{
    dynamodb::{Answers, Repository},
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response, problem},
    },
};
use orders::{
    order::{Command, Order, Rejection},
    requests,
    values::OrderId,
};
use serde_json::json;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let parts = Arc::new(Parts {
        orders: app.repository()?,
        answers: app.answers("ANSWERS_TABLE")?,
    });
    api::function(app, move |request| {
        let parts = parts.clone();
        async move { ship(&parts, request).await }
    })
}

struct Parts {
    orders: Repository<Order>,
    answers: Answers,
}

async fn ship(parts: &Parts, request: Request) -> Result<Response, Problem> {
    request.caller.require_operator()?;
    let body = requests::ship_order(&request.json()?).map_err(Problem::invalid)?;
    let order_id: OrderId = request
        .path("orderId")
        .parse()
        .map_err(|_| Problem::not_found(Rejection::NotPlaced.to_string()))?;
    let context = request.context("ship-order")?.formerly(&body);
    let shipped = Box::pin(decided(&parts.orders, order_id, &context));
    request.once(&parts.answers, &context, shipped).await
}

async fn decided(
    orders: &Repository<Order>,
    order_id: OrderId,
    context: &Context,
) -> Result<Response, Problem> {
    let shipped = orders
        .handle(&order_id.order_stream(), &Command::Ship, context)
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
