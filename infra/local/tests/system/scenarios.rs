//! Orders that succeed and orders that fail, each to its end.

use axum::http::StatusCode;
use cairn_local::{Options, aws::Seen, faults::Fault};
use orders_local::options;
use serde_json::{Value, json};

use crate::fixture::{self, Fixture, Holding, order, outcomes};

const STEPS: [&str; 6] = [
    "screen-order",
    "reserve-stock",
    "authorize-payment",
    "arrange-shipment",
    "capture-payment",
    "confirm-order",
];

/// Asserts that the first `done` steps were compensated, and that the next step failed.
#[track_caller]
fn unwound(order: &Value, done: usize) {
    let mut expected: Vec<_> = STEPS[..done]
        .iter()
        .map(|step| (*step, "compensated"))
        .collect();
    expected.push((STEPS[done], "failed"));
    assert_eq!(outcomes(order), expected);
    assert_eq!(order["status"], "cancelled");
    assert_eq!(order["fulfilment"]["status"], "aborted");
    assert!(order["cancellation"]["reason"].is_string());
}

async fn untouched(system: &Fixture, sku: &str, on_hand: u64) {
    let stock = system.stock(sku).await;
    assert_eq!(
        (&stock["onHand"], &stock["reserved"]),
        (&json!(on_hand), &json!(0))
    );
}

/// Returns the number of completed steps of an order's fulfilment, including compensated ones.
async fn completed(system: &Fixture, id: &str) -> usize {
    let events = system.events(id).await.into_iter();
    events
        .filter(|event| event.event.name == "StepCompleted")
        .count()
}

/// Returns the money that was captured and not refunded.
async fn kept_money(system: &Fixture, id: &str) -> i64 {
    let events = system.events(id).await;
    let count = |kind: &str| {
        events
            .iter()
            .filter(|event| event.event.name == kind)
            .count()
    };
    let promised = count("PaymentAuthorized") - count("PaymentVoided");
    let refunded = count("PaymentRefunded");
    i64::try_from(promised - refunded).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_order_is_confirmed_and_then_ships() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let confirmed = system.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    assert_eq!(outcomes(&confirmed), STEPS.map(|step| (step, "completed")));
    let id = confirmed["orderId"].as_str().unwrap();

    let shipped = system.post(&format!("/orders/{id}/ship"), &json!({})).await;
    assert_eq!(shipped.status, StatusCode::OK);
    system.settled().await;
    assert_eq!(system.order(id).await["status"], "shipped");
    untouched(&system, "TEA-01", 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_payment_cancels_the_order_and_releases_its_stock() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let order = system.fulfil(&order("TEA-01", 2, "tok_declined")).await;
    unwound(&order, 2);
    assert_eq!(order["cancellation"]["reason"], "payment declined");
    untouched(&system, "TEA-01", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_stock_for_every_line_nothing_is_reserved() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    system.receive("POT-07", 1).await;
    let mut body = order("TEA-01", 2, "tok_visa");
    let mut second = body["lines"][0].clone();
    second["sku"] = json!("POT-07");
    body["lines"].as_array_mut().unwrap().push(second);
    let order = system.fulfil(&body).await;
    unwound(&order, 1);
    assert_eq!(order["cancellation"]["reason"], "out of stock (POT-07)");
    untouched(&system, "TEA-01", 10).await;
    untouched(&system, "POT-07", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_screening_refuses_is_cancelled_before_anything_else() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 1_000).await;
    let mut suspicious = order("TEA-01", 1, "tok_visa");
    suspicious["customerId"] = json!("fraud-1");
    // 801 * 1250 is over a million minor units.
    for body in [suspicious, order("TEA-01", 801, "tok_visa")] {
        let order = system.fulfil(&body).await;
        unwound(&order, 0);
    }
    untouched(&system, "TEA-01", 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_carrier_refuses_gives_money_and_stock_back() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let mut body = order("TEA-01", 2, "tok_visa");
    body["shipTo"]["country"] = json!("XX");
    let order = system.fulfil(&body).await;
    unwound(&order, 3);
    untouched(&system, "TEA-01", 10).await;
    assert_eq!(
        kept_money(&system, order["orderId"].as_str().unwrap()).await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_in_passing_delays_an_order_and_loses_none() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let order = system.fulfil(&order("TEA-01", 1, "tok_flaky")).await;
    assert_eq!(order["status"], "confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_before_fulfilment_begins_leaves_nothing_to_undo() {
    const FIRST_STEP: &str = "ScreenOrderFunction";
    let platform = Holding::new(&[Fault::Duplicates, Fault::Disorder]);
    let system = Fixture::with(Options {
        platform: platform.clone(),
        ..options()
    })
    .await;
    system.receive("TEA-01", 10).await;
    for _ in 0..10 {
        platform.hold(FIRST_STEP);
        let mut events = system.system.watch();
        let id = system.place(&order("TEA-01", 1, "tok_visa")).await;
        let cancel = format!("/orders/{id}/cancel");
        let answer = system
            .post(&cancel, &json!({ "reason": "changed my mind" }))
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        let is_end = |seen: &Seen| seen.kind == "FulfilmentAborted" && seen.detail.contains(&id);
        fixture::event(&mut events, "the end of the fulfilment", is_end).await;
        platform.release(FIRST_STEP);
        system.settled().await;
        let order = system.order(&id).await;
        assert_eq!(order["status"], "cancelled");
        assert_eq!(order["fulfilment"]["status"], "aborted");
        assert_eq!(order["cancellation"]["reason"], "changed my mind");
        assert_eq!(completed(&system, &id).await, 0);
        assert_eq!(kept_money(&system, &id).await, 0);
    }
    untouched(&system, "TEA-01", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_at_any_moment_of_fulfilment_gives_everything_back() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    for step in STEPS {
        let mut events = system.system.watch();
        let id = system.place(&order("TEA-01", 1, "tok_visa")).await;
        let due = format!("{{\"step\":\"{step}\"");
        let stream = format!("\"fulfilment-{id}\"");
        // Cancels once the step's completion is on the bus.
        let is_completed = |seen: &Seen| {
            seen.kind == "StepCompleted"
                && seen.detail.contains(&stream)
                && seen.detail.contains(&due)
        };
        fixture::event(&mut events, step, is_completed).await;
        let cancel = format!("/orders/{id}/cancel");
        let answer = system
            .post(&cancel, &json!({ "reason": "changed my mind" }))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "at {step}");
        system.settled().await;
        let order = system.order(&id).await;
        assert_eq!(order["status"], "cancelled", "at {step}");
        assert_eq!(order["fulfilment"]["status"], "aborted", "at {step}");
        let undone = outcomes(&order);
        assert!(
            undone
                .iter()
                .all(|(_, outcome)| ["compensated", "failed"].contains(outcome)),
            "{undone:?}"
        );
        assert_eq!(kept_money(&system, &id).await, 0, "at {step}");
        untouched(&system, "TEA-01", 10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_order_that_is_cancelled_is_refunded_and_its_stock_comes_back() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let order = system.fulfil(&order("TEA-01", 3, "tok_visa")).await;
    let id = order["orderId"].as_str().unwrap();
    system
        .post(
            &format!("/orders/{id}/cancel"),
            &json!({ "reason": "too late" }),
        )
        .await;
    system.settled().await;
    let order = system.order(id).await;
    assert_eq!(order["fulfilment"]["status"], "aborted");
    assert_eq!(outcomes(&order), STEPS.map(|step| (step, "compensated")));
    assert!(order.get("shipment").is_none());
    untouched(&system, "TEA-01", 10).await;
    let names: Vec<_> = system
        .events(id)
        .await
        .into_iter()
        .map(|event| event.event.name)
        .collect();
    assert!(names.contains(&"PaymentRefunded".to_owned()));
}
