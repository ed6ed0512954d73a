//! `POST /orders`: places an order.

use std::sync::Arc;

use cairn::{
    dynamodb::{Keyring, Repository},
    lambda::{
        ConfigError, Environment, Function,
        api::{self, Problem, Request, Response, problem},
    },
    seal::Key,
};
use orders::{
    order::{Command, Order, PlaceOrder, Placed},
    personal,
    requests::{self, OrderRequest},
    values::OrderId,
};
use serde_json::json;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let parts = Arc::new(Parts {
        orders: environment.repository()?,
        customers: environment.keyring("CUSTOMER_KEYS_TABLE", "PERSONAL_DATA_KEY")?,
    });
    api::function(environment, move |request| {
        let parts = parts.clone();
        async move { place(&parts, request).await }
    })
}

struct Parts {
    orders: Repository<Order>,
    customers: Keyring,
}

async fn place(parts: &Parts, request: Request) -> Result<Response, Problem> {
    let asked = requests::place_order(&request.json()?).map_err(Problem::invalid)?;
    if !request.caller.may_deal_with(asked.customer_id.as_str()) {
        return Err(Problem::forbidden("the token is not this customer's"));
    }
    requests::chargeable(asked.lines.total()).map_err(Problem::invalid)?;
    // A key names the order, so its retry meets the order that it has placed.
    let order_id = match &request.key {
        Some(key) => OrderId::from_key(key),
        None => OrderId::new(request.new_id),
    };
    let context = request.context_without("place-order", &["shipTo", "email"])?;
    let context = context.formerly(&asked.impersonal());
    let key = parts.customers.key_for(asked.customer_id.as_str()).await?;
    let order = sealed(asked, order_id, &key).map_err(|error| Problem::internal(&error))?;
    let command = Command::Place(Box::new(order.clone()));
    let placed = parts
        .orders
        .create(&order_id.order_stream(), &command, &context)
        .await
        // A key's order has that key's commit, and a new id has no order: nothing is refused.
        .map_err(|error| problem(error, |rejection, _| Problem::internal(&rejection)))?;
    if let Some(stored) = placed.current.state.placed()
        && contradicts(stored, &order)
    {
        return Err(Problem::key_reused());
    }
    let body = json!({
        "orderId": order_id,
        "status": placed.current.state.status(),
        "version": placed.current.version,
        "total": order.lines.total(),
    });
    Ok(Response::new(201, body)?
        .at(format!("/orders/{order_id}"))?
        .replayed(placed.replayed))
}

fn sealed(
    asked: OrderRequest,
    order_id: OrderId,
    key: &Key,
) -> Result<PlaceOrder, serde_json::Error> {
    let stream = order_id.order_stream();
    let place = personal::ship_to(&asked.customer_id, &stream);
    let ship_to = key.seal(&place, &asked.ship_to)?;
    let place = personal::email(&asked.customer_id, &stream);
    let email = asked.email.as_ref().map(|email| key.seal(&place, email));
    let email = email.transpose()?;
    Ok(asked.sealed(ship_to, email))
}

/// Returns whether a stored order is known to have other personal data than the one that is asked
/// for: an `Idempotency-Key` that came with another body. After the customer's key is erased, the two
/// cannot be compared; then the digest of the rest of the body decides alone.
fn contradicts(stored: &Placed, asked: &PlaceOrder) -> bool {
    let emails = stored.email.as_ref().zip(asked.email.as_ref());
    stored.ship_to.contradicts(&asked.ship_to)
        || stored.email.is_some() != asked.email.is_some()
        || emails.is_some_and(|(stored, asked)| stored.contradicts(asked))
}
