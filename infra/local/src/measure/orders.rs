//! Places the orders of a workload, and waits until they are confirmed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cairn_local::{System, aws::Seen, client::Client};
use futures_util::{TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        oneshot,
    },
    time::{sleep, timeout},
};

use super::{Failure, Workload, progress};

/// The most lines of an order.
pub(super) const MOST_LINES: u32 = 50;
/// The price of each product in cents.
const PRICE: u32 = 1250;
/// The pause before an order is read again whose last event is on the bus.
const PAUSE: Duration = Duration::from_millis(2);
/// The longest wait for the last event of an order before the order is read.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Clients of the HTTP API, who place the orders of a workload.
pub(super) struct Shop {
    client: Client,
    workload: Workload,
    ends: Arc<Ends>,
    next: AtomicU32,
}

impl Shop {
    /// Gives each product stock and a price, and sells it once: the size of some rows depends on
    /// the products in them. Returns when the read models show it.
    pub(super) async fn open(system: &System, workload: Workload) -> Result<Self, Failure> {
        let ends = Arc::<Ends>::default();
        tokio::spawn(ends.clone().follow(system.watch()));
        let shop = Self {
            client: Client::new(system.http),
            workload,
            ends,
            next: AtomicU32::new(0),
        };
        let skus = workload.skus();
        let stock = |sku| shop.stock(sku);
        concurrently(workload.clients, skus, "products", stock).await?;
        system.settled().await;
        let sell = |first| shop.confirmed((first * MOST_LINES..skus).take(MOST_LINES as usize));
        let orders = skus.div_ceil(MOST_LINES);
        concurrently(workload.clients, orders, "first orders", sell).await?;
        system.settled().await;
        Ok(shop)
    }

    /// Places the next order, and returns when it is confirmed.
    pub(super) async fn order(&self) -> Result<(), Failure> {
        let (lines, skus) = (self.workload.lines, self.workload.skus());
        let first = self.next.fetch_add(1, Ordering::Relaxed) * lines;
        self.confirmed((first..first + lines).map(|sku| sku % skus))
            .await
    }

    async fn stock(&self, sku: u32) -> Result<(), Failure> {
        let path = format!("/stock/SKU-{sku}/receipts");
        let body = json!({ "quantity": 1_000_000 });
        let received = self.client.post(&path, &[], &body).await?;
        let path = format!("/products/SKU-{sku}");
        let body = json!({ "price": { "amount": PRICE, "currency": "EUR" } });
        let priced = self.client.put(&path, &[], &body).await?;
        match [received, priced]
            .iter()
            .find(|answer| !answer.status.is_success())
        {
            Some(refused) => Err(format!("a product was refused: {}", refused.text).into()),
            None => Ok(()),
        }
    }

    /// Places an order, and waits until a `GET` shows that it is confirmed. The order is not read
    /// before the bus has its last event, so that reading takes no time from the system.
    async fn confirmed(&self, skus: impl Iterator<Item = u32>) -> Result<(), Failure> {
        let line = |sku| {
            json!({
                "sku": format!("SKU-{sku}"),
                "quantity": 1,
                "unitPrice": { "amount": PRICE, "currency": "EUR" },
            })
        };
        let mut body = json!({
            "customerId": "c-measure",
            "lines": skus.map(line).collect::<Vec<_>>(),
            "payment": { "token": "tok_visa" },
            "shipTo": {
                "name": "A. Lovelace", "line1": "1 Main St", "city": "Berlin",
                "postalCode": "10115", "country": "DE",
            },
        });
        if let (Some(body), true) = (body.as_object_mut(), self.workload.email) {
            body.insert("email".to_owned(), "ada@example.com".into());
        }
        let placed = self.client.post("/orders", &[], &body).await?;
        let id = placed.body.get("orderId").and_then(Value::as_str);
        let id = id.ok_or_else(|| format!("an order was refused: {}", placed.text))?;
        // Without the event, the order shows why.
        let _ = timeout(LONGEST_WAIT, self.ends.of(id)).await;
        let path = format!("/orders/{id}");
        loop {
            let order = self.client.get(&path).await?.body;
            match order.get("status").and_then(Value::as_str) {
                Some("placed") => sleep(PAUSE).await,
                Some("confirmed") => return Ok(()),
                status => return Err(format!("an order ended as {status:?}").into()),
            }
        }
    }
}

/// Calls `work` with each number below `count`, concurrently for as many numbers as there are
/// clients.
pub(super) async fn concurrently<F: Future<Output = Result<(), Failure>>>(
    clients: u32,
    count: u32,
    what: &'static str,
    work: impl Fn(u32) -> F,
) -> Result<(), Failure> {
    let bar = progress(what, u64::from(count))?;
    stream::iter((0..count).map(Ok::<_, Failure>))
        .try_for_each_concurrent(clients as usize, async |n| {
            work(n).await?;
            bar.inc(1);
            Ok(())
        })
        .await?;
    bar.finish_and_clear();
    Ok(())
}

/// The clients that wait for the last event of an order, by order.
#[derive(Default)]
struct Ends(Mutex<HashMap<String, oneshot::Sender<()>>>);

impl Ends {
    /// Wakes the clients, until the system stops.
    async fn follow(self: Arc<Self>, mut events: Receiver<Seen>) {
        #[derive(Deserialize)]
        struct Detail {
            id: String,
        }
        loop {
            match events.recv().await {
                Ok(event)
                    if ["OrderConfirmed", "OrderCancelled"].contains(&event.kind.as_str()) =>
                {
                    let detail = serde_json::from_str::<Detail>(&event.detail);
                    let id = detail.map(|detail| detail.id).unwrap_or_default();
                    let order = id.trim_start_matches("order-").split('@').next();
                    let waiting = self.waiting().remove(order.unwrap_or_default());
                    drop(waiting);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.waiting().clear(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Waits for the last event of an order. It may be missed before the first poll.
    async fn of(&self, order: &str) {
        let (sender, end) = oneshot::channel();
        self.waiting().insert(order.to_owned(), sender);
        // The sender never sends: its drop marks the end.
        let _ = end.await;
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
