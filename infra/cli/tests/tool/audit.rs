//! `cairn audit`.

use std::{fs, path::Path};

use cairn::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn a_system_in_which_all_is_well_has_status_0() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    let said = system.run(&["audit", "--settle", "0"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.ends_with("Nothing is wrong.\n"), "{said:?}");
    let report = system.json(&["audit", "--settle", "0"], 0).await;
    assert_eq!(
        (&report["found"], &report["findings"]),
        (&json!(0), &json!([]))
    );
    assert_eq!(report["rows"]["orders"]["compared"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_named_with_status_1() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    let edit = json!({
        "TableName": "OrdersTable",
        "Key": { "orderId": { "S": id } },
        "UpdateExpression": "SET customerId = :other",
        "ExpressionAttributeValues": { ":other": { "S": "c-13" } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &edit);
    let said = system.run(&["audit"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    let line = format!("orders {id}: differs from its events in: customerId");
    assert_eq!(said.out.lines().next(), Some(line.as_str()), "{said:?}");
    assert!(said.out.ends_with("1 finding\n"), "{said:?}");
    let report = system.json(&["audit"], 1).await;
    assert_eq!(report["findings"][0]["kind"], "row-differs");
    let stock = system.json(&["audit", "--projection", "stock"], 0).await;
    assert_eq!(stock["rows"].as_object().unwrap().len(), 1, "{stock}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_there_is_not_is_refused_with_status_2() {
    let system = Fixture::start().await;
    let said = system.run(&["audit", "--projection", "customers"]).await;
    assert_eq!((said.status, said.out.as_str()), (2, ""), "{said:?}");
}

/// Writes an incremental export as DynamoDB does: the changes of the event table in a window. It
/// has the items of these streams.
fn export(folder: &Path, system: &Fixture, streams: &[&str], from: &str, to: &str) {
    let items = system.system.composition.aws.dynamo.items("EventsTable");
    let of = |item: &Value| streams.iter().any(|stream| item["stream"] == *stream);
    let changes: Vec<_> = items.into_iter().filter(of).collect();
    let lines: Vec<_> = changes
        .iter()
        .map(|item| {
            json!({
                "Metadata": { "WriteTimestampMicros": { "N": "1764460800000000" } },
                "Keys": {
                    "stream": { "S": item["stream"] },
                    "version": { "N": item["version"].to_string() },
                },
            })
            .to_string()
        })
        .collect();
    let data = folder.parent().unwrap().join("data");
    fs::create_dir_all(folder).unwrap();
    fs::create_dir_all(&data).unwrap();
    let name = format!("{}.json", folder.file_name().unwrap().to_str().unwrap());
    fs::write(data.join(&name), lines.join("\n")).unwrap();
    let file = |count: usize, name: &str| {
        let key = format!("nightly/AWSDynamoDB/data/{name}.gz");
        json!({ "itemCount": count, "dataFileS3Key": key }).to_string()
    };
    let files = [file(lines.len(), &name), file(0, "empty.json")];
    fs::write(folder.join("manifest-files.json"), files.join("\n")).unwrap();
    let summary = json!({
        "tableArn": "arn:aws:dynamodb:us-east-1:123456789012:table/EventsTable",
        "outputFormat": "DYNAMODB_JSON", "exportType": "INCREMENTAL_EXPORT",
        "exportFromTime": from, "exportToTime": to,
    });
    fs::write(folder.join("manifest-summary.json"), summary.to_string()).unwrap();
}

/// Changes the row of an order, so that it differs from its events.
fn damage(system: &Fixture, order: &str) {
    let edit = json!({
        "TableName": "OrdersTable",
        "Key": { "orderId": { "S": order } },
        "UpdateExpression": "SET customerId = :other",
        "ExpressionAttributeValues": { ":other": { "S": "c-13" } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &edit);
}

/// The mark, or null.
fn mark(system: &Fixture) -> Value {
    let key = json!({ "readModel": { "S": "#audit" }, "item": { "S": "clean" } });
    let get = json!({ "TableName": "ReadModelsTable", "Key": key });
    system.aws("DynamoDB_20120810.GetItem", &get)["Item"]["clean"]["S"].clone()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_of_an_export_finds_the_faults_of_changed_streams_only() {
    let (system, folder) = (Fixture::start().await, TempDir::new().unwrap());
    system.receive("TEA-01", 3).await;
    let (old, new) = (
        system.fulfil("tok_visa").await,
        system.fulfil("tok_visa").await,
    );
    let streams = ["order", "payment", "fulfilment"].map(|kind| format!("{kind}-{new}"));
    let streams: Vec<_> = streams.iter().map(String::as_str).collect();
    let night = folder.path().join("night");
    let (from, to) = ("2026-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z");
    export(&night, &system, &streams, from, to);
    damage(&system, &old);
    let arguments = ["audit", "--settle", "0", "--export", text(&night)];
    let report = system.json(&arguments, 0).await;
    assert_eq!(report["streams"], 3, "{report}");
    assert_eq!(report["rows"]["orders"]["compared"], 1, "{report}");
    assert_eq!(report["covers"]["from"], from, "{report}");
    let said = system.run(&arguments).await;
    let omitted = "not audited: the streams that did not change and their rows, and orphan rows\n\
                   not audited: the counters of sales\n\
                   Nothing is wrong in the audited data.\n";
    assert!(said.out.ends_with(omitted), "{said:?}");

    damage(&system, &new);
    let report = system.json(&arguments, 1).await;
    assert_eq!(report["found"], 1, "{report}");
    assert_eq!(report["findings"][0]["key"], new, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_an_audit_find_what_a_whole_audit_finds() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 9).await;
    let mut orders = vec![];
    for _ in 0..4 {
        orders.push(system.fulfil("tok_visa").await);
    }
    for order in &orders {
        damage(&system, order);
    }
    let whole = system.json(&["audit", "--settle", "0"], 1).await;
    let (mut streams, mut found) = (0, vec![]);
    for part in ["1/3", "2/3", "3/3"] {
        let said = system
            .run(&["audit", "--settle", "0", "--part", part, "--json"])
            .await;
        let report: Value = serde_json::from_str(&said.out).unwrap();
        let number: u64 = part[..1].parse().unwrap();
        let other = json!({ "kind": "other-parts", "part": number, "of": 3 });
        let counters = json!({ "kind": "counters", "projection": "sales" });
        assert_eq!(report["omitted"], json!([other, counters]), "{report}");
        assert_eq!(report["covers"], Value::Null, "{report}");
        streams += report["streams"].as_u64().unwrap();
        found.extend(report["findings"].as_array().unwrap().clone());
    }
    assert_eq!(whole["streams"], streams);
    let keys = |findings: &[Value]| {
        let mut keys: Vec<_> = findings
            .iter()
            .map(|found| found["key"].to_string())
            .collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(whole["findings"].as_array().unwrap()), keys(&found));
    assert_eq!(found.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_moves_only_over_time_in_which_every_change_was_audited() {
    let (system, folder) = (Fixture::start().await, TempDir::new().unwrap());
    system.receive("TEA-01", 3).await;
    let order = system.fulfil("tok_visa").await;
    let stream = format!("order-{order}");
    let export = |name: &str, from: &str, to: &str| {
        let folder = folder.path().join(name);
        self::export(&folder, &system, &[&stream], from, to);
        folder
    };
    let far = "2999-01-01T00:00:00.000Z";
    let early = export("early", "2026-01-01T00:00:00.000Z", far);
    // Changes before the first whole audit are not audited.
    let with_mark = ["audit", "--settle", "0", "--mark", "--export", text(&early)];
    let said = system.run(&with_mark).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.err.contains("there is no mark"), "{said:?}");
    assert_eq!(mark(&system), Value::Null);

    let begun = Timestamp::now();
    let whole = system.json(&["audit", "--settle", "0", "--mark"], 0).await;
    let first = mark(&system);
    assert_eq!(whole["covers"], json!({ "to": first }));
    assert!(first.as_str().unwrap().parse::<Timestamp>().unwrap() >= begun);

    // An export ends when it was made, and its youngest commits are not judged yet.
    let said = system.run(&with_mark).await;
    assert_eq!(said.status, 0, "{said:?}");
    let second = mark(&system);
    assert!(
        first.as_str() < second.as_str() && second != far,
        "{second}"
    );

    // Time between the mark and an export is not audited.
    let late = export("late", "2998-01-01T00:00:00.000Z", far);
    let late = ["audit", "--settle", "0", "--mark", "--export", text(&late)];
    let said = system.run(&late).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.err.contains(second.as_str().unwrap()), "{said:?}");

    // Neither findings nor a part move it.
    damage(&system, &order);
    for arguments in [&with_mark[..], &["audit", "--settle", "0", "--mark"]] {
        assert_eq!(system.run(arguments).await.status, 1);
    }
    for option in ["--part=1/2", "--projection=stock"] {
        let said = system.run(&["audit", "--mark", option]).await;
        assert_eq!(said.status, 2, "{said:?}");
    }
    assert_eq!(mark(&system), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_incomplete_or_of_another_table_is_refused() {
    let (system, folder) = (Fixture::start().await, TempDir::new().unwrap());
    system.receive("TEA-01", 3).await;
    system.settled().await;
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let times = ["2026-01-01", "2026-01-02", "2026-01-03"].map(|day| format!("{day}T00:00:00Z"));
    let streams = ["stock-TEA-01"];
    export(&one, &system, &streams, &times[0], &times[1]);
    export(&two, &system, &streams, &times[1], &times[2]);
    let both = ["audit", "--settle", "0", "--export", text(&two), text(&one)];
    let report = system.json(&both, 0).await;
    let covers = json!({ "from": "2026-01-01T00:00:00.000Z", "to": "2026-01-03T00:00:00.000Z" });
    assert_eq!(report["covers"], covers);

    let refused = async |path: &Path, from: &str, to: &str| {
        let before = fs::read_to_string(path).unwrap();
        fs::write(path, before.replace(from, to)).unwrap();
        let said = system.run(&both).await;
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{said:?}");
        fs::write(path, before).unwrap();
        said.err
    };
    let summary = two.join("manifest-summary.json");
    let gap = refused(&summary, &times[1], "2026-01-02T00:00:01Z").await;
    assert!(
        gap.contains("changes from 2026-01-02T00:00:00.000Z"),
        "{gap}"
    );
    let other = refused(&summary, "table/EventsTable", "table/OrdersTable").await;
    assert!(other.contains("not of EventsTable"), "{other}");
    let full = refused(&summary, "exportFromTime", "exportTime").await;
    assert!(full.contains("not an incremental export"), "{full}");
    let data = folder.path().join("data/two.json");
    let short = refused(
        &two.join("manifest-files.json"),
        "\"itemCount\":1",
        "\"itemCount\":2",
    )
    .await;
    assert!(short.contains("1 of 2 items"), "{short}");
    fs::remove_file(data).unwrap();
    let said = system.run(&both).await;
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.err.contains("data/two.json"), "{said:?}");
}
