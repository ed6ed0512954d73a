//! One trace for each request, on the bus and in the log of the functions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, order},
    forget::Lines,
    still::StillShop,
};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The sampling decision of the first function applies to all entries.
#[tokio::test(flavor = "multi_thread")]
async fn the_entries_of_an_order_on_the_bus_have_one_trace() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    system.settled().await;
    let headers = [("traceparent", TRACEPARENT)];
    let sampled = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
    for (headers, expected) in [(&[][..], None), (&headers[..], Some(sampled))] {
        let mut events = system.system.composition.aws.bus.watch();
        let body = order("TEA-01", 1, "tok_visa");
        let placed = system.client.post("/orders", headers, &body).await.unwrap();
        system.settled().await;
        let (mut kinds, mut traces) = (BTreeSet::new(), BTreeSet::new());
        while let Ok(event) = events.try_recv() {
            kinds.insert(event.kind);
            traces.insert(event.trace.unwrap());
        }
        assert!(
            kinds.contains("OrderPlaced") && kinds.contains("FulfilmentCompleted"),
            "{placed:?}"
        );
        let traces: Vec<_> = traces.iter().map(String::as_str).collect();
        match (expected, traces.as_slice()) {
            (Some(expected), traces) => assert_eq!(traces, [expected]),
            (None, [one]) => assert!(one.starts_with("Root=1-") && one.ends_with(";Sampled=0")),
            (None, traces) => panic!("{traces:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_line_of_a_function_names_its_invocation_and_its_trace() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let shop = StillShop::open();
    let headers = [
        ("x-correlation-id", "visit-0815"),
        ("traceparent", TRACEPARENT),
    ];
    let receipt = json!({ "quantity": 5 });
    shop.send("POST", "/stock/TEA-01/receipts", &receipt).await;
    let body = order("TEA-01", 1, "tok_visa");
    let (_, _, placed) = shop.send_with("POST", "/orders", &headers, &body).await;
    shop.system.settled().await;
    for _ in 0..2 {
        shop.order(placed["orderId"].as_str().unwrap()).await;
    }
    let (mut starts, mut consumers) = (vec![], BTreeSet::new());
    for line in lines.text().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let span = &line["span"];
        // The local system has lines of its own.
        if span["name"] != "invocation" {
            continue;
        }
        assert_eq!(span["service"], "cairn", "{line}");
        let name = span["function_name"].as_str().unwrap();
        assert!(
            name.starts_with("cairn-") && name.ends_with("Function"),
            "{line}"
        );
        assert!(span["function_request_id"].is_string(), "{line}");
        if name == "cairn-GetOrderFunction" {
            starts.push(span["cold_start"].as_bool().unwrap());
        }
        let trace = span["xray_trace_id"].as_str().unwrap();
        if span["event"].is_string() && span["correlation"] == "visit-0815" {
            // The events of a batch have several traces.
            if name != "cairn-ProjectSalesFunction" {
                assert_eq!(trace, "1-0af76519-16cd43dd8448eb211c80319c", "{line}");
            }
            assert_eq!(span["traceparent"], TRACEPARENT, "{line}");
            consumers.insert(name.to_owned());
        }
    }
    assert!(consumers.len() > 5, "{consumers:?}");
    assert_eq!(starts, [true, false]);
}
