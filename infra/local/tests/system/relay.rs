//! A record that a stream consumer cannot handle becomes a dead letter and blocks no other record.
//! An unavailable bus creates no dead letter.

use std::time::Duration;

use cairn::dead_letter::DeadLetter;
use cairn_aws::functions::{self as ready_made, deadline_tracker};
use cairn_local::Functions;
use orders_local::functions;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{fixture::order, redrive::put_record, still::StillShop};

const QUEUE: &str = "StreamFailuresQueue";
const RELAY: &str = "RelayEventsFunction";
const TRACKER: &str = "TrackDeadlinesFunction";
const REDRIVE: &str = "RedriveDeadLettersFunction";

/// The event before the first order: the first units of its SKU.
const FIRST: &str = "StockReceived";

fn letters(shop: &StillShop) -> Vec<DeadLetter> {
    let messages = shop.system.aws.queues.messages(QUEUE).unwrap();
    let parse = |(body, attributes): &(String, _)| DeadLetter::parse(body, attributes).unwrap();
    messages.iter().map(parse).collect()
}

/// Asserts that the first units of the SKU are the only dead letter, of this function.
#[track_caller]
fn has_one_letter(shop: &StillShop, function: &str, error: &str) {
    let letters = letters(shop);
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert!(letter.is_for(function), "{letter:?}");
    assert!(letter.error.contains(error), "{letter:?}");
    assert_eq!(letter.event_ref, Some(("stock-TEA-01".parse().unwrap(), 1)));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_bus_rejects_is_a_dead_letter_and_later_events_flow() {
    // With the last code, the bus rejects the whole call.
    for code in ["MalformedDetail", "InvalidArgument", "ValidationException"] {
        let shop = StillShop::open();
        *shop.platform.refused.lock().unwrap() = Some((FIRST.to_owned(), code));
        let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
        shop.until(&id, "completed").await;
        has_one_letter(&shop, RELAY, code);
        let refusals = *shop.platform.refusals.lock().unwrap();
        assert!(refusals <= 2, "{code}: {refusals} attempts");

        // A redrive before the fix leaves the dead letter, and one after it publishes the event.
        shop.invoke(REDRIVE, &json!({})).await;
        shop.system.settled().await;
        has_one_letter(&shop, RELAY, code);
        *shop.platform.refused.lock().unwrap() = None;
        let mut events = shop.system.aws.bus.watch();
        shop.invoke(REDRIVE, &json!({})).await;
        shop.system.settled().await;
        assert_eq!(events.try_recv().unwrap().kind, FIRST, "{code}");
        assert_eq!(shop.depth(QUEUE), 0, "{code}");
    }
}

/// Waits until the bus has refused more than ten entries.
async fn many_refusals(shop: &StillShop) {
    while *shop.platform.refusals.lock().unwrap() <= 10 {
        assert!(shop.platform.elapsed() < Duration::from_hours(1));
        sleep(Duration::from_secs(1)).await;
    }
}

/// One event waits for the bus on its own, so no other entry shows that the bus works.
#[tokio::test(start_paused = true)]
async fn an_unavailable_bus_moves_no_record_into_the_queue() {
    for code in [
        "InternalFailure",
        "ThrottlingException",
        "AccessDeniedException",
        "NotAuthorizedForSourceException",
        "CodeOfTheFuture",
    ] {
        let shop = StillShop::open();
        *shop.platform.refused.lock().unwrap() = Some((String::new(), code));
        let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
        many_refusals(&shop).await;
        assert_eq!(shop.depth(QUEUE), 0, "{code}");
        *shop.platform.refused.lock().unwrap() = None;
        shop.until(&id, "completed").await;
        assert_eq!(shop.depth(QUEUE), 0, "{code}");
    }
}

/// The commit of the first units of a SKU.
fn received(sku: &str) -> Value {
    json!({
        "stream": { "S": format!("stock-{sku}") }, "version": { "N": "1" },
        "commit": { "S": sku }, "at": { "S": "2027-01-15T08:00:00.000Z" },
        "correlation": { "S": "test" },
        "events": { "L": [{ "M": { "type": { "S": FIRST }, "schema": { "N": "1" },
            "data": { "S": "{\"quantity\":1}" } } }] },
    })
}

#[tokio::test(start_paused = true)]
async fn an_invalid_entry_fails_no_other_entry_of_its_call() {
    let shop = StillShop::open();
    let mut events = shop.system.aws.bus.watch();
    *shop.platform.refused.lock().unwrap() =
        Some(("stock-COFFEE-01".to_owned(), "ValidationException"));
    for sku in ["TEA-01", "COFFEE-01", "CUP-01"] {
        put_record(&shop, &received(sku));
    }
    shop.system.settled().await;
    for sku in ["TEA-01", "CUP-01"] {
        let event = events.try_recv().unwrap();
        assert!(event.detail.contains(sku), "{event:?}");
    }
    let letters = letters(&shop);
    let subjects: Vec<_> = letters.iter().map(|letter| &letter.event_ref).collect();
    assert_eq!(subjects, [&Some(("stock-COFFEE-01".parse().unwrap(), 1))]);
}

/// An unavailable bus makes Lambda deliver a batch again. The unreadable record in it has one dead
/// letter of each consumer.
#[tokio::test(start_paused = true)]
async fn an_unreadable_record_in_a_retried_batch_has_one_dead_letter() {
    let shop = StillShop::open();
    *shop.platform.refused.lock().unwrap() = Some((FIRST.to_owned(), "InternalFailure"));
    put_record(&shop, &received("TEA-01"));
    let unreadable = json!({ "stream": { "S": "stock-CUP-01" }, "version": { "N": "1" } });
    put_record(&shop, &unreadable);
    many_refusals(&shop).await;
    *shop.platform.refused.lock().unwrap() = None;
    shop.system.settled().await;
    let mut of: Vec<_> = letters(&shop)
        .into_iter()
        .map(|letter| letter.function)
        .collect();
    of.sort();
    let [one, other] = of.as_slice() else {
        panic!("{of:?}");
    };
    assert!(one.contains(RELAY) && other.contains(TRACKER), "{of:?}");
}

fn panicking_relay(kind: &'static str) -> Functions {
    functions().with("relay-events", move |app| {
        ready_made::relay(app, move |event| {
            assert!(event.event.name != kind, "test panic");
            None
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_record_at_which_a_consumer_panics_is_a_dead_letter_and_later_events_flow() {
    let tracker = functions().with("track-deadlines", |app| {
        deadline_tracker::track(app, |event| {
            assert!(event.event.name != FIRST, "test panic");
            Ok(None)
        })
    });
    for (functions, function) in [(panicking_relay(FIRST), RELAY), (tracker, TRACKER)] {
        let shop = StillShop::with(functions);
        let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
        shop.until(&id, "completed").await;
        has_one_letter(&shop, function, "test panic");
    }
}
