//! An audit finds manual damage, and nothing in a correct system.

use std::{cell::Cell, time::Duration};

use cairn::{
    Timestamp,
    audit::{Finding, Limits, Report, Scope, Window},
};
use cairn_aws::dynamodb::{Audit, AuditError};
use cairn_local::{Options, Template, client::Client};
use futures_util::future::join_all;
use orders_local::{audit, options};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, order, template},
    waiting::until,
};

/// Limits without tolerance, for systems in which no delivery is in progress.
const AT_ONCE: Limits = Limits {
    settle: Duration::ZERO,
    overdue: Duration::ZERO,
};

fn audit(fixture: &Fixture, limits: Limits) -> Audit {
    let operator = fixture.system.composition.operator();
    audit::audit(&operator, Timestamp::now(), limits).unwrap()
}

pub(crate) async fn report(fixture: &Fixture) -> Report {
    let audit = self::audit(fixture, AT_ONCE);
    audit.run(None).await.unwrap()
}

async fn findings(fixture: &Fixture) -> Vec<Value> {
    let report = report(fixture).await;
    assert_eq!(report.found, report.findings.len() as u64);
    let findings = report.findings.iter();
    findings
        .map(|finding| serde_json::to_value(finding).unwrap())
        .collect()
}

fn dynamodb(fixture: &Fixture, operation: &str, request: &Value) -> Value {
    fixture.aws(&format!("DynamoDB_20120810.{operation}"), request)
}

fn delete(fixture: &Fixture, table: &str, key: &Value) {
    let request = json!({ "TableName": table, "Key": key });
    dynamodb(fixture, "DeleteItem", &request);
}

fn edit(fixture: &Fixture, table: &str, key: &Value, attribute: &str, value: &Value) {
    let request = json!({
        "TableName": table,
        "Key": key,
        "UpdateExpression": "SET #attribute = :value",
        "ExpressionAttributeNames": { "#attribute": attribute },
        "ExpressionAttributeValues": { ":value": value },
    });
    dynamodb(fixture, "UpdateItem", &request);
}

fn commit_key(stream: &str, version: u64) -> Value {
    json!({ "stream": { "S": stream }, "version": { "N": version.to_string() } })
}

/// Starts a system with 100 units in stock and one completed order.
async fn quiet() -> (Fixture, String) {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 100).await;
    let order = fixture.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    assert_eq!(order["status"], "confirmed");
    let id = order["orderId"].as_str().unwrap().to_owned();
    (fixture, id)
}

#[tokio::test]
async fn nothing_is_found_in_a_system_that_rests() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 100).await;
    for token in ["tok_visa", "tok_declined", "tok_flaky"] {
        fixture.fulfil(&order("TEA-01", 1, token)).await;
    }
    let id = fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    let path = format!("/orders/{id}/cancel");
    fixture
        .post(&path, &json!({ "reason": "changed my mind" }))
        .await;
    fixture.settled().await;
    let report = report(&fixture).await;
    assert_eq!(report.findings, []);
    assert_eq!(report.events, fixture.history().len() as u64);
    // No read model follows payments and fulfilments; every other stream has at least one gate.
    let firsts = fixture
        .history()
        .into_iter()
        .filter(|event| event.version == 1);
    let unfollowed =
        firsts.filter(|event| ["payment", "fulfilment"].contains(&event.stream.category()));
    assert_eq!(report.streams_without_gate, unfollowed.count() as u64);
    assert_eq!(
        (
            report.rows["orders"].compared,
            report.rows["stock"].compared
        ),
        (4, 1)
    );
    assert_eq!(
        report.rows["sales"].compared,
        fixture.scan("SalesTable").len() as u64
    );
    assert!(report.rows.values().all(|rows| rows.skipped == 0));
}

/// Succeeds if the fulfilment of an order has ended; the error is its status.
async fn ended(http: &Client, path: &str) -> Result<(), Value> {
    let status = http.get(path).await.unwrap().body["fulfilment"]["status"].take();
    if status == "completed" || status == "aborted" {
        return Ok(());
    }
    Err(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_while_clients_place_orders() {
    let fixture = Fixture::start().await;
    fixture.receive("TEA-01", 1_000_000).await;
    let (done, orders_ended) = (Cell::new(false), Cell::new(0));
    let clients = (0..16).map(async |client| {
        let http = &fixture.client;
        let mut placed = 0;
        while !done.get() {
            let token = ["tok_visa", "tok_declined"][(client + placed) % 2];
            let answer = http.post("/orders", &[], &order("TEA-01", 1, token)).await;
            let answer = answer.unwrap();
            assert_eq!(answer.status, 201, "{}", answer.body);
            placed += 1;
            // Each client waits for its order to end. So nothing waits longer than the time to
            // settle, at any speed of the machine.
            let path = format!("/orders/{}", answer.body["orderId"].as_str().unwrap());
            until("the fulfilment ends", async || ended(http, &path).await).await;
            orders_ended.set(orders_ended.get() + 1);
        }
    });
    let audits = async {
        let mut compared = 0;
        for audit in 0..3 {
            // Each audit sees orders that the previous one did not see.
            until("orders end", async || match orders_ended.get() {
                ended if ended > 16 * audit => Ok(()),
                ended => Err(ended),
            })
            .await;
            // With a minute to settle, as for an operator: rows, counters and versions change
            // during the audit.
            let audit = self::audit(&fixture, Limits::default());
            let report = audit.run(None).await.unwrap();
            assert_eq!(report.findings, []);
            compared += report.rows.get("orders").map_or(0, |rows| rows.compared);
        }
        done.set(true);
        compared
    };
    let (compared, _) = tokio::join!(audits, join_all(clients));
    assert!(compared > 0);
    fixture.settled().await;
    assert_eq!(report(&fixture).await.findings, []);
}

#[tokio::test]
async fn a_gap_in_the_versions_of_a_stream_is_found() {
    let (fixture, id) = quiet().await;
    let stream = format!("fulfilment-{id}");
    delete(&fixture, "EventsTable", &commit_key(&stream, 3));
    let found = findings(&fixture).await;
    let gap = json!({ "kind": "gap", "stream": stream, "after": 2, "before": 4 });
    // The step that reserved the stock has a commit of the stock, too.
    let part = json!({
        "kind": "part-missing", "stream": "stock-TEA-01", "version": 2,
        "missing": format!("{stream}@3"),
    });
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&gap) && found.contains(&part), "{found:?}");
}

/// Returns the latest commit of a stream, with types.
fn latest(fixture: &Fixture, stream: &str) -> Value {
    let request = json!({
        "TableName": "EventsTable",
        "KeyConditionExpression": "#stream = :stream",
        "ExpressionAttributeNames": { "#stream": "stream" },
        "ExpressionAttributeValues": { ":stream": { "S": stream } },
        "ScanIndexForward": false,
        "Limit": 1,
    });
    dynamodb(fixture, "Query", &request)["Items"][0].clone()
}

/// No read model has the stream of the payment, and its other commits have no gap.
#[tokio::test]
async fn half_of_an_append_to_two_streams_is_found() {
    let (fixture, id) = quiet().await;
    let payment = latest(&fixture, &format!("payment-{id}"));
    let key = json!({ "stream": payment["stream"], "version": payment["version"] });
    delete(&fixture, "EventsTable", &key);
    let saga = payment["sibling"]["M"].clone();
    let version: u64 = saga["version"]["N"].as_str().unwrap().parse().unwrap();
    let part = json!({
        "kind": "part-missing", "stream": saga["stream"]["S"], "version": version,
        "missing": format!("payment-{id}@2"),
    });
    assert_eq!(findings(&fixture).await, std::slice::from_ref(&part));
    // Another commit with the same version is not the missing part.
    let mut other = payment.clone();
    other["commit"] = json!({ "S": "by hand" });
    other.as_object_mut().unwrap().remove("sibling");
    put(&fixture, &other);
    assert_eq!(findings(&fixture).await, [part]);
    delete(&fixture, "EventsTable", &key);
    put(&fixture, &payment);
    fixture.settled().await;
    assert_eq!(findings(&fixture).await, [] as [Value; 0]);
}

fn put(fixture: &Fixture, commit: &Value) {
    let request = json!({ "TableName": "EventsTable", "Item": commit });
    dynamodb(fixture, "PutItem", &request);
}

#[tokio::test]
async fn a_commit_that_is_missing_at_the_end_of_its_stream_is_found_by_the_row_that_knew_it() {
    let (fixture, _) = quiet().await;
    let last = fixture.scan("StockTable")[0]["version"].as_u64().unwrap();
    delete(&fixture, "EventsTable", &commit_key("stock-TEA-01", last));
    let ahead = json!({
        "kind": "row-ahead", "projection": "stock", "key": "TEA-01",
        "stream": "stock-TEA-01", "at": last, "head": last - 1,
    });
    let found = findings(&fixture).await;
    assert!(found.contains(&ahead), "{found:?}");
}

#[tokio::test]
async fn a_changed_stream_that_lost_its_last_commit_is_found_by_the_rows_and_gates_that_knew_it() {
    let (fixture, id) = quiet().await;
    let stream = format!("order-{id}");
    delete(&fixture, "EventsTable", &commit_key(&stream, 2));
    let scope = Scope::Changed {
        streams: [stream.parse().unwrap()].into(),
        window: Window {
            from: None,
            to: Timestamp::now(),
        },
    };
    let audit = self::audit(&fixture, AT_ONCE).examining(scope);
    let report = audit.run(None).await.unwrap();
    let gate = format!("gate#{stream} gate");
    let ahead = [("orders", id), ("sales", gate)].map(|(projection, key)| Finding::RowAhead {
        projection: projection.to_owned(),
        key,
        stream: stream.parse().unwrap(),
        at: 2,
        head: 1,
    });
    assert_eq!(report.findings, ahead);
}

#[tokio::test]
async fn what_is_no_commit_is_found() {
    let (fixture, _) = quiet().await;
    let mut item = commit_key("stock-POT-07", 1);
    item["note"] = json!({ "S": "by hand" });
    dynamodb(
        &fixture,
        "PutItem",
        &json!({ "TableName": "EventsTable", "Item": item }),
    );
    fixture.settled().await;
    let found = findings(&fixture).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["kind"], &found[0]["stream"]),
        (&json!("unreadable"), &json!("stock-POT-07"))
    );
}

/// A template without publication and without a watchdog.
fn silent() -> Template {
    let mut template = template();
    for function in &mut template.functions {
        if ["RelayEventsFunction", "WatchFulfilmentsFunction"].contains(&function.id.as_str()) {
            function.triggers.clear();
        }
    }
    template
}

async fn silenced() -> Fixture {
    Fixture::with_template(&silent(), options()).await
}

#[tokio::test]
async fn events_that_never_reached_the_bus_are_found() {
    let fixture = silenced().await;
    fixture.receive("TEA-01", 5).await;
    fixture.receive("TEA-01", 6).await;
    let id = fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    fixture.settled().await;
    let found = findings(&fixture).await;
    let of = |kind: &str| -> Vec<&Value> {
        found
            .iter()
            .filter(|finding| finding["kind"] == kind)
            .collect()
    };
    // Two read models would have the order if it had been published.
    let unpublished = of("unpublished");
    assert_eq!(unpublished.len(), 1, "{found:?}");
    assert_eq!(
        (
            &unpublished[0]["stream"],
            &unpublished[0]["from"],
            &unpublished[0]["to"]
        ),
        (&json!(format!("order-{id}")), &json!(1), &json!(1))
    );
    // Only one read model has the stock, so its row may be lost too.
    let missing = of("row-missing");
    assert_eq!(missing.len(), 1, "{found:?}");
    assert_eq!(
        (&missing[0]["key"], &missing[0]["head"]),
        (&json!("TEA-01"), &json!(2))
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[tokio::test]
async fn an_event_that_never_reached_the_bus_is_found_behind_others_that_have() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        data: Some(directory.path().to_owned()),
        ..options()
    };
    let fixture = Fixture::with(options.clone()).await;
    fixture.receive("TEA-01", 5).await;
    fixture.settled().await;
    fixture.system.stop().await;
    let fixture = Fixture::with_template(&silent(), options).await;
    fixture.receive("TEA-01", 7).await;
    fixture.settled().await;
    let found = findings(&fixture).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["kind"], "unpublished");
    assert_eq!((&found[0]["from"], &found[0]["to"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn what_is_younger_than_the_time_to_settle_is_not_missed_yet() {
    let fixture = silenced().await;
    fixture.receive("TEA-01", 5).await;
    fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    fixture.settled().await;
    let audit = self::audit(&fixture, Limits::default());
    let report = audit.run(None).await.unwrap();
    assert_eq!(report.findings, []);
}

#[tokio::test]
async fn a_row_that_differs_from_the_fold_is_found() {
    let (fixture, id) = quiet().await;
    let key = json!({ "orderId": { "S": id } });
    edit(
        &fixture,
        "OrdersTable",
        &key,
        "customerId",
        &json!({ "S": "c-13" }),
    );
    edit(
        &fixture,
        "OrdersTable",
        &key,
        "note",
        &json!({ "S": "by hand" }),
    );
    let differs = json!({
        "kind": "row-differs", "projection": "orders", "key": id,
        "attributes": ["customerId", "note"],
    });
    assert_eq!(findings(&fixture).await, [differs]);
    // Other read models are not audited.
    let audit = self::audit(&fixture, AT_ONCE);
    let report = audit.run(Some("stock")).await.unwrap();
    assert_eq!(report.findings, []);
}

#[tokio::test]
async fn counters_that_differ_from_the_fold_are_found() {
    let (fixture, _) = quiet().await;
    let rows = fixture.scan("SalesTable");
    let hour = rows
        .iter()
        .find(|row| row["partition"].as_str().unwrap().starts_with("hour#"))
        .unwrap();
    let key = json!({ "partition": { "S": hour["partition"] }, "row": { "S": hour["row"] } });
    edit(
        &fixture,
        "SalesTable",
        &key,
        "ordersPlaced",
        &json!({ "N": "2" }),
    );
    let found = findings(&fixture).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["kind"], "row-differs");
    assert_eq!(found[0]["attributes"], json!(["ordersPlaced"]));
    delete(&fixture, "SalesTable", &key);
    let found = findings(&fixture).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["kind"], "row-differs");
    let other =
        json!({ "partition": { "S": "hour#99" }, "row": { "S": "2026-01-01T00:00:00.000Z" } });
    edit(
        &fixture,
        "SalesTable",
        &other,
        "ordersPlaced",
        &json!({ "N": "1" }),
    );
    let found = findings(&fixture).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().any(|finding| finding["kind"] == "no-events"),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_row_that_is_missing_is_found() {
    let (fixture, id) = quiet().await;
    delete(&fixture, "OrdersTable", &json!({ "orderId": { "S": id } }));
    let found = findings(&fixture).await;
    let mut streams: Vec<_> = found
        .iter()
        .map(|finding| {
            assert_eq!(finding["kind"], "row-missing");
            assert_eq!(
                (&finding["projection"], &finding["key"]),
                (&json!("orders"), &json!(id))
            );
            finding["stream"].as_str().unwrap()
        })
        .collect();
    streams.sort_unstable();
    let expected = ["order", "shipment"].map(|category| format!("{category}-{id}"));
    assert_eq!(streams, expected);
}

#[tokio::test]
async fn a_row_that_no_event_leads_to_is_found() {
    let (fixture, _) = quiet().await;
    let item = json!({ "sku": { "S": "POT-07" }, "onHand": { "N": "1" } });
    dynamodb(
        &fixture,
        "PutItem",
        &json!({ "TableName": "StockTable", "Item": item }),
    );
    let unfounded = json!({ "kind": "no-events", "projection": "stock", "key": "POT-07" });
    assert_eq!(findings(&fixture).await, [unfounded]);
}

#[tokio::test]
async fn a_read_model_that_lost_its_last_event_is_behind() {
    let (fixture, id) = quiet().await;
    // Restores the earlier row, as a poisoned invocation leaves it.
    let key = json!({ "partition": { "S": format!("gate#order-{id}") }, "row": { "S": "gate" } });
    edit(
        &fixture,
        "SalesTable",
        &key,
        "version",
        &json!({ "N": "1" }),
    );
    let found = findings(&fixture).await;
    let behind: Vec<_> = found
        .iter()
        .filter(|finding| finding["kind"] == "behind")
        .collect();
    assert_eq!(behind.len(), 1, "{found:?}");
    assert_eq!(behind[0]["projection"], "sales");
    assert_eq!(
        (&behind[0]["at"], &behind[0]["head"]),
        (&json!(1), &json!(2))
    );
}

#[tokio::test]
async fn a_fulfilment_that_is_past_its_deadline_is_found() {
    let fixture = silenced().await;
    fixture.receive("TEA-01", 5).await;
    let id = fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    fixture.settled().await;
    let key = json!({ "stream": { "S": format!("fulfilment-{id}") } });
    edit(
        &fixture,
        "DeadlinesTable",
        &key,
        "at",
        &json!({ "S": "2026-01-01T00:00:00.000Z" }),
    );
    edit(
        &fixture,
        "DeadlinesTable",
        &key,
        "watch",
        &json!({ "S": "open#9" }),
    );
    let audit = self::audit(&fixture, Limits::default());
    let report = audit.run(None).await.unwrap();
    let overdue = Finding::Overdue {
        stream: format!("fulfilment-{id}").parse().unwrap(),
        version: 0,
        at: "2026-01-01T00:00:00.000Z".parse().unwrap(),
    };
    assert_eq!(report.findings, [overdue]);
    assert_eq!((report.open, report.stuck), (1, 0));
    // A fulfilment that needs manual action is the operator's.
    edit(
        &fixture,
        "DeadlinesTable",
        &key,
        "watch",
        &json!({ "S": "parked#9" }),
    );
    let report = audit.run(None).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((report.open, report.stuck), (0, 1));
}

#[tokio::test]
async fn an_order_whose_fulfilment_never_began_and_has_no_deadline_is_found() {
    let fixture = silenced().await;
    let id = fixture.place(&order("TEA-01", 1, "tok_visa")).await;
    fixture.settled().await;
    delete(
        &fixture,
        "DeadlinesTable",
        &json!({ "stream": { "S": format!("fulfilment-{id}") } }),
    );
    let found = findings(&fixture).await;
    let unwatched: Vec<_> = found
        .iter()
        .filter(|finding| finding["kind"] == "unwatched")
        .collect();
    assert_eq!(unwatched.len(), 1, "{found:?}");
    let streams = json!({ format!("order-{id}"): 1, format!("fulfilment-{id}"): 0 });
    assert_eq!(unwatched[0]["streams"], streams);
}

#[tokio::test]
async fn a_fulfilment_that_has_not_ended_and_has_no_deadline_is_found() {
    let (fixture, id) = quiet().await;
    // Removes the last commits, as a restore to an earlier time does: the payment is captured, the
    // order is not confirmed.
    let stream = format!("fulfilment-{id}");
    let history = fixture.history();
    let last = history
        .iter()
        .rfind(|event| event.stream.as_str() == stream)
        .unwrap();
    let item = fixture.scan("EventsTable").into_iter().find(|item| {
        item["stream"] == stream
            && item["version"].as_u64().unwrap() + item["events"].as_array().unwrap().len() as u64
                == last.version + 1
    });
    let first = item.unwrap()["version"].as_u64().unwrap();
    delete(&fixture, "EventsTable", &commit_key(&stream, first));
    delete(
        &fixture,
        "EventsTable",
        &commit_key(&format!("order-{id}"), 2),
    );
    let found = findings(&fixture).await;
    let unwatched: Vec<_> = found
        .iter()
        .filter(|finding| finding["kind"] == "unwatched")
        .collect();
    assert_eq!(unwatched.len(), 1, "{found:?}");
    let streams = json!({ format!("order-{id}"): 1, stream: first - 1 });
    assert_eq!(unwatched[0]["streams"], streams);
}

#[tokio::test]
async fn a_read_model_that_is_not_there_is_no_read_model() {
    let (fixture, _) = quiet().await;
    let audit = self::audit(&fixture, AT_ONCE);
    let error = audit.run(Some("customers")).await.unwrap_err();
    assert!(matches!(error, AuditError::Unknown(_)), "{error}");
}
