//! The metrics of the system, for dashboards and alarms.

use std::collections::BTreeSet;

use cairn_local::aws;
use serde_json::{Value, json};

use crate::{
    fixture::{order, template},
    forget::Lines,
    still::StillShop,
};

fn sum(shop: &StillShop, name: &str) -> u64 {
    let metrics = shop.platform.metrics();
    metrics.iter().filter_map(|line| line[name].as_u64()).sum()
}

fn consumers(shop: &StillShop) -> BTreeSet<String> {
    let metrics = shop.platform.metrics();
    let lags = metrics.iter().filter(|line| line["ConsumerLag"].is_u64());
    lags.map(|line| line["Consumer"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_consumer_says_how_far_it_is_behind_and_fulfilments_are_counted_by_their_end() {
    let shop = StillShop::open();
    let price = json!({ "price": { "amount": 1250, "currency": "EUR" } });
    assert_eq!(shop.send("PUT", "/products/TEA-01", &price).await.0, 200);
    let done = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.until(&done, "completed").await;
    let declined = shop.place(&order("TEA-01", 1, "tok_declined")).await;
    shop.until(&declined, "aborted").await;
    shop.system.settled().await;
    assert_eq!(sum(&shop, "FulfilmentsCompleted"), 1);
    assert_eq!(sum(&shop, "FulfilmentsAborted"), 1);
    let heard = consumers(&shop);
    for function in &template().functions {
        let id = function.id.as_str();
        let is_consumer = function.rules().next().is_some();
        // No cancellation occurred during a fulfilment.
        let has_work = id != "UnwindOrderFunction";
        assert!(
            !is_consumer || !has_work || heard.contains(id),
            "{id}: {heard:?}"
        );
    }
    assert!(shop.platform.metric("RelayLag").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_metric_has_its_function_and_its_unit() {
    let shop = StillShop::open();
    shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.system.settled().await;
    let metrics = shop.platform.metrics();
    let find = |name: &str| metrics.iter().find(|line| !line[name].is_null()).unwrap();
    let shape = |line: &Value| line["_aws"]["CloudWatchMetrics"][0].clone();
    assert_eq!(
        shape(find("RelayLag")),
        json!({
            "Namespace": "Cairn",
            "Dimensions": [["Stack"]],
            "Metrics": [{ "Name": "RelayLag", "Unit": "Milliseconds" }],
        })
    );
    let lag = find("ConsumerLag");
    assert_eq!(
        shape(lag)["Dimensions"],
        json!([["Stack"], ["Stack", "Consumer"]])
    );
    assert_eq!(lag["Stack"], "cairn");
    // The line also has fields to find an event in the log.
    assert_eq!(lag["Outcome"], "applied");
    assert!(lag["Event"].as_str().unwrap().contains('@'), "{lag}");
}

#[tokio::test(start_paused = true)]
async fn a_late_delivery_is_seen_as_lag() {
    let worst = |shop: &StillShop| {
        let metrics = shop.platform.metrics();
        let lags = metrics
            .iter()
            .filter_map(|line| line["ConsumerLag"].as_u64());
        lags.max().unwrap()
    };
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    assert_eq!(worst(&shop), 1_000, "no lag but the window of sales");
    *shop.platform.unreachable.lock().unwrap() = 1;
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    assert!(worst(&shop) > 1_000);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_another_was_faster_than_is_counted() {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.until(&id, "completed").await;
    shop.system.settled().await;
    let before = sum(&shop, "Conflicts");
    // The function that received the first units has cached the stream as of that time.
    let receipt = json!({ "quantity": 5 });
    shop.send("POST", "/stock/TEA-01/receipts", &receipt).await;
    assert!(sum(&shop, "Conflicts") > before);
}

fn call(shop: &StillShop, operation: &str, request: &Value) -> Value {
    let target = format!("DynamoDB_20120810.{operation}");
    let request = request.to_string();
    let call = aws::Call::new(&target, request.as_bytes());
    let answer = shop.system.aws.call("test", &call);
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn both_stream_consumers_count_and_log_a_changed_and_a_removed_commit_and_do_nothing() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    assert_eq!(
        sum(&shop, "HistoryChanged"),
        0,
        "an order changes no history"
    );
    let published = shop.platform.metrics().len();
    let deadlines = shop.items("DeadlinesTable");
    let key = json!({ "stream": { "S": format!("order-{id}") }, "version": { "N": "1" } });
    let at = json!({ "TableName": "EventsTable", "Key": key });
    let mut item = call(&shop, "GetItem", &at)["Item"].take();
    item["correlation"] = json!({ "S": "by hand" });
    call(
        &shop,
        "PutItem",
        &json!({ "TableName": "EventsTable", "Item": item }),
    );
    call(&shop, "DeleteItem", &at);
    shop.system.settled().await;
    assert_eq!(sum(&shop, "HistoryChanged"), 2 * 2);
    let consumed = shop.platform.metrics().split_off(published);
    assert!(
        consumed.iter().all(|line| line["ConsumerLag"].is_null()),
        "{consumed:?}"
    );
    let logged = lines.text();
    let logged: Vec<Value> = logged
        .lines()
        .filter(|line| line.contains("history changed"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for consumer in ["RelayEventsFunction", "TrackDeadlinesFunction"] {
        let by = |line: &&Value| {
            let name = line["span"]["function_name"].as_str().unwrap();
            name.ends_with(consumer)
        };
        let own = logged.iter().filter(by);
        let operations: Vec<_> = own.map(|line| &line["fields"]["operation"]).collect();
        assert_eq!(operations, ["MODIFY", "REMOVE"], "{consumer}");
    }
    assert_eq!(shop.items("DeadlinesTable"), deadlines);
    assert_eq!(shop.depth("StreamFailuresQueue"), 0);
    for line in &logged {
        let fields = &line["fields"];
        assert_eq!(
            (&fields["stream"], &fields["version"]),
            (&json!(format!("order-{id}")), &json!("1"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_fulfilment_leaves_its_order_in_the_list_without_steps_and_is_counted() {
    let shop = StillShop::open();
    let mut ids = vec![];
    for (token, end) in [
        ("tok_visa", "completed"),
        ("tok_visa", "completed"),
        ("tok_declined", "aborted"),
    ] {
        let id = shop.place(&order("TEA-01", 1, token)).await;
        shop.until(&id, end).await;
        ids.push(id);
    }
    for id in &ids[1..] {
        let stream = format!("fulfilment-{id}");
        let commits = shop.items("EventsTable").into_iter();
        let versions = commits
            .filter(|commit| commit["stream"] == *stream)
            .filter_map(|commit| commit["version"].as_u64());
        let text = |text: &str| json!({ "S": text });
        let event =
            json!({ "M": { "type": text("Unknown"), "schema": { "N": "1" }, "data": text("{}") } });
        let item = json!({
            "stream": text(&stream), "version": { "N": (versions.max().unwrap() + 1).to_string() },
            "commit": text("c"), "at": text("2027-01-15T08:00:00.000Z"), "correlation": text("c"),
            "events": { "L": [event] },
        });
        let put = json!({ "TableName": "EventsTable", "Item": item }).to_string();
        let call = aws::Call::new("DynamoDB_20120810.PutItem", put.as_bytes());
        assert_eq!(shop.system.aws.call("test", &call).status, 200);
    }
    let path = "/customers/c-42/orders";
    let (status, body) = shop.send("GET", path, &Value::Null).await;
    assert_eq!(status, 200, "{body}");
    let orders = body["orders"].as_array().unwrap();
    let listed = |id: &str| orders.iter().find(|order| order["orderId"] == id).unwrap();
    let [readable, confirmed, cancelled] = [&ids[0], &ids[1], &ids[2]].map(|id| listed(id));
    let steps = readable["fulfilment"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6, "{readable}");
    for (order, status, fulfilment) in [
        (confirmed, "confirmed", "completed"),
        (cancelled, "cancelled", "stuck"),
    ] {
        let expected = json!({ "status": fulfilment, "steps": [] });
        assert_eq!(
            (&order["status"], &order["fulfilment"]),
            (&json!(status), &expected)
        );
    }
    assert_eq!(sum(&shop, "UnreadableFulfilments"), 2);
}
