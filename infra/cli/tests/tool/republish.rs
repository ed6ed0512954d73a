//! `cairn republish`.

use serde_json::{Value, json};

use crate::{fixture::Fixture, sagas::stuck};

/// Deletes an item of a table, and returns it.
fn lose(system: &Fixture, table: &str, key: &Value) -> Value {
    let request = json!({ "TableName": table, "Key": key, "ReturnValues": "ALL_OLD" });
    let lost = system.aws("DynamoDB_20120810.DeleteItem", &request);
    assert!(lost["Attributes"].is_object(), "{table} had no {key}");
    lost["Attributes"].clone()
}

fn item(system: &Fixture, table: &str, key: &Value) -> Value {
    let request = json!({ "TableName": table, "Key": key });
    system.aws("DynamoDB_20120810.GetItem", &request)["Item"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_is_restored() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    let key = json!({ "orderId": { "S": id } });
    let row = lose(&system, "OrdersTable", &key);
    let streams = ["order", "payment", "shipment", "fulfilment"].map(|kind| format!("{kind}-{id}"));
    let streams: Vec<_> = streams.iter().map(String::as_str).collect();
    let report = system
        .json(&[&["republish"], streams.as_slice()].concat(), 0)
        .await;
    assert_eq!(
        report["republished"][0],
        json!({ "stream": streams[0], "events": 2 })
    );
    system.settled().await;
    assert_eq!(item(&system, "OrdersTable", &key), row);
    // Consumers that had applied the events have skipped them.
    system.json(&["audit", "--settle", "0"], 0).await;
    system.json(&["dead-letters", "list"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_deadline_is_restored() {
    let (system, id, _) = stuck().await;
    let stream = format!("fulfilment-{id}");
    let key = json!({ "stream": { "S": stream } });
    let deadline = lose(&system, "DeadlinesTable", &key);
    let said = system.run(&["republish", &stream]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(item(&system, "DeadlinesTable", &key), deadline);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_such_events_is_named_with_status_1() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let said = system
        .run(&["republish", "stock-TEA-01", "--after", "1"])
        .await;
    assert_eq!(said.status, 1, "{said:?}");
    assert_eq!(said.err, "cairn: no events found for stock-TEA-01\n");
}
