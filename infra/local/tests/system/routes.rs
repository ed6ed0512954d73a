//! Every route of the contract, and the headers of every answer.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use cairn_local::Options;
use orders_local::options;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, order},
    still::StillShop,
};

#[tokio::test(flavor = "multi_thread")]
async fn placing_an_order_answers_with_its_place_and_its_total() {
    let system = Fixture::start().await;
    let placed = system
        .post("/orders", &order("TEA-01", 2, "tok_visa"))
        .await;
    let id = placed.body["orderId"].as_str().unwrap();
    assert_eq!(placed.status, StatusCode::CREATED);
    assert_eq!(placed.headers["location"], format!("/orders/{id}"));
    assert_eq!(placed.headers["content-type"], "application/json");
    assert_eq!(
        placed.body,
        json!({
            "orderId": id, "status": "placed", "version": 1,
            "total": { "amount": 2500, "currency": "EUR" },
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_shown_with_its_fulfilment_and_its_shipment() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let asked = order("TEA-01", 2, "tok_visa");
    let shown = system.fulfil(&asked).await;
    assert_eq!(shown["customerId"], "c-42");
    assert_eq!(shown["status"], "confirmed");
    assert_eq!(shown["lines"], asked["lines"]);
    assert_eq!(shown["total"], json!({ "amount": 2500, "currency": "EUR" }));
    assert_eq!(shown["version"], 2);
    assert_eq!(shown["fulfilment"]["status"], "completed");
    assert_eq!(shown["fulfilment"]["steps"].as_array().unwrap().len(), 6);
    assert!(shown["shipment"]["trackingNumber"].is_string());
    assert!(shown["placedAt"].as_str() <= shown["updatedAt"].as_str());
    assert!(shown.get("cancellation").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_can_be_read_at_once_and_as_it_was() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let id = system.place(&order("TEA-01", 1, "tok_visa")).await;
    let at_once = system.get(&format!("/orders/{id}?minVersion=1")).await;
    assert_eq!(at_once.status, StatusCode::OK);
    system.settled().await;

    let events = system.events(&id).await;
    let placed_at = events[0].at;
    let then = system
        .get(&format!("/orders/{id}?at={placed_at}"))
        .await
        .body;
    assert_eq!(
        (&then["status"], &then["version"]),
        (&json!("placed"), &json!(1))
    );
    let before = cairn::Timestamp::from_millis(placed_at.as_millis() - 1);
    let not_yet = system.get(&format!("/orders/{id}?at={before}")).await;
    assert_eq!(not_yet.status, StatusCode::NOT_FOUND);

    let ahead = system.get(&format!("/orders/{id}?minVersion=9")).await;
    assert_eq!(ahead.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_time_of_a_long_history_costs_what_happened_by_then() {
    const RETRIES: u64 = 400;
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let id = system.place(&order("TEA-01", 1, "tok_visa")).await;
    system.settled().await;
    let events = system.events(&id).await;
    let last = events.iter().map(|event| event.at).max().unwrap();
    let stream = format!("fulfilment-{id}");
    let versions = events
        .iter()
        .filter(|event| event.stream.as_str() == stream);
    let version = versions.count() as u64;
    let later = cairn::Timestamp::from_millis(last.as_millis() + 1);
    for retry in 1..=RETRIES {
        let data = json!({
            "step": "confirm-order", "retry": retry,
            "next": { "step": "confirm-order", "action": "execute" },
        });
        let event = json!({ "M": {
            "type": { "S": "StepRetried" }, "schema": { "N": "1" }, "data": { "S": data.to_string() },
        } });
        let item = json!({
            "stream": { "S": stream }, "version": { "N": (version + retry).to_string() },
            "commit": { "S": format!("retry-{retry}") }, "at": { "S": later.to_string() },
            "correlation": { "S": "test" }, "events": { "L": [event] },
        });
        let put = json!({ "TableName": "EventsTable", "Item": item });
        system.aws("DynamoDB_20120810.PutItem", &put);
    }
    let meter = &system.system.composition.aws.meter;
    let read = || {
        meter
            .units()
            .get("GetOrderFunction")
            .map_or(0.0, |units| units.read)
    };
    let mut costs = vec![];
    for at in [last, later] {
        let before = read();
        let order = system.get(&format!("/orders/{id}?at={at}")).await;
        assert_eq!(order.body["status"], "confirmed", "{}", order.body);
        costs.push(read() - before);
    }
    let [early, late] = costs[..] else {
        panic!("{costs:?}")
    };
    assert!(early * 4.0 < late, "{costs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_row_lacks_is_read_from_the_events() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let shown = system.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let id = shown["orderId"].as_str().unwrap();
    let row = json!({ "TableName": "OrdersTable", "Key": { "orderId": { "S": id } } });
    system.aws("DynamoDB_20120810.DeleteItem", &row);
    let row = json!({ "TableName": "StockTable", "Key": { "sku": { "S": "TEA-01" } } });
    system.aws("DynamoDB_20120810.DeleteItem", &row);

    assert_eq!(
        system.get(&format!("/orders/{id}?minVersion=2")).await.body,
        shown
    );
    let stock = system.get("/stock/TEA-01?minVersion=3").await.body;
    assert_eq!(
        (&stock["onHand"], &stock["version"]),
        (&json!(9), &json!(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_an_order_are_cloudevents_of_all_its_streams_oldest_first() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let body = order("TEA-01", 1, "tok_visa");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("x-correlation-id", "corr-1"), ("traceparent", trace)];
    let placed = system
        .client
        .post("/orders", &headers, &body)
        .await
        .unwrap();
    let id = placed.body["orderId"].as_str().unwrap();
    system.settled().await;
    let events = system.get(&format!("/orders/{id}/events")).await.body["events"].clone();
    let events = events.as_array().unwrap();

    let first = &events[0];
    assert_eq!(first["specversion"], "1.0");
    assert_eq!(first["id"], format!("order-{id}@1"));
    assert_eq!(first["source"], "cairn.orders");
    assert_eq!(first["type"], "OrderPlaced");
    assert_eq!(first["subject"], format!("order-{id}"));
    assert_eq!(first["dataschema"], "OrderPlaced/1");
    assert_eq!(first["datacontenttype"], "application/json");
    assert_eq!(first["streamversion"], 1);
    for category in ["order", "fulfilment", "payment", "shipment"] {
        let stream = format!("{category}-{id}");
        assert!(
            events.iter().any(|event| event["subject"] == *stream),
            "no {stream}"
        );
    }
    assert!(
        events
            .iter()
            .all(|event| event["correlationid"] == "corr-1")
    );
    assert!(events.iter().all(|event| event["traceparent"] == trace));
    assert!(
        events
            .iter()
            .skip(1)
            .all(|event| event["causationid"].is_string())
    );
    let mut seen = std::collections::BTreeSet::new();
    for event in events {
        let cause = event["causationid"].as_str();
        assert!(cause.is_none_or(|cause| seen.contains(cause)), "{event}");
        seen.insert(event["id"].as_str().unwrap());
    }
}

/// Asserts that the statuses of an order and its fulfilment are a valid pair.
fn agree(order: &serde_json::Value) {
    let fulfilment = order["fulfilment"]["status"].as_str().unwrap();
    let fits: &[&str] = match order["status"].as_str().unwrap() {
        "placed" => &["running", "compensating", "stuck"],
        "confirmed" | "shipped" => &["completed"],
        _ => &["compensating", "aborted", "stuck"],
    };
    assert!(fits.contains(&fulfilment), "{order}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_under_way_is_shown_as_one_picture_by_every_query() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 1_000).await;
    let mut ids = vec![];
    for token in ["tok_visa", "tok_declined"].repeat(10) {
        ids.push(system.place(&order("TEA-01", 1, token)).await);
    }
    // Each order is read until it has ended.
    let end = tokio::time::Instant::now() + crate::fixture::TIMEOUT;
    while !ids.is_empty() {
        assert!(tokio::time::Instant::now() < end, "{ids:?} do not end");
        let mut open = vec![];
        for id in ids {
            let shown = system.order(&id).await;
            agree(&shown);
            if ["placed", "cancelled"].contains(&shown["status"].as_str().unwrap())
                && shown["fulfilment"]["status"] != "aborted"
            {
                open.push(id);
            }
        }
        ids = open;
        let page = system.get("/customers/c-42/orders?limit=100").await.body;
        page["orders"].as_array().unwrap().iter().for_each(agree);
    }
    system.settled().await;
    // The same holds at each earlier version of an order.
    let page = system.get("/customers/c-42/orders?limit=100").await.body;
    for order in page["orders"].as_array().unwrap().iter().take(4) {
        let id = order["orderId"].as_str().unwrap();
        for event in system.events(id).await {
            let then = system.get(&format!("/orders/{id}?at={}", event.at)).await;
            agree(&then.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_two_moments_is_not_shown() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let shown = system.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let id = shown["orderId"].as_str().unwrap();
    let key = json!({ "orderId": { "S": id } });
    let behind = json!({
        "TableName": "OrdersTable", "Key": key,
        "UpdateExpression": "SET #s = :placed, orderVersion = :one",
        "ExpressionAttributeNames": { "#s": "status" },
        "ExpressionAttributeValues": { ":placed": { "S": "placed" }, ":one": { "N": "1" } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &behind);
    assert_eq!(system.order(id).await, shown);
    let page = system.get("/customers/c-42/orders").await.body;
    assert_eq!(page["orders"], json!([shown]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subject_of_an_identity_provider_is_a_customer_on_every_route() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    for (customer, path) in [
        ("auth0|65f0c2", "auth0%7C65f0c2"),
        ("ada+shop@example.com", "ada%2Bshop%40example.com"),
        ("urn:example:1", "urn:example:1"),
    ] {
        let mut asked = order("TEA-01", 1, "tok_visa");
        asked["customerId"] = json!(customer);
        let shown = system.fulfil(&asked).await;
        assert_eq!(
            (&shown["customerId"], &shown["status"]),
            (&json!(customer), &json!("confirmed"))
        );
        let page = system.get(&format!("/customers/{path}/orders")).await.body;
        assert_eq!(page["orders"], json!([shown]), "{customer}");
    }
}

/// Virtual time gives each order a millisecond of its own.
#[tokio::test(start_paused = true)]
async fn a_customers_orders_come_newest_first_page_by_page() {
    let shop = StillShop::open();
    let mut placed = vec![];
    for _ in 0..5 {
        placed.push(shop.place(&order("TEA-01", 1, "tok_visa")).await);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    shop.system.settled().await;
    placed.reverse();

    let mut listed = vec![];
    let mut path = "/customers/c-42/orders?limit=2".to_owned();
    // Each page but the last has an order that no earlier page had.
    for _ in 0..=placed.len() {
        let (status, page) = shop.send("GET", &path, &Value::Null).await;
        assert_eq!(status, 200, "{page}");
        let orders = page["orders"].as_array().unwrap();
        assert!(orders.len() <= 2);
        listed.extend(
            orders
                .iter()
                .map(|order| order["orderId"].as_str().unwrap().to_owned()),
        );
        match page["cursor"].as_str() {
            Some(cursor) => path = format!("/customers/c-42/orders?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(listed, placed);
    let nobody = shop.send("GET", "/customers/c-none/orders", &Value::Null);
    assert_eq!(nobody.await, (200, json!({ "orders": [] })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_answers_with_the_stock_it_leaves() {
    let system = Fixture::start().await;
    let receipt = system
        .post("/stock/TEA-01/receipts", &json!({ "quantity": 100 }))
        .await;
    let stock = json!({
        "sku": "TEA-01", "onHand": 100, "reserved": 0, "available": 100, "version": 1,
    });
    assert_eq!(
        (receipt.status, &receipt.body),
        (StatusCode::CREATED, &stock)
    );
    assert_eq!(system.get("/stock/TEA-01?minVersion=1").await.body, stock);
    system.settled().await;
    assert_eq!(system.stock("TEA-01").await, stock);
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_come_in_windows_of_a_minute_an_hour_or_a_day() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    system.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    for (window, millis) in [("minute", 60_000), ("hour", 3_600_000), ("day", 86_400_000)] {
        let sales = system.get(&format!("/sales?window={window}")).await.body;
        let windows = sales["windows"].as_array().unwrap();
        let confirmed = windows
            .iter()
            .find(|window| window["ordersConfirmed"] == 1)
            .unwrap();
        let time =
            |name: &str| -> cairn::Timestamp { confirmed[name].as_str().unwrap().parse().unwrap() };
        assert_eq!(time("end").as_millis() - time("start").as_millis(), millis);
        assert_eq!(time("start").as_millis() % millis, 0);
        assert_eq!(
            confirmed["revenue"],
            json!([{ "amount": 2500, "currency": "EUR" }])
        );
        assert_eq!(
            confirmed["topProducts"],
            json!([{ "sku": "TEA-01", "quantity": 2 }])
        );
    }
    // The end is exclusive: no window is empty, and none occurs twice.
    for (window, millis) in [("minute", 60_000), ("hour", 3_600_000), ("day", 86_400_000)] {
        let path = format!("/sales?window={window}");
        let first = system.get(&path).await.body["windows"][0].clone();
        let start: cairn::Timestamp = first["start"].as_str().unwrap().parse().unwrap();
        let end = cairn::Timestamp::from_millis(start.as_millis() + millis);
        let between = async |from: cairn::Timestamp, to: cairn::Timestamp| {
            let answer = system.get(&format!("{path}&from={from}&to={to}")).await;
            answer.body["windows"].as_array().unwrap().clone()
        };
        assert!(between(start, start).await.is_empty(), "{window}");
        assert!(between(end, end).await.is_empty(), "{window}");
        assert_eq!(between(start, end).await, [first], "{window}");
        let before = cairn::Timestamp::from_millis(start.as_millis() - millis);
        assert!(between(before, start).await.is_empty(), "{window}");
    }
    let long_ago = "/sales?window=day&from=2001-01-01T00:00:00Z&to=2001-02-01T00:00:00Z";
    assert_eq!(system.get(long_ago).await.body, json!({ "windows": [] }));
}

/// The stream has grown by snapshots, other receipts, and events of sagas.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_recognised_by_its_key_however_busy_the_sku_is() {
    let system = Fixture::start().await;
    let key = [("idempotency-key", "k-1")];
    let (path, body) = ("/stock/TEA-01/receipts", json!({ "quantity": 100 }));
    let once = system.client.post(path, &key, &body).await.unwrap();
    for _ in 0..20 {
        system.receive("TEA-01", 1).await;
        for _ in 0..2 {
            system.place(&order("TEA-01", 1, "tok_visa")).await;
        }
    }
    system.settled().await;
    let before = system.stock("TEA-01").await;
    assert!(before["version"].as_u64() > Some(100), "{before}");

    let again = system.client.post(path, &key, &body).await.unwrap();
    assert_eq!((again.status, &again.body), (once.status, &once.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = json!({ "quantity": 101 });
    let refused = system.client.post(path, &key, &other).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    system.settled().await;
    assert_eq!(system.stock("TEA-01").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_again_is_the_same_answer_and_changes_nothing() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let body = order("TEA-01", 1, "tok_visa");
    let key = [("idempotency-key", "k-1")];
    let first = system.client.post("/orders", &key, &body).await.unwrap();
    let id = first.body["orderId"].as_str().unwrap();
    assert!(!first.headers.contains_key("idempotent-replayed"));
    system.settled().await;

    let ship = format!("/orders/{id}/ship");
    let requests = [
        ("/orders", body),
        (ship.as_str(), json!({})),
        ("/stock/TEA-01/receipts", json!({ "quantity": 5 })),
    ];
    for (path, body) in requests {
        let once = system.client.post(path, &key, &body).await.unwrap();
        system.settled().await;
        let before = system.history().len();
        let again = system.client.post(path, &key, &body).await.unwrap();
        assert_eq!(
            (once.status, &once.body),
            (again.status, &again.body),
            "{path}"
        );
        assert_eq!(again.headers["idempotent-replayed"], "true", "{path}");
        assert_eq!(system.history().len(), before, "{path}");
    }
    let replayed = system
        .client
        .post("/orders", &key, &order("TEA-01", 1, "tok_visa"))
        .await
        .unwrap();
    assert_eq!(
        replayed.body, first.body,
        "the first answer, not the current state"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_with_another_body_is_refused() {
    let system = Fixture::start().await;
    // Without stock the saga could cancel the order before the customer does.
    system.receive("TEA-01", 10).await;
    let key = [("idempotency-key", "k-1")];
    let id = {
        let body = order("TEA-01", 1, "tok_visa");
        let placed = system.client.post("/orders", &key, &body).await.unwrap();
        placed.body["orderId"].as_str().unwrap().to_owned()
    };
    let cancel = format!("/orders/{id}/cancel");
    system
        .client
        .post(&cancel, &key, &json!({ "reason": "a" }))
        .await
        .unwrap();
    system
        .client
        .post("/stock/TEA-01/receipts", &key, &json!({ "quantity": 5 }))
        .await
        .unwrap();
    for (path, body) in [
        ("/orders", order("TEA-01", 2, "tok_visa")),
        (cancel.as_str(), json!({ "reason": "b" })),
        ("/stock/TEA-01/receipts", json!({ "quantity": 6 })),
    ] {
        let refused = system.client.post(path, &key, &body).await.unwrap();
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
    }
}

/// A decision without events uses its key as well, accepted or rejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_used_by_a_request_that_changed_nothing_too() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        data: Some(directory.path().to_owned()),
        ..options()
    };
    let system = Fixture::with(options()).await;
    system.receive("TEA-01", 10).await;
    let waiting = system.place(&order("TEA-01", 1, "tok_down")).await;
    let cancelled = system.place(&order("TEA-01", 1, "tok_down")).await;
    let path = format!("/orders/{cancelled}/cancel");
    assert_eq!(
        system.post(&path, &json!({ "reason": "x" })).await.status,
        StatusCode::OK
    );
    let ship = |id: &str| format!("/orders/{id}/ship");
    let requests = [
        (
            "found-done",
            path,
            200,
            json!({ "reason": "a", "more": [1, { "b": 2, "c": 3 }] }),
            json!({ "reason": "b" }),
        ),
        (
            "too-early",
            ship(&waiting),
            409,
            json!({}),
            json!({ "note": 1 }),
        ),
        (
            "too-late",
            ship(&cancelled),
            409,
            json!({}),
            json!({ "note": 1 }),
        ),
    ];
    // The sagas continue meanwhile.
    let decided = |system: &Fixture| {
        let history = system.history().into_iter();
        let of_orders = history.filter(|event| {
            ["OrderCancelled", "OrderShipped"].contains(&event.event.name.as_str())
        });
        of_orders.count()
    };
    let before = decided(&system);
    let mut answers = vec![];
    for (key, path, status, body, _) in &requests {
        let key = [("idempotency-key", *key)];
        let first = system.client.post(path, &key, body).await.unwrap();
        assert_eq!(first.status.as_u16(), *status, "{key:?}: {}", first.body);
        assert!(
            !first.headers.contains_key("idempotent-replayed"),
            "{key:?}"
        );
        answers.push(first);
    }
    let check = async |system: &Fixture| {
        for ((key, path, _, body, other), first) in requests.iter().zip(&answers) {
            let key = [("idempotency-key", *key)];
            let again = system.client.post(path, &key, body).await.unwrap();
            assert_eq!(
                (again.status, &again.body),
                (first.status, &first.body),
                "{key:?}"
            );
            assert_eq!(again.headers["idempotent-replayed"], "true", "{key:?}");
            assert_eq!(again.headers["content-type"], first.headers["content-type"]);
            let refused = system.client.post(path, &key, other).await.unwrap();
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{key:?}");
            assert_eq!(
                refused.body["type"],
                "urn:cairn:problem:idempotency-key-reused"
            );
        }
    };
    check(&system).await;
    assert_eq!(decided(&system), before);
    // White space and the order of members do not change a body.
    let (_, path, ..) = &requests[0];
    let headers = [
        ("idempotency-key", "found-done"),
        ("content-type", "application/json"),
    ];
    let same = r#"{ "more": [1, { "c": 3, "b": 2 }],  "reason": "a" }"#;
    let again = system
        .client
        .send(Method::POST, path, &headers, same.into())
        .await
        .unwrap();
    assert_eq!(
        again.headers["idempotent-replayed"], "true",
        "{}",
        again.body
    );
    system.system.stop().await;
    check(&Fixture::with(options()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_decided_does_not_use_its_key() {
    let system = Fixture::start().await;
    let key = [("idempotency-key", "k-1")];
    let invalid = system
        .client
        .post("/orders", &key, &json!({}))
        .await
        .unwrap();
    assert_eq!(invalid.status, StatusCode::UNPROCESSABLE_ENTITY);
    let order = order("TEA-01", 1, "tok_down");
    let placed = system.client.post("/orders", &key, &order).await.unwrap();
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.body);
    let path = format!(
        "/orders/{}/cancel",
        placed.body["orderId"].as_str().unwrap()
    );
    let invalid = system.client.post(&path, &key, &json!({})).await.unwrap();
    assert_eq!(invalid.status, StatusCode::UNPROCESSABLE_ENTITY);
    let cancelled = system
        .client
        .post(&path, &key, &json!({ "reason": "a" }))
        .await
        .unwrap();
    assert_eq!(cancelled.status, StatusCode::OK, "{}", cancelled.body);
}

/// An earlier release stored the digest of the command that it built.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_meets_the_commit_of_an_earlier_release() {
    let system = Fixture::start().await;
    let key = [("idempotency-key", "k-1")];
    let (path, body) = ("/stock/TEA-01/receipts", json!({ "quantity": 5 }));
    let first = system.client.post(path, &key, &body).await.unwrap();
    let digest = cairn::commit::fingerprint(&json!({ "Receive": 5 })).unwrap();
    let former = json!({
        "TableName": "EventsTable",
        "Key": { "stream": { "S": "stock-TEA-01" }, "version": { "N": "1" } },
        "UpdateExpression": "SET fingerprint = :digest",
        "ExpressionAttributeValues": { ":digest": { "S": digest } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &former);
    let again = system.client.post(path, &key, &body).await.unwrap();
    assert_eq!((again.status, again.body), (first.status, first.body));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = json!({ "quantity": 6 });
    let refused = system.client.post(path, &key, &other).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_each_request_is_a_command_of_its_own() {
    let system = Fixture::start().await;
    let body = order("TEA-01", 1, "tok_visa");
    assert_ne!(system.place(&body).await, system.place(&body).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_correlation_id_of_its_client_or_one_that_no_client_can_use() {
    let system = Fixture::start().await;
    for path in ["/orders/none", "/sales", "/nowhere"] {
        let own = [("x-correlation-id", "mine-1")];
        let answer = system
            .client
            .send(Method::GET, path, &own, "".into())
            .await
            .unwrap();
        assert_eq!(answer.headers["x-correlation-id"], "mine-1", "{path}");
        let new = system.get(path).await.headers["x-correlation-id"].clone();
        // An id of the system identifies one request: no client can use it for another.
        let made = [("x-correlation-id", new.to_str().unwrap())];
        let answer = system
            .client
            .send(Method::GET, path, &made, "".into())
            .await
            .unwrap();
        let other = answer.headers["x-correlation-id"].to_str().unwrap();
        assert!(other.starts_with("cairn:") && *other != new, "{path}");
    }
}
