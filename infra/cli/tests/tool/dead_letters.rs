//! `cairn dead-letters`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::fixture::Fixture;

/// Starts a system with a dead letter: the predecessor of an event is missing, so its consumer
/// fails permanently.
async fn with_a_dead_letter() -> Fixture {
    let system = Fixture::start().await;
    let detail = json!({
        "specversion": "1.0", "id": "stock-CUP-02@2", "source": "cairn.orders",
        "type": "StockReceived", "subject": "stock-CUP-02", "time": "2026-11-23T09:30:00.000Z",
        "datacontenttype": "application/json", "dataschema": "StockReceived/1",
        "streamversion": 2, "correlationid": "test", "data": { "quantity": 7 },
    });
    let request = json!({ "Entries": [{
        "EventBusName": "cairn-orders", "Source": "cairn.orders",
        "DetailType": "StockReceived", "Detail": detail.to_string(),
    }] });
    system.aws("AWSEvents.PutEvents", &request);
    system.settled().await;
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_shown_and_redriven() {
    let system = with_a_dead_letter().await;
    let listed = system.json(&["dead-letters", "list"], 1).await;
    let letters = listed["deadLetters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{listed}");
    assert_eq!(letters[0]["function"], "ProjectStockFunction");
    assert_eq!(letters[0]["event"], "stock-CUP-02@2");
    assert_eq!(letters[0]["attempts"], 3);
    let id = letters[0]["message"].as_str().unwrap();

    // `list` does not hide the dead letter from the next call.
    let said = system.run(&["dead-letters", "list"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("ProjectStockFunction"), "{said:?}");
    let whole = system.json(&["dead-letters", "show", id], 0).await;
    assert_eq!(
        whole["body"]["requestPayload"]["detail"]["id"],
        "stock-CUP-02@2"
    );

    let unknown = system.run(&["dead-letters", "redrive", "nothing"]).await;
    assert_eq!(unknown.status, 1, "{unknown:?}");
    let none = system
        .json(
            &[
                "dead-letters",
                "redrive",
                "--function",
                "ProjectOrdersFunction",
            ],
            0,
        )
        .await;
    assert_eq!(none["redriven"], 0);

    let typo = ["dead-letters", "redrive", "--function", "ProjectOrdrs"];
    let refused = system.run(&typo).await;
    assert_eq!(
        (refused.status, refused.out.as_str()),
        (2, ""),
        "{refused:?}"
    );
    assert!(
        refused.err.contains("unknown function `ProjectOrdrs`"),
        "{refused:?}"
    );
    assert!(refused.err.contains("ProjectOrdersFunction"), "{refused:?}");

    system.receive("CUP-02", 5).await;
    system.receive("CUP-02", 7).await;
    system.settled().await;
    let redriven = system.json(&["dead-letters", "redrive", id], 0).await;
    assert_eq!(redriven["redriven"], 1);
    system.settled().await;
    let said = system.run(&["dead-letters", "list"]).await;
    assert_eq!(
        (said.status, said.out.as_str()),
        (0, "There are no dead letters.\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_redriven_has_a_reason() {
    let system = Fixture::start().await;
    let queues = &system.system.composition.aws.queues;
    queues
        .send("StreamFailuresQueue", "?", &BTreeMap::new())
        .unwrap();
    let listed = system.json(&["dead-letters", "list"], 1).await;
    assert_eq!(listed["deadLetters"][0]["queue"], "stream-failures");
    let error = listed["deadLetters"][0]["error"].as_str().unwrap();
    assert!(error.contains("cannot be redriven"), "{error}");
    let said = system.run(&["dead-letters", "redrive", "--all"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.starts_with("0 redriven.\n"), "{said:?}");
    let which = system.run(&["dead-letters", "redrive"]).await;
    assert_eq!(which.status, 2, "{which:?}");
}

/// Puts an item that is not a commit into the event table.
fn put_record(system: &Fixture, stream: &str) {
    let item = json!({ "stream": { "S": stream }, "version": { "N": "1" } });
    let put = json!({ "TableName": "EventsTable", "Item": item });
    system.aws("DynamoDB_20120810.PutItem", &put);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_no_reader_can_read_is_named_and_deleted_with_a_reason() {
    let system = Fixture::start().await;
    put_record(&system, "order-x");
    put_record(&system, "order-y");
    system.settled().await;
    let said = system.run(&["dead-letters", "redrive", "--all"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.starts_with("0 redriven.\n"), "{said:?}");
    assert!(said.out.contains("order-x@1 (sequence number "), "{said:?}");
    system.settled().await;
    let listed = system.json(&["dead-letters", "list"], 1).await;
    let letters = listed["deadLetters"].as_array().unwrap();
    let mut events: Vec<_> = letters.iter().map(|letter| &letter["event"]).collect();
    events.sort_by_key(ToString::to_string);
    assert_eq!(events, ["order-x@1", "order-y@1"], "{listed}");
    assert!(letters[0]["sequenceNumber"].is_string(), "{listed}");

    let delete = ["dead-letters", "delete", "--stream", "order-x"];
    let without = system.run(&delete).await;
    assert_eq!(without.status, 2, "{without:?}");
    let blank = system
        .run(&[&delete[..], &["--reason", " "]].concat())
        .await;
    assert_eq!(blank.status, 1, "{blank:?}");
    assert!(blank.err.contains("the reason is blank"), "{blank:?}");
    let reason = ["--reason", "written by hand"];
    let deleted = system.json(&[&delete[..], &reason].concat(), 0).await;
    assert_eq!(deleted["reason"], "written by hand");
    assert_eq!(deleted["deleted"][0]["stream"], "order-x", "{deleted}");
    let again = system.run(&[&delete[..], &reason].concat()).await;
    assert_eq!(again.status, 1, "{again:?}");

    let queues = &system.system.composition.aws.queues;
    let none = BTreeMap::new();
    queues.send("StreamFailuresQueue", "?", &none).unwrap();
    let all = [&["dead-letters", "delete", "--all"][..], &reason].concat();
    let said = system.run(&all).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("about order-y@1 (sequence"), "{said:?}");
    assert!(said.out.ends_with("2 deleted.\n"), "{said:?}");
    assert_eq!(queues.depth("StreamFailuresQueue").unwrap(), 0);
    let which = [&["dead-letters", "delete"][..], &reason].concat();
    assert_eq!(system.run(&which).await.status, 2);
}
