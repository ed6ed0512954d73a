//! The test events in `events/`: one for each function, each with an effect.

use std::path::PathBuf;

use orders_local::functions::FUNCTIONS;
use serde_json::Value;

use crate::fixture::{Fixture, template, template_file};

pub(crate) fn event(stem: &str) -> String {
    let file: PathBuf = template_file().with_file_name(format!("events/{stem}.json"));
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_takes_its_test_event() {
    let template = template();
    for (stem, _) in FUNCTIONS {
        // Each has a system of its own, so that its event is the first one handled.
        let system = Fixture::start().await;
        let function = template
            .functions
            .iter()
            .find(|function| function.stem == *stem)
            .unwrap();
        let answer = system
            .system
            .composition
            .invoke(&function.id, &event(stem))
            .await;
        let answer = answer.unwrap_or_else(|error| panic!("{stem}: {error}"));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if let Some(status) = answer.get("statusCode") {
            let status = status.as_u64().unwrap();
            assert!([200, 201, 404, 409].contains(&status), "{stem}: {answer}");
        }
        system.settled().await;
    }
}

/// An event that is not in the store must not reach a read model.
#[tokio::test(flavor = "multi_thread")]
async fn the_entries_for_put_events_reach_the_customer_and_no_read_model() {
    let system = Fixture::start().await;
    let entries: Value = serde_json::from_str(&event("put-events")).unwrap();
    let outstanding = system.system.composition.outstanding();
    let answer = system.aws(
        "AWSEvents.PutEvents",
        &serde_json::json!({ "Entries": entries }),
    );
    assert_eq!(answer["FailedEntryCount"], 0);
    assert!(outstanding.has_changed().unwrap(), "a function is invoked");
    system.settled().await;
    for table in ["OrdersTable", "StockTable", "SalesTable"] {
        assert!(system.scan(table).is_empty(), "{table}");
    }
    assert_eq!(
        system
            .system
            .composition
            .aws
            .queues
            .depth("DeadLettersQueue")
            .unwrap(),
        0
    );
}
