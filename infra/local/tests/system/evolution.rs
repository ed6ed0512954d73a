//! Current code reads events of versions that are no longer written.

use axum::http::StatusCode;
use cairn_local::{Composition, Options, aws::Seen, client::Client};
use orders::personal;
use orders_local::options;
use serde_json::{Value, json};

use crate::{
    events::event,
    fixture::{self, Fixture, Holding, order},
    rebuild::{empty, rebuild},
    tokens::Closed,
};

const FIRST_STEP: &str = "ScreenOrderFunction";

const ORDER: &str = "7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d";

/// Stores a commit of one event in the form of its time.
fn store(fixture: &Fixture, version: u64, at: &str, kind: &str, data: &Value) {
    let (name, schema) = kind.split_once('/').unwrap();
    let item = json!({
        "stream": { "S": format!("order-{ORDER}") },
        "version": { "N": version.to_string() },
        "commit": { "S": format!("{kind} by hand") },
        "at": { "S": at },
        "correlation": { "S": "by-hand" },
        "events": { "L": [{ "M": {
            "type": { "S": name },
            "schema": { "N": schema },
            "data": { "S": data.to_string() },
        } }] },
    });
    let put = json!({ "TableName": "EventsTable", "Item": item });
    fixture.aws("DynamoDB_20120810.PutItem", &put);
}

async fn placed(system: &Composition) -> Value {
    let mut placed = order("TEA-01", 2, "tok_visa");
    placed["total"] = json!({ "amount": 2500, "currency": "EUR" });
    let customer = "c-42".parse().unwrap();
    let stream = format!("order-{ORDER}").parse().unwrap();
    let keys = system
        .operator()
        .keyring("CUSTOMER_KEYS_TABLE", "PERSONAL_DATA_KEY")
        .unwrap();
    let key = keys.create("c-42").await.unwrap();
    let sealed = key.seal(&personal::ship_to(&customer, &stream), &placed["shipTo"]);
    placed["shipTo"] = json!(sealed.unwrap());
    placed
}

fn cancelled() -> Value {
    json!({ "customerId": "c-42", "reason": "changed my mind", "by": "customer" })
}

/// Stores an order that was placed, fulfilled and cancelled by code that wrote version 1 of its
/// events.
async fn old_order() -> Fixture {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 10).await;
    store(
        &fixture,
        1,
        "2026-11-23T09:30:00.000Z",
        "OrderPlaced/1",
        &placed(&fixture.system.composition).await,
    );
    fixture.settled().await;
    assert_eq!(fixture.order(ORDER).await["status"], "confirmed");
    let cancelled_at = fixture.order(ORDER).await["updatedAt"].clone();
    let cancelled_at = cancelled_at.as_str().unwrap();
    store(&fixture, 3, cancelled_at, "OrderCancelled/1", &cancelled());
    fixture.settled().await;
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_event_unwinds_what_it_unwound() {
    let fixture = old_order().await;
    let order = fixture.order(ORDER).await;
    assert_eq!(order["status"], "cancelled", "{order}");
    assert_eq!(order["cancellation"]["reason"], "changed my mind");
    assert_eq!(order["fulfilment"]["status"], "aborted", "{order}");
    let stock = fixture.stock("TEA-01").await;
    assert_eq!(
        (&stock["onHand"], &stock["reserved"]),
        (&json!(10), &json!(0))
    );
    let sales = fixture.get("/sales?window=day").await.body;
    let windows = sales["windows"].as_array().unwrap().iter();
    let cancelled = windows.filter_map(|window| window["ordersCancelled"].as_u64());
    assert_eq!(cancelled.sum::<u64>(), 1, "{sales}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_meets_an_old_event() {
    let fixture = old_order().await;
    let reason = json!({ "reason": "once more" });
    let again = fixture
        .post(&format!("/orders/{ORDER}/cancel"), &reason)
        .await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.body);
    assert_eq!(
        (&again.body["status"], &again.body["version"]),
        (&json!("cancelled"), &json!(3))
    );
    let ship = fixture
        .post(&format!("/orders/{ORDER}/ship"), &json!({}))
        .await;
    assert_eq!(ship.status, StatusCode::CONFLICT, "{}", ship.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_order_is_shown_as_of_a_past_time() {
    let fixture = old_order().await;
    let then = fixture
        .get(&format!("/orders/{ORDER}?at=2026-11-23T09:31:00.000Z"))
        .await
        .body;
    assert_eq!(
        (&then["status"], &then["version"]),
        (&json!("placed"), &json!(1))
    );
    assert_eq!(then["cancellation"], Value::Null);
    let now = fixture
        .get(&format!("/orders/{ORDER}?at=2126-11-23T09:30:00.000Z"))
        .await
        .body;
    assert_eq!(now, fixture.order(ORDER).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_old_order_are_folded_and_rebuilt() {
    let fixture = old_order().await;
    let order = fixture.order(ORDER).await;
    let sales = fixture.get("/sales?window=day").await.body;
    empty(&fixture, "OrdersTable", &["orderId"]);
    empty(&fixture, "SalesTable", &["partition", "row"]);
    // Without a row, the query reads the store.
    let folded = fixture
        .get(&format!("/orders/{ORDER}?minVersion=3"))
        .await
        .body;
    assert_eq!(folded, order);
    for projection in ["orders", "sales"] {
        rebuild(&fixture, projection).await;
    }
    assert_eq!(fixture.order(ORDER).await, order);
    assert_eq!(fixture.get("/sales?window=day").await.body, sales);
    let comparison = rebuild(&fixture, "orders").await;
    assert_eq!(
        (&comparison["alike"], &comparison["differing"]),
        (&json!(1), &json!(0))
    );
}

/// Stored events are published and shown unchanged: an old event keeps its version.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_event_is_passed_on_as_it_is_stored() {
    let fixture = Fixture::start().await;
    let mut bus = fixture.system.watch();
    store(
        &fixture,
        1,
        "2026-11-23T09:30:00.000Z",
        "OrderPlaced/1",
        &placed(&fixture.system.composition).await,
    );
    store(
        &fixture,
        2,
        "2026-11-23T09:35:00.000Z",
        "OrderCancelled/1",
        &cancelled(),
    );
    let is_cancelled = |seen: &Seen| seen.kind == "OrderCancelled";
    let published = fixture::event(&mut bus, "the cancellation", is_cancelled).await;
    let published: Value = serde_json::from_str(&published.detail).unwrap();
    assert_eq!(published["dataschema"], "OrderCancelled/1");
    assert_eq!(published["data"], cancelled());
    fixture.settled().await;
    let events = fixture.get(&format!("/orders/{ORDER}/events")).await.body;
    let mut shown = events["events"].as_array().unwrap().iter();
    let shown = shown
        .find(|event| event["type"] == "OrderCancelled")
        .unwrap();
    assert_eq!(shown["dataschema"], "OrderCancelled/1");
    assert_eq!(shown["data"], cancelled());
}

/// A cancellation is stored with its source: customer, operator, unknown caller, or fulfilment.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_has_its_source() {
    // The saga does not start before the caller has cancelled.
    let platform = Holding::new(&[]);
    let options = Options {
        platform: platform.clone(),
        ..options()
    };
    let shop = Closed::with(options.clone()).await;
    let fixture = &shop.fixture;
    let (customer, operator) = (shop.customer("c-42"), shop.operator());
    let cancelled_by = async |caller: &Client| {
        platform.hold(FIRST_STEP);
        let placed = customer
            .post("/orders", &[], &order("TEA-01", 1, "tok_visa"))
            .await
            .unwrap();
        let id = placed.body["orderId"].as_str().unwrap().to_owned();
        let reason = json!({ "reason": "changed my mind" });
        let answer = caller
            .post(&format!("/orders/{id}/cancel"), &[], &reason)
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        platform.release(FIRST_STEP);
        fixture.settled().await;
        let order = operator.get(&format!("/orders/{id}")).await.unwrap().body;
        assert_eq!(order["fulfilment"]["status"], "aborted", "{order}");
        stored(fixture, &id)
    };
    assert_eq!(cancelled_by(&customer).await, "customer");
    assert_eq!(cancelled_by(&operator).await, "operator");

    let open = Fixture::with(options).await;
    platform.hold(FIRST_STEP);
    let id = open.place(&order("TEA-01", 1, "tok_visa")).await;
    let cancel = format!("/orders/{id}/cancel");
    let answer = open.post(&cancel, &json!({ "reason": "x" })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(stored(&open, &id), "somebody");
    platform.release(FIRST_STEP);
    let failed = open.fulfil(&order("NONE-01", 1, "tok_visa")).await;
    assert_eq!(
        stored(&open, failed["orderId"].as_str().unwrap()),
        "fulfilment"
    );
}

fn stored(fixture: &Fixture, id: &str) -> Value {
    let history = fixture.history();
    let mut events = history.iter().filter(|event| event.stream.key() == id);
    let cancelled = events
        .find(|event| event.event.name == "OrderCancelled")
        .unwrap();
    assert_eq!(cancelled.event.schema, 2);
    let data: Value = serde_json::from_str(cancelled.event.data.get()).unwrap();
    data["cancelledBy"].clone()
}

/// The test event of the function that receives both versions.
#[test]
fn the_test_event_is_of_the_version_of_today() {
    let event: Value = serde_json::from_str(&event("unwind-order")).unwrap();
    assert_eq!(event["detail"]["dataschema"], "OrderCancelled/2");
}
