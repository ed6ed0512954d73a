//! Customers and a warehouse, which use the system over HTTP.

use std::time::Duration;

use cairn_local::Platform;
use cairn_simulator::api::{Api, Command};
use orders::prices::Prices;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::shop::Shop;

/// The SKUs. Every other order is for the first; the last is scarce.
pub const SKUS: [&str; 5] = ["TEA-01", "POT-07", "CUP-07", "TIN-11", "RARE-99"];

const FIRST_PRICE: usize = 650;

impl Shop {
    /// Receives the initial stock.
    pub async fn stock_up(&self, api: &Api, orders: u32) {
        for sku in SKUS {
            self.set_price(api, sku, FIRST_PRICE).await;
            let quantity = if sku == "RARE-99" {
                orders / 20 + 1
            } else {
                orders * 3
            };
            self.receive(api, sku, quantity).await;
        }
    }

    /// Receives stock and changes prices, spread over `within`.
    pub async fn restock(&self, api: &Api, times: u32, within: Duration) {
        for _ in 0..times {
            sleep(self.platform.up_to(within / times.max(1) * 2)).await;
            let sku = SKUS.get(self.below(4)).copied().unwrap_or("TEA-01");
            self.receive(api, sku, 3).await;
            if self.prices == Prices::Catalogue {
                self.set_price(api, sku, 100 + self.below(900)).await;
            }
        }
    }

    async fn set_price(&self, api: &Api, sku: &str, amount: usize) {
        let path = format!("/products/{sku}");
        let body = json!({ "price": { "amount": amount, "currency": "EUR" } });
        // An unchanged price makes no commit.
        let set = Command::put("set-price", &path, body).about(sku);
        let set = api.ask(set.may_change_nothing()).await;
        let version = set.and_then(|product| product.get("version")?.as_u64());
        if let Some(version) = version {
            api.look(sku, path, version).await;
        }
    }

    pub async fn receive(&self, api: &Api, sku: &str, quantity: u32) {
        let path = format!("/stock/{sku}/receipts");
        let body = json!({ "quantity": quantity });
        let receive = Command::post("receive-stock", path, body).about(sku);
        let received = api.ask(receive).await;
        let version = received.and_then(|level| level.get("version")?.as_u64());
        if let Some(version) = version {
            let path = format!("/stock/{sku}?minVersion={version}");
            api.look(sku, path, version).await;
        }
    }

    /// Runs one customer, who places an order at a time within `window` and may cancel it or have
    /// it shipped.
    pub async fn customer(&self, api: &Api, number: u32, window: Duration) {
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
        let Some(id) = self.place_order(api, order).await else {
            return;
        };
        if self.below(5) == 0 {
            look_around(api, &id, &customer).await;
        }
        match self.below(10) {
            // Usually during the fulfilment.
            0 | 1 => {
                self.wait(Duration::ZERO, Duration::from_secs(2)).await;
                self.cancel(api, &id).await;
            }
            // Usually after the fulfilment.
            2 => {
                self.wait(Duration::ZERO, Duration::from_mins(4)).await;
                self.cancel(api, &id).await;
            }
            3 => {
                self.wait(Duration::from_secs(30), Duration::from_mins(4))
                    .await;
                self.ship(api, &id).await;
            }
            _ => {}
        }
    }

    /// Places an order for some units of one SKU, and returns its id if it is accepted.
    pub async fn place(
        &self,
        api: &Api,
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
        self.place_order(api, order(customer, token, country, &[line]))
            .await
    }

    async fn place_order(&self, api: &Api, body: Value) -> Option<String> {
        let place = Command::post("place-order", "/orders", body).creates("orderId");
        let placed = api.ask(place).await?;
        self.platform.count("orders");
        Some(placed.get("orderId")?.as_str()?.to_owned())
    }

    pub async fn ship(&self, api: &Api, id: &str) {
        let path = format!("/orders/{id}/ship");
        let ship = Command::post("ship-order", path, json!({})).about(id);
        api.ask(ship).await;
    }

    pub async fn cancel(&self, api: &Api, id: &str) {
        let body = json!({ "reason": "changed my mind" });
        let path = format!("/orders/{id}/cancel");
        let cancel = Command::post("cancel-order", path, body).about(id);
        // A repeated cancellation makes no commit, and its response has the current status.
        let cancel = cancel.may_change_nothing().has_current_response();
        api.ask(cancel).await;
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
}

/// Queries the new order, and everything else that the customer can see.
async fn look_around(api: &Api, id: &str, customer: &str) {
    for (path, least) in [
        (format!("/orders/{id}?minVersion=1"), 1),
        (format!("/orders/{id}/events"), 0),
        (format!("/customers/{customer}/orders"), 0),
        ("/sales?window=minute".to_owned(), 0),
    ] {
        api.look(id, path, least).await;
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
