//! The function on a store in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use cairn::{read_model::Row, store::memory::MemoryStore};
use cairn_aws::{dynamodb::KeyError, lambda::caller::Caller};
use orders::{product, product::Product, requests::SetPrice};
use serde_json::Value;

use super::*;

static NOW: AtomicI64 = AtomicI64::new(0);

/// Customers with the same key, of whom some have one already.
#[derive(Default)]
struct Keys(Mutex<BTreeSet<String>>);

fn the_key() -> Key {
    Key::new(&[7; 32])
}

impl CustomerKeys for Keys {
    async fn find(&self, customer: &str) -> Result<SubjectKey, KeyError> {
        Ok(if self.0.lock().unwrap().contains(customer) {
            SubjectKey::Stored(Box::new(the_key()))
        } else {
            SubjectKey::Unknown
        })
    }

    async fn create(&self, customer: &str) -> Result<Key, KeyError> {
        self.0.lock().unwrap().insert(customer.to_owned());
        Ok(the_key())
    }

    async fn create_unstored(&self, _: &str) -> Result<Key, KeyError> {
        Ok(the_key())
    }
}

type Shop = Parts<Arc<MemoryStore>, Keys, BTreeMap<String, Row>>;

fn shop(prices: Prices, orders_per_minute: Option<u32>) -> Shop {
    let store = Arc::new(MemoryStore::default());
    let catalogue = match prices {
        Prices::Caller => None,
        Prices::Catalogue => Some(Catalogue::new(
            Repository::new(store.clone()),
            BTreeMap::new(),
        )),
    };
    Parts {
        orders: Repository::new(store),
        orders_per_minute,
        customers: Keys::default(),
        catalogue,
    }
}

fn order() -> Value {
    json!({
        "customerId": "c-42",
        "lines": [{ "sku": "TEA-01", "quantity": 2, "unitPrice": { "amount": 1250, "currency": "EUR" } }],
        "payment": { "token": "tok_visa" },
        "shipTo": { "name": "A", "line1": "1", "city": "B", "postalCode": "1", "country": "DE" },
    })
}

/// Returns the status of the answer, true if it is replayed, and the body.
async fn post(shop: &Shop, caller: Caller, key: &str, body: &Value) -> (u16, bool, Value) {
    let mut request = Request::for_test(&[], body);
    (request.caller, request.key) = (caller, Some(key.to_owned()));
    // An append of the same commit at the same time is a lost answer, and no other request.
    request.now = Timestamp::from_millis(NOW.fetch_add(1, Ordering::Relaxed));
    let answer = place(shop, request).await;
    let (status, headers, body) = answer.unwrap_or_else(Problem::into_response).into_parts();
    let replayed = headers.contains_key("idempotent-replayed");
    (status, replayed, serde_json::from_str(&body).unwrap())
}

async fn set_price(shop: &Shop, amount: u64) {
    let price = json!({ "price": { "amount": amount, "currency": "EUR" } });
    let body: SetPrice = cairn::input::parse(&price).unwrap();
    let products = Repository::<Product, _>::new(shop.orders.store().clone());
    let context = Context::new(
        amount.to_string(),
        Timestamp::from_millis(0),
        Duration::ZERO,
    );
    let (sku, command) = (
        "TEA-01".parse().unwrap(),
        product::Command::SetPrice(body.price),
    );
    let stream = Product::stream(&sku);
    products.handle(&stream, &command, &context).await.unwrap();
}

#[tokio::test]
async fn an_order_is_placed_once_for_each_key() {
    let shop = shop(Prices::Caller, None);
    let placed = post(&shop, Caller::Anonymous, "key", &order()).await;
    let id = OrderId::from_key("key");
    let total = json!({ "amount": 2500, "currency": "EUR" });
    let body = json!({ "orderId": id, "status": "placed", "version": 1, "total": total });
    assert_eq!(placed, (201, false, body.clone()));
    let again = post(&shop, Caller::Anonymous, "key", &order()).await;
    assert_eq!(again, (201, true, body));
    for (pointer, value) in [
        ("/lines/0/quantity", json!(3)),
        ("/shipTo/city", json!("C")),
    ] {
        let mut other = order();
        *other.pointer_mut(pointer).unwrap() = value;
        let (status, _, problem) = post(&shop, Caller::Anonymous, "key", &other).await;
        let reused = "urn:cairn:problem:idempotency-key-reused";
        assert_eq!(
            (status, &problem["type"]),
            (422, &json!(reused)),
            "{pointer}"
        );
    }
}

#[tokio::test]
async fn the_address_is_stored_encrypted() {
    let shop = shop(Prices::Caller, None);
    post(&shop, Caller::Anonymous, "key", &order()).await;
    let stream = Order::stream(&OrderId::from_key("key"));
    let stored = shop.orders.load(&stream).await.unwrap();
    let placed = json!(stored.state.placed().unwrap());
    assert!(placed["shipTo"]["sealed"].is_string(), "{placed}");
}

#[tokio::test]
async fn a_customer_orders_for_nobody_else() {
    let shop = shop(Prices::Caller, None);
    for (customer, status) in [("c-42", 201), ("c-43", 403)] {
        let caller = Caller::User(customer.to_owned());
        assert_eq!(post(&shop, caller, customer, &order()).await.0, status);
    }
}

#[tokio::test]
async fn a_customer_has_a_quota() {
    let shop = shop(Prices::Caller, Some(1));
    for (key, status) in [("1", 201), ("2", 429), ("1", 201)] {
        let answer = post(&shop, Caller::Anonymous, key, &order()).await;
        assert_eq!(answer.0, status, "{key}");
    }
}

#[tokio::test]
async fn an_order_has_the_price_of_the_catalogue() {
    let shop = shop(Prices::Catalogue, None);
    let unpriced = post(&shop, Caller::Anonymous, "1", &order()).await;
    let pointer = &unpriced.2["errors"][0]["pointer"];
    assert_eq!((unpriced.0, pointer), (422, &json!("/lines/0/sku")));
    set_price(&shop, 1250).await;
    let placed = post(&shop, Caller::Anonymous, "2", &order()).await;
    assert_eq!(placed.0, 201, "{}", placed.2);
    // The first price is cached.
    set_price(&shop, 1300).await;
    let changed = post(&shop, Caller::Anonymous, "3", &order()).await;
    let price = json!({ "amount": 1300, "currency": "EUR" });
    assert_eq!((changed.0, &changed.2["price"]), (409, &price));
}
