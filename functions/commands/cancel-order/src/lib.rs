//! `POST /orders/{orderId}/cancel`: cancels an order that is not shipped yet.

use std::sync::Arc;

use cairn::Context;
use cairn_aws::{
    dynamodb::{Answers, Repository},
    lambda::{
        AppContext, ConfigError, Handler,
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

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let parts = Arc::new(Parts {
        orders: app.repository()?,
        answers: app.answers("ANSWERS_TABLE")?,
    });
    api::function(app, move |request| {
        let parts = parts.clone();
        async move { cancel(&parts, request).await }
    })
}

struct Parts {
    orders: Repository<Order>,
    answers: Answers,
}

async fn cancel(parts: &Parts, request: Request) -> Result<Response, Problem> {
    let unknown = || Problem::not_found(Rejection::NotPlaced.to_string());
    let reason = requests::cancel_order(&request.json()?).map_err(Problem::invalid)?;
    let order_id: OrderId = request.path("orderId").parse().map_err(|_| unknown())?;
    if let Caller::User(id) = &request.caller {
        let order = parts.orders.load(&order_id.order_stream()).await?;
        let placed = order.state.placed().ok_or_else(unknown)?;
        if placed.customer_id.as_str() != id {
            return Err(unknown());
        }
    }
    // An earlier release stored the digest of this form for every caller.
    let digested = Command::Cancel {
        reason: reason.clone(),
        by: Canceller::Customer,
    };
    let context = request.context("cancel-order")?.formerly(&digested);
    let by = match &request.caller {
        Caller::User(_) => Canceller::Customer,
        Caller::Operator(_) => Canceller::Operator,
        Caller::Anonymous => Canceller::Unknown,
    };
    let command = Command::Cancel { reason, by };
    let cancelled = Box::pin(decided(&parts.orders, order_id, &command, &context));
    request.once(&parts.answers, &context, cancelled).await
}

async fn decided(
    orders: &Repository<Order>,
    order_id: OrderId,
    command: &Command,
    context: &Context,
) -> Result<Response, Problem> {
    let cancelled = orders
        .handle(&order_id.order_stream(), command, context)
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
    let response = Response::new(200, body)?.unchanged(!cancelled.is_recorded);
    Ok(response.replayed(cancelled.replayed))
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
