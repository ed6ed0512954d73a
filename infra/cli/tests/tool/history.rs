//! `cairn history`.

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_stream_are_shown_in_order() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.receive("TEA-01", 4).await;
    let said = system.run(&["history", "stock-TEA-01"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{said:?}");
    for (line, end) in lines
        .iter()
        .skip(1)
        .zip(["{\"quantity\":3}", "{\"quantity\":4}"])
    {
        assert!(
            line.contains("StockReceived") && line.ends_with(end),
            "{line}"
        );
    }
    let after = system
        .json(&["history", "stock-TEA-01", "--after", "1"], 0)
        .await;
    assert_eq!(after["events"].as_array().unwrap().len(), 1);
    assert_eq!(after["events"][0]["id"], "stock-TEA-01@2");
    assert_eq!(after["events"][0]["specversion"], "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_happened_to_an_order_is_found_by_its_id() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    let history = system.json(&["history", &id], 0).await;
    let events = history["events"].as_array().unwrap();
    let streams = ["order", "payment", "shipment", "fulfilment"];
    for stream in streams.map(|category| format!("{category}-{id}")) {
        assert!(
            events
                .iter()
                .any(|event| event["subject"] == stream.as_str()),
            "{stream}"
        );
    }
    assert_eq!(events.first().unwrap()["type"], "OrderPlaced");
    assert_eq!(events.last().unwrap()["type"], "FulfilmentCompleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nothing_happened_to_has_status_1() {
    let system = Fixture::start().await;
    let said = system
        .run(&["history", "order-2d6944f5-e237-4a33-9c67-ba4a44120b1b"])
        .await;
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("no events found for order-"), "{said:?}");
    let said = system
        .run(&["history", "stock-TEA-01", "--after", "9"])
        .await;
    assert_eq!(said.status, 1);
    let problem = "cairn: no events found for stock-TEA-01 after version 9\n";
    assert_eq!(said.err, problem);
}
