//! A customer places no more orders in a minute than `CustomerOrdersPerMinute`.

use std::time::Duration;

use cairn_local::Platform;
use futures_util::future::join_all;
use orders_local::parts;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    fixture::{order, template_with},
    still::StillShop,
};

const LIMIT: usize = 3;
const MINUTE: Duration = Duration::from_mins(1);

/// A shop with the limit, in the first second of a minute.
async fn limited(prices: &str) -> StillShop {
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", prices),
        ("CustomerOrdersPerMinute", "3"),
    ]);
    let shop = StillShop::with_template(&template, parts());
    let price = json!({ "price": { "amount": 1250, "currency": "EUR" } });
    assert_eq!(shop.send("PUT", "/products/TEA-01", &price).await.0, 200);
    shop.system.settled().await;
    sleep(left(&shop)).await;
    shop
}

/// Returns the rest of the minute.
fn left(shop: &StillShop) -> Duration {
    let millis = shop.platform.now().as_millis().rem_euclid(60_000);
    MINUTE.saturating_sub(Duration::from_millis(millis.unsigned_abs()))
}

async fn place(shop: &StillShop, customer: &str, key: &str) -> u16 {
    let mut order = order("TEA-01", 1, "tok_visa");
    order["customerId"] = customer.into();
    let headers = [("idempotency-key", key)];
    let sent = shop.send_with("POST", "/orders", &headers, &order);
    let (status, headers, body) = sent.await;
    if status == 429 {
        assert_eq!(body["type"], "urn:cairn:problem:too-many-orders", "{body}");
        let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert_eq!(u128::from(wait), left(shop).as_millis().div_ceil(1000));
    }
    status
}

fn orders(shop: &StillShop) -> usize {
    let commits = shop.items("EventsTable").into_iter();
    let placed = commits.filter(|commit| {
        commit["stream"].as_str().unwrap().starts_with("order-") && commit["version"] == 1
    });
    placed.count()
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_counts_once_and_a_new_minute_admits_new_orders() {
    for prices in ["caller", "catalogue"] {
        let shop = limited(prices).await;
        for key in ["1", "1", "2", "1", "3", "2"] {
            assert_eq!(place(&shop, "c-1", key).await, 201, "{prices}: {key}");
        }
        for key in ["4", "5"] {
            assert_eq!(place(&shop, "c-1", key).await, 429, "{prices}: {key}");
        }
        // A repeated request gets its response, and other customers have their own limit.
        assert_eq!(place(&shop, "c-1", "3").await, 201, "{prices}");
        assert_eq!(place(&shop, "c-2", "6").await, 201, "{prices}");
        assert_eq!(orders(&shop), LIMIT + 1, "{prices}");

        sleep(left(&shop)).await;
        // A repetition in the next minute counts in neither.
        for key in ["1", "4", "5", "7"] {
            assert_eq!(place(&shop, "c-1", key).await, 201, "{prices}: {key}");
        }
        assert_eq!(place(&shop, "c-1", "8").await, 429, "{prices}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_concurrent_orders_exactly_the_limit_is_placed() {
    let shop = limited("caller").await;
    // Every request is decided before the first is stored.
    *shop.platform.distance.lock().unwrap() = Duration::from_millis(5);
    let keys: Vec<_> = (0..LIMIT * 4).map(|number| number.to_string()).collect();
    let placed = join_all(keys.iter().map(|key| place(&shop, "c-1", key))).await;
    let count = |status| placed.iter().filter(|other| **other == status).count();
    assert_eq!((count(201), count(429)), (LIMIT, LIMIT * 3), "{placed:?}");
    assert_eq!(orders(&shop), LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_refused_order_counts_nowhere() {
    let shop = limited("catalogue").await;
    let mut outdated = order("TEA-01", 1, "tok_visa");
    outdated["lines"][0]["unitPrice"]["amount"] = 1.into();
    for _ in 0..LIMIT {
        assert_eq!(shop.send("POST", "/orders", &outdated).await.0, 409);
    }
    let mut invalid = order("TEA-01", 1, "tok_visa");
    invalid["lines"][0]["quantity"] = 0.into();
    assert_eq!(shop.send("POST", "/orders", &invalid).await.0, 422);
    assert_eq!(shop.items("QuotasTable"), Vec::<Value>::new());
}

/// Without a limit, no call is added and nothing is counted.
#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_is_counted() {
    let shop = StillShop::open();
    for key in ["1", "2", "3", "4", "5"] {
        assert_eq!(place(&shop, "c-1", key).await, 201);
    }
    assert_eq!(shop.items("QuotasTable"), Vec::<Value>::new());
}

/// The count is part of the append.
#[tokio::test(start_paused = true)]
async fn a_limit_adds_no_call() {
    let calls = async |shop: &StillShop| {
        assert_eq!(place(shop, "c-1", "1").await, 201);
        let counts = shop.system.aws.meter.counts().into_iter();
        let counts = counts.filter(|((caller, _), _)| caller == "PlaceOrderFunction");
        counts.map(|(_, count)| count).sum::<u64>()
    };
    let without = calls(&StillShop::open()).await;
    assert_eq!(calls(&limited("caller").await).await, without);
}
