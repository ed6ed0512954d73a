//! `POST /orders`: places an order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cairn::{
    Aggregate, Timestamp,
    commit::Context,
    personal_data::{Key, Sealed},
    read_model::LiveRows,
    repository::{HandleError, Handled, Repository},
    store::{ConditionalStore, EventStore, Quota, StoreError},
};
use cairn_aws::{
    dynamodb::SubjectKey,
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response, problem},
    },
};
use orders::{
    order::{Command, Order, Placed, Rejection},
    personal,
    prices::{self, ChangedPrice, Mispriced, Prices, UnpricedLine},
    read_models::products::ProductView,
    requests::{OrderRequest, RequestedLines},
    values::{Address, CustomerId, Email, Lines, OrderId},
};
use serde_json::json;

use crate::{catalogue::Catalogue, customer_keys::CustomerKeys};

mod catalogue;
mod customer_keys;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let quotas = app.variable("QUOTAS_TABLE")?;
    let catalogue = match source_of_prices(app)? {
        Prices::Caller => None,
        Prices::Catalogue => {
            let rows = app.rows::<ProductView>()?;
            Some(Catalogue::new(app.repository()?, rows))
        }
    };
    let parts = Arc::new(Parts {
        orders: Repository::new(app.event_store()?.with_quotas(quotas)),
        orders_per_minute: orders_per_minute(app)?,
        customers: app.keyring("CUSTOMER_KEYS_TABLE", "PERSONAL_DATA_KEY")?,
        catalogue,
    });
    api::function(app, orders::CLAIMS, move |request| {
        let parts = parts.clone();
        async move { place(&parts, request).await }
    })
}

/// Returns the source of prices.
fn source_of_prices(app: &AppContext) -> Result<Prices, ConfigError> {
    let text = app.variable("PRICES")?;
    let prices = text.parse();
    prices.map_err(|error| ConfigError::new("PRICES", format!("is `{text}`: it {error}")))
}

/// Returns the number of orders that a customer may place in a minute, if it is limited.
fn orders_per_minute(app: &AppContext) -> Result<Option<u32>, ConfigError> {
    let name = "CUSTOMER_ORDERS_PER_MINUTE";
    let text = app.variable(name)?;
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(limit) => Ok(Some(limit)),
        Err(_) => Err(ConfigError::new(
            name,
            format!("is `{text}`, not a number of orders"),
        )),
    }
}

struct Parts<S, K, R> {
    orders: Repository<Order, S>,
    orders_per_minute: Option<u32>,
    customers: K,
    catalogue: Option<Catalogue<S, R>>,
}

async fn place<S, K, R>(parts: &Parts<S, K, R>, request: Request) -> Result<Response, Problem>
where
    S: ConditionalStore + Clone,
    K: CustomerKeys,
    R: LiveRows,
{
    let prices = match parts.catalogue {
        Some(_) => Prices::Catalogue,
        None => Prices::Caller,
    };
    let asked = OrderRequest::parse(&request.json()?, prices).map_err(Problem::invalid)?;
    if !request.caller.can_access(asked.customer_id.as_str()) {
        return Err(Problem::forbidden(
            "The token belongs to another customer than `customerId`.",
        ));
    }
    // The key determines the order id, so a retry finds the order that the first request placed.
    let order_id = match &request.key {
        Some(key) => OrderId::from_key(key),
        None => OrderId::new(request.new_id),
    };
    let context = request.context_without("place-order", &["shipTo", "email"])?;
    let context = context.formerly(&asked.impersonal());
    let quota = parts.orders_per_minute.map(|limit| {
        let key = format!("orders/{}", asked.customer_id);
        Quota::new(&key, limit, Duration::from_mins(1), context.now)
    });
    let attempt = Attempt {
        orders: parts.orders.within(quota),
        customers: &parts.customers,
        order_id,
        context: &context,
        asked: &asked,
    };
    let placed = match (&asked.lines, &parts.catalogue) {
        (RequestedLines::Priced(lines), _) => {
            prices::chargeable(lines.total()).map_err(Problem::invalid)?;
            let personal = attempt.seal().await?;
            attempt.place(lines.clone(), &personal).await?
        }
        (RequestedLines::Unpriced(lines), Some(catalogue)) => {
            attempt.place_by(catalogue, lines.as_slice()).await?
        }
        (RequestedLines::Unpriced(_), None) => {
            return Err(Problem::internal(&"lines without prices, and no catalogue"));
        }
    };
    let state = &placed.current.state;
    let stored = state.placed();
    let body = json!({
        "orderId": order_id,
        "status": state.status(),
        "version": placed.current.version,
        "total": stored.map(|stored| stored.total),
    });
    Ok(Response::new(201, body)?
        .location(format!("/orders/{order_id}"))?
        .replayed(placed.replayed))
}

/// One request to place an order.
struct Attempt<'a, S, K> {
    /// The orders, within the quota of the customer.
    orders: Repository<Order, S>,
    customers: &'a K,
    order_id: OrderId,
    context: &'a Context,
    asked: &'a OrderRequest,
}

/// The encrypted personal data of an order.
struct Personal {
    ship_to: Sealed<Address>,
    email: Option<Sealed<Email>>,
}

impl<S: ConditionalStore + Clone, K: CustomerKeys> Attempt<'_, S, K> {
    async fn place(&self, lines: Lines, personal: &Personal) -> Result<Handled<Order>, Problem> {
        let (stream, command) = (Order::stream(&self.order_id), self.command(lines, personal));
        let placed = self.orders.create(&stream, &command, self.context).await;
        same(placed.map_err(|error| self.refused(error))?, personal)
    }

    /// The append proves that an accepted order has the current prices. A rejection for a cached
    /// price is decided again with current prices, and so is an order whose append found another
    /// price.
    async fn place_by(
        &self,
        catalogue: &Catalogue<impl EventStore + Clone, impl LiveRows>,
        asked: &[UnpricedLine],
    ) -> Result<Handled<Order>, Problem> {
        let stream = Order::stream(&self.order_id);
        let known = catalogue.known(asked).await?;
        let mut sealed = None;
        if let Ok(lines) = prices::priced(asked, &known.prices()) {
            let personal = self.seal().await?;
            let (command, versions) = (self.command(lines, &personal), known.versions());
            let orders = &self.orders;
            let placed = orders.create_if(&stream, &command, self.context, &versions);
            if let Some(placed) = placed.await.map_err(|error| self.refused(error))? {
                return same(placed, &personal);
            }
            sealed = Some(personal);
        }
        let current = catalogue.current(asked).await?;
        match prices::priced(asked, &current.prices()) {
            Ok(lines) => {
                let personal = match sealed {
                    Some(personal) => personal,
                    None => self.seal().await?,
                };
                self.place(lines, &personal).await
            }
            // An earlier request may have placed the order at the prices of that time.
            Err(mispriced) => match self.earlier().await? {
                Some(placed) => same(placed, &self.seal().await?),
                None => Err(wrong_prices(mispriced)),
            },
        }
    }

    async fn seal(&self) -> Result<Personal, Problem> {
        let OrderRequest {
            customer_id,
            ship_to,
            email,
            ..
        } = self.asked;
        let key = self.key(customer_id.as_str()).await?;
        sealed(&key, customer_id, self.order_id, ship_to, email.as_ref())
            .map_err(|error| Problem::internal(&error))
    }

    /// Returns the customer's key. A repeated request creates none for an erased customer, because
    /// its order exists.
    async fn key(&self, customer: &str) -> Result<Key, Problem> {
        let customers = self.customers;
        let key = match customers.find(customer).await? {
            SubjectKey::Stored(key) => return Ok(*key),
            SubjectKey::Erased if self.earlier().await?.is_some() => {
                customers.create_unstored(customer).await
            }
            SubjectKey::Erased | SubjectKey::Unknown => customers.create(customer).await,
        };
        Ok(key?)
    }

    /// Returns the order if an earlier request with the same key has placed it.
    async fn earlier(&self) -> Result<Option<Handled<Order>>, Problem> {
        let stream = Order::stream(&self.order_id);
        let earlier = self.orders.replay(&stream, self.context).await;
        earlier.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: HandleError<Rejection>) -> Problem {
        match error {
            HandleError::Store(StoreError::OverQuota { until, .. }) => {
                too_many(until, self.context.now)
            }
            // A key's order has that key's commit, and a new id has no order, so nothing is
            // rejected here.
            error => problem(error, |rejection, _| Problem::internal(&rejection)),
        }
    }

    fn command(&self, lines: Lines, personal: &Personal) -> Command {
        let (ship_to, email) = (personal.ship_to.clone(), personal.email.clone());
        Command::Place(Box::new(self.asked.clone().sealed(lines, ship_to, email)))
    }
}

fn sealed(
    key: &Key,
    customer: &CustomerId,
    order: OrderId,
    ship_to: &Address,
    email: Option<&Email>,
) -> Result<Personal, serde_json::Error> {
    let stream = Order::stream(&order);
    let email = email.map(|email| key.seal(&personal::email(customer, &stream), email));
    Ok(Personal {
        ship_to: key.seal(&personal::ship_to(customer, &stream), ship_to)?,
        email: email.transpose()?,
    })
}

fn too_many(until: Timestamp, now: Timestamp) -> Problem {
    let wait = u64::try_from(until.as_millis() - now.as_millis()).unwrap_or_default();
    Problem::new(429, "too-many-orders", "Too many orders")
        .detail("The customer has placed all orders of this minute. No order was stored. Retry after the time in `Retry-After`.")
        .retry_after(Duration::from_millis(wait))
}

fn wrong_prices(mispriced: Mispriced) -> Problem {
    let changed = match mispriced {
        Mispriced::Invalid(errors) => return Problem::invalid(errors),
        Mispriced::Changed(changed) => changed,
    };
    let first = changed.first().map(|changed| changed.price);
    let prices: BTreeMap<_, _> = changed
        .iter()
        .map(|changed| (&changed.sku, changed.price))
        .collect();
    let prices: Vec<_> = prices
        .into_iter()
        .map(|(sku, price)| json!({ "sku": sku, "price": price }))
        .collect();
    Problem::new(409, "price-changed", "The price has changed")
        .detail("Nothing was stored. Send the order again with the prices in `prices`.")
        .errors(changed.iter().map(ChangedPrice::field_error).collect())
        .with("price", json!(first))
        .with("prices", json!(prices))
}

/// Rejects an `Idempotency-Key` that was used with other personal data.
fn same(placed: Handled<Order>, personal: &Personal) -> Result<Handled<Order>, Problem> {
    match placed.current.state.placed() {
        Some(stored) if contradicts(stored, personal) => Err(Problem::key_reused()),
        Some(_) | None => Ok(placed),
    }
}

/// Returns whether the stored order contradicts the request's personal data, which means that the
/// `Idempotency-Key` came with another body. Without the customer's key the two cannot be compared;
/// then only the digest of the rest of the body counts.
fn contradicts(stored: &Placed, asked: &Personal) -> bool {
    let emails = stored.email.as_ref().zip(asked.email.as_ref());
    stored.ship_to.contradicts(&asked.ship_to)
        || stored.email.is_some() != asked.email.is_some()
        || emails.is_some_and(|(stored, asked)| stored.contradicts(asked))
}

#[cfg(test)]
mod tests;
