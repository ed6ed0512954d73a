//! Customers and a warehouse. They use the system over HTTP and retry with the same key until they
//! get a response.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use cairn_local::{Platform, client::Client, http::Gateway};
use http_body_util::BodyExt;
use orders::prices::Prices;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::platform::Simulated;

/// The SKUs. Every other order is for the first; the last is scarce.
pub const SKUS: [&str; 5] = ["TEA-01", "POT-07", "CUP-07", "TIN-11", "RARE-99"];

const FIRST_PRICE: usize = 650;

const TRIES: u32 = 60;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A command and all responses to it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The name of the command, for example `place-order`.
    pub operation: &'static str,
    pub key: String,
    /// The order's id or the SKU; empty for an order to place.
    pub about: String,
    pub body: Value,
    /// Every response in order: its status and its body.
    pub answers: Vec<(u16, Value)>,
}

impl Asked {
    /// Returns the response to a command that was accepted.
    pub fn accepted(&self) -> Option<&Value> {
        let accepted = self.answers.iter().find(|(status, _)| *status < 300);
        accepted.map(|(_, body)| body)
    }
}

/// A query and the response to it.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The order's id or the SKU.
    pub about: String,
    pub path: String,
    /// The version that the response must have at least, or 0.
    pub least: u64,
    /// The status and the body of the response.
    pub answer: (u16, Value),
}

/// The transport.
#[derive(Clone, Debug)]
enum Door {
    /// In process.
    Gateway(Arc<Gateway>),
    Http(Box<Client>),
}

/// The API as its clients see it.
#[derive(Clone, Debug)]
pub struct Shop {
    door: Door,
    prices: Prices,
    platform: Arc<Simulated>,
    asked: Arc<Mutex<Vec<Asked>>>,
    looked: Arc<Mutex<Vec<Looked>>>,
}

impl Shop {
    /// Returns a shop behind a gateway, with the source of its prices.
    pub fn new(gateway: Gateway, prices: Prices, platform: Arc<Simulated>) -> Self {
        Self {
            door: Door::Gateway(Arc::new(gateway)),
            prices,
            platform,
            asked: Arc::default(),
            looked: Arc::default(),
        }
    }

    /// Returns the same shop over HTTP.
    #[must_use]
    pub fn over(&self, client: Client) -> Self {
        Self {
            door: Door::Http(Box::new(client)),
            ..self.clone()
        }
    }

    /// Returns the commands of all clients.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the queries of all clients.
    pub fn looked(&self) -> Vec<Looked> {
        self.looked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Receives the initial stock.
    pub async fn stock_up(&self, orders: u32) {
        for sku in SKUS {
            self.set_price(sku, FIRST_PRICE).await;
            let quantity = if sku == "RARE-99" {
                orders / 20 + 1
            } else {
                orders * 3
            };
            self.receive(sku, quantity).await;
        }
    }

    /// Receives stock and changes prices, spread over `within`.
    pub async fn restock(&self, times: u32, within: Duration) {
        for _ in 0..times {
            sleep(self.platform.up_to(within / times.max(1) * 2)).await;
            let sku = SKUS.get(self.below(4)).copied().unwrap_or("TEA-01");
            self.receive(sku, 3).await;
            if self.prices == Prices::Catalogue {
                self.set_price(sku, 100 + self.below(900)).await;
            }
        }
    }

    async fn set_price(&self, sku: &str, amount: usize) {
        let path = format!("/products/{sku}");
        let body = json!({ "price": { "amount": amount, "currency": "EUR" } });
        let set = self.ask("set-price", &path, sku, body).await;
        let version = set.and_then(|product| product.get("version")?.as_u64());
        if let Some(version) = version {
            self.look(sku, path, version).await;
        }
    }

    pub async fn receive(&self, sku: &str, quantity: u32) {
        let path = format!("/stock/{sku}/receipts");
        let body = json!({ "quantity": quantity });
        let received = self.ask("receive-stock", &path, sku, body).await;
        let version = received.and_then(|level| level.get("version")?.as_u64());
        if let Some(version) = version {
            self.look(sku, format!("/stock/{sku}?minVersion={version}"), version)
                .await;
        }
    }

    /// Runs one customer, who places an order at a time within `window` and may cancel it or have
    /// it shipped.
    pub async fn customer(&self, number: u32, window: Duration) {
        // Every fifth customer arrives at the same time.
        let comes = if number.is_multiple_of(5) {
            window / 3
        } else {
            self.platform.up_to(window)
        };
        sleep(comes).await;
        let order = self.order(number);
        let customer = order.get("customerId").and_then(Value::as_str);
        let customer = customer.unwrap_or_default().to_owned();
        let Some(id) = self.place_order(order).await else {
            return;
        };
        if self.below(5) == 0 {
            self.look_around(&id, &customer).await;
        }
        match self.below(10) {
            // Usually during the fulfilment.
            0 | 1 => {
                self.wait(Duration::ZERO, Duration::from_secs(2)).await;
                self.cancel(&id).await;
            }
            // Usually after the fulfilment.
            2 => {
                self.wait(Duration::ZERO, Duration::from_mins(4)).await;
                self.cancel(&id).await;
            }
            3 => {
                self.wait(Duration::from_secs(30), Duration::from_mins(4))
                    .await;
                self.ship(&id).await;
            }
            _ => {}
        }
    }

    /// Places an order for some units of one SKU, and returns its id if it is accepted.
    pub async fn place(
        &self,
        customer: &str,
        token: &str,
        country: &str,
        sku: &str,
        quantity: u32,
    ) -> Option<String> {
        let line = json!({
            "sku": sku,
            "quantity": quantity,
            "unitPrice": { "amount": 1250, "currency": "EUR" },
        });
        self.place_order(order(customer, token, country, &[line]))
            .await
    }

    /// Queries the new order, and everything else that the customer can see.
    async fn look_around(&self, id: &str, customer: &str) {
        for (path, least) in [
            (format!("/orders/{id}?minVersion=1"), 1),
            (format!("/orders/{id}/events"), 0),
            (format!("/customers/{customer}/orders"), 0),
            ("/sales?window=minute".to_owned(), 0),
        ] {
            self.look(id, path, least).await;
        }
    }

    /// Queries a path. The response must have a version of at least `least`.
    pub async fn look(&self, about: &str, path: String, least: u64) {
        let answer = self.send(Method::GET, &path, "", &Value::Null).await;
        let looked = answer.map(|answer| Looked {
            about: about.to_owned(),
            path,
            least,
            answer,
        });
        let mut all = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(looked);
    }

    async fn place_order(&self, body: Value) -> Option<String> {
        let placed = self.ask("place-order", "/orders", "", body).await?;
        self.platform.count("orders");
        Some(placed.get("orderId")?.as_str()?.to_owned())
    }

    pub async fn ship(&self, id: &str) {
        let path = format!("/orders/{id}/ship");
        self.ask("ship-order", &path, id, json!({})).await;
    }

    pub async fn cancel(&self, id: &str) {
        let body = json!({ "reason": "changed my mind" });
        self.ask("cancel-order", &format!("/orders/{id}/cancel"), id, body)
            .await;
    }

    fn order(&self, number: u32) -> Value {
        let token = match self.below(20) {
            0 | 1 => "tok_declined",
            2 | 3 => "tok_flaky",
            4 => "tok_down",
            _ => "tok_visa",
        };
        let customer = match self.below(25) {
            0 => format!("fraud-{number}"),
            _ => format!("c-{}", number % 40),
        };
        let country = if self.below(25) == 0 { "XX" } else { "DE" };
        let line = || {
            let index = if self.below(2) == 0 {
                0
            } else {
                self.below(SKUS.len())
            };
            let mut line = json!({ "sku": SKUS.get(index), "quantity": 1 + self.below(3) });
            let expected = match self.prices {
                Prices::Caller => Some(100 + self.below(900)),
                Prices::Catalogue => (self.below(3) == 0).then_some(FIRST_PRICE),
            };
            if let (Some(amount), Some(line)) = (expected, line.as_object_mut()) {
                let price = json!({ "amount": amount, "currency": "EUR" });
                line.insert("unitPrice".to_owned(), price);
            }
            line
        };
        let lines: Vec<_> = (0..=self.below(3)).map(|_| line()).collect();
        order(&customer, token, country, &lines)
    }

    async fn wait(&self, least: Duration, more: Duration) {
        sleep(self.platform.pace(least + self.platform.up_to(more))).await;
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.platform.below(bound as u64)).unwrap_or(0)
    }

    /// Sends a command until it has a response. Some requests are sent twice concurrently.
    async fn ask(
        &self,
        operation: &'static str,
        path: &str,
        about: &str,
        body: Value,
    ) -> Option<Value> {
        let key = self.platform.new_id().to_string();
        let mut asked = Asked {
            operation,
            key,
            about: about.to_owned(),
            body,
            answers: vec![],
        };
        let mut pause = Duration::from_millis(500);
        for _ in 0..TRIES {
            let at_once = if self.below(10) == 0 { 2 } else { 1 };
            let method = match operation {
                "set-price" => Method::PUT,
                _ => Method::POST,
            };
            let ask = |_| self.send(method.clone(), path, &asked.key, &asked.body);
            let asks = (0..at_once).map(ask);
            let answers = futures_util::future::join_all(asks).await;
            asked.answers.extend(answers.into_iter().flatten());
            if asked.answers.iter().any(|(status, _)| *status < 500) {
                break;
            }
            self.platform.count("requests retried");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let accepted = asked.accepted().cloned();
        let statuses: Vec<_> = asked.answers.iter().map(|(status, _)| *status).collect();
        let order = accepted.as_ref().and_then(|body| body.get("orderId"));
        let about = order.and_then(Value::as_str).unwrap_or(about);
        self.platform
            .say(operation, format_args!("{about} {statuses:?}"));
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(asked);
        accepted
    }

    /// Sends one request. Returns `None` if its response is lost.
    async fn send(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let answer = match &self.door {
            Door::Gateway(gateway) => {
                let request = Request::builder().method(&method).uri(path);
                let request = if method == Method::GET {
                    request.body(Body::empty())
                } else {
                    request
                        .header(header::CONTENT_TYPE, "application/json")
                        .header("idempotency-key", key)
                        .body(Body::from(body.to_string()))
                };
                let request = request.ok()?;
                let response = gateway.answer(request).await;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.ok()?.to_bytes();
                (status, serde_json::from_slice(&body).unwrap_or_default())
            }
            Door::Http(client) => {
                let answer = if method == Method::GET {
                    client.get(path).await
                } else {
                    let headers = [("idempotency-key", key)];
                    match method {
                        Method::PUT => client.put(path, &headers, body).await,
                        _ => client.post(path, &headers, body).await,
                    }
                };
                let answer = answer.ok()?;
                (answer.status.as_u16(), answer.body)
            }
        };
        if self.platform.happens(|faults| faults.answer_lost) {
            self.platform.count("answers lost");
            return None;
        }
        Some(answer)
    }
}

/// The recipient's name in every address.
pub const NAME: &str = "A. Lovelace";

fn order(customer: &str, token: &str, country: &str, lines: &[Value]) -> Value {
    json!({
        "customerId": customer,
        "lines": lines,
        "payment": { "token": token },
        "shipTo": {
            "name": NAME, "line1": "1 Main St", "city": "Berlin",
            "postalCode": "10115", "country": country,
        },
    })
}
