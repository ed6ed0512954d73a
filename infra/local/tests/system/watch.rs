//! Stuck fulfilments are found, at any fault of the bus and the providers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cairn::{
    Commit,
    audit::Limits,
    provider::{Call, ProviderError},
};
use cairn_local::{Platform as _, aws};
use futures_util::future::join_all;
use orders::{
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider, SandboxPayments},
    values::{Money, PaymentToken},
};
use orders_local::{audit::audit, functions, parts};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    fixture::{order, outcomes, template_with},
    forget::Lines,
    still::StillShop,
};

async fn cancel(shop: &StillShop, id: &str) {
    let body = json!({ "reason": "changed my mind" });
    let (status, body) = shop
        .send("POST", &format!("/orders/{id}/cancel"), &body)
        .await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_ends_in_a_cancelled_order_with_nothing_reserved_or_charged()
{
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 2, "tok_down")).await;
    let order = shop.until(&id, "aborted").await;
    assert_eq!(order["status"], "cancelled");
    assert_eq!(order["cancellation"]["reason"], "no outcome in time");
    let undone = ["screen-order", "reserve-stock", "authorize-payment"];
    assert_eq!(outcomes(&order), undone.map(|step| (step, "compensated")));
    let stock = shop.stock().await;
    assert_eq!(
        (&stock["onHand"], &stock["reserved"]),
        (&json!(10), &json!(0))
    );
    let events = shop.events(&id).await;
    let retried = events.iter().filter(|name| *name == "StepRetried");
    assert_eq!(retried.count(), 4);
    assert!(
        !events.iter().any(|name| name.starts_with("Payment")),
        "{events:?}"
    );
    // Five minutes, doubled after each retry.
    let step_timeout = Duration::from_mins(5 + 10 + 20 + 40 + 80);
    assert!((step_timeout..step_timeout * 2).contains(&shop.platform.elapsed()));
    assert!(shop.items("DeadlinesTable").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_first_delivery_is_lost_is_fulfilled_all_the_same() {
    let shop = StillShop::open();
    shop.platform
        .lost
        .lock()
        .unwrap()
        .insert("ScreenOrderFunction");
    let id = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.system.settled().await;
    assert_eq!(shop.events(&id).await, ["OrderPlaced"]);
    shop.platform.lost.lock().unwrap().clear();
    let order = shop.until(&id, "completed").await;
    assert_eq!(order["status"], "confirmed");
    assert!(shop.platform.elapsed() < Duration::from_mins(10));
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_delivery_is_lost_is_asked_for_again() {
    let shop = StillShop::open();
    shop.platform
        .lost
        .lock()
        .unwrap()
        .insert("CapturePaymentFunction");
    let id = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.system.settled().await;
    shop.platform.lost.lock().unwrap().clear();
    let order = shop.until(&id, "completed").await;
    assert_eq!(order["status"], "confirmed");
    assert!(shop.events(&id).await.contains(&"StepRetried".to_owned()));
    assert!(shop.items("DeadlinesTable").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_that_the_bus_loses_gives_everything_back_all_the_same() {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.until(&id, "completed").await;
    shop.platform
        .lost
        .lock()
        .unwrap()
        .insert("UnwindOrderFunction");
    cancel(&shop, &id).await;
    shop.system.settled().await;
    // The order shows that it will be compensated before its fulfilment has the cancellation.
    assert_eq!(
        shop.order(&id).await["fulfilment"]["status"],
        "compensating"
    );
    let noted = "FulfilmentCancellationNoted".to_owned();
    assert!(!shop.events(&id).await.contains(&noted));
    let order = shop.until(&id, "aborted").await;
    assert_eq!(order["cancellation"]["reason"], "changed my mind");
    assert!(
        shop.events(&id)
            .await
            .contains(&"PaymentRefunded".to_owned())
    );
    assert_eq!(shop.stock().await["onHand"], 10);
    tokio::time::sleep(Duration::from_hours(1)).await;
    shop.system.settled().await;
    assert!(shop.items("DeadlinesTable").is_empty());
}

/// Refuses refunds while the flag is set.
struct Stubborn(Arc<AtomicBool>);

impl PaymentProvider for Stubborn {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        SandboxPayments.authorize(call, token, amount).await
    }

    async fn capture(&self, _: Call<'_>, _: &Authorization) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn void(&self, _: Call<'_>, _: AuthorizationRequest<'_>) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn refund(&self, _: Call<'_>, _: &Authorization, _: &str) -> Result<(), ProviderError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(ProviderError::Permanent("call us".to_owned()));
        }
        Ok(())
    }
}

/// A shop with a stuck order: its payment cannot be refunded.
pub(crate) async fn stuck() -> (StillShop, String, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let provider = refuses.clone();
    let functions = functions().with("capture-payment", move |app| {
        capture_payment::with(app, Stubborn(provider.clone()))
    });
    let shop = StillShop::with(functions);
    let id = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.until(&id, "completed").await;
    cancel(&shop, &id).await;
    let order = shop.until(&id, "stuck").await;
    let steps = order["fulfilment"]["steps"].as_array().unwrap();
    let failed = steps
        .iter()
        .find(|step| step["step"] == "capture-payment")
        .unwrap();
    assert_eq!(failed["outcome"], "compensation-failed");
    assert_eq!(failed["detail"], "call us");
    (shop, id, refuses)
}

const WATCH: &str = "WatchFulfilmentsFunction";

#[tokio::test(start_paused = true)]
async fn money_that_the_sandbox_keeps_needs_manual_action() {
    let shop = StillShop::open();
    let mut order = order("TEA-01", 2, "tok_norefund");
    order["shipTo"]["country"] = "XX".into();
    let id = shop.place(&order).await;
    shop.until(&id, "stuck").await;
    for help in [
        json!({ "resume": id }),
        json!({ "abandon": id, "reason": "refunded by hand" }),
    ] {
        shop.invoke(WATCH, &help).await;
        shop.system.settled().await;
    }
    assert_eq!(shop.until(&id, "aborted").await["status"], "cancelled");
    assert_eq!(shop.stock().await["reserved"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_fulfilment_is_counted_until_people_resume_it() {
    let (shop, id, refuses) = stuck().await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(shop.platform.metric("StuckFulfilments"), Some(1));
    refuses.store(false, Ordering::Relaxed);
    let report = shop.invoke(WATCH, &json!({ "resume": id })).await;
    assert_eq!(report["complete"], true);
    let order = shop.until(&id, "aborted").await;
    assert_eq!(order["cancellation"]["reason"], "changed my mind");
    assert!(
        shop.events(&id)
            .await
            .contains(&"PaymentRefunded".to_owned())
    );
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(shop.platform.metric("StuckFulfilments"), Some(0));
    assert!(shop.items("DeadlinesTable").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_step_stays_and_the_rest_is_given_back() {
    let (shop, id, _) = stuck().await;
    let request = json!({ "abandon": id, "reason": "refunded by bank transfer" });
    shop.invoke(WATCH, &request).await;
    let order = shop.until(&id, "aborted").await;
    let outcomes = outcomes(&order);
    assert!(
        outcomes.contains(&("capture-payment", "compensation-failed")),
        "{outcomes:?}"
    );
    assert!(
        outcomes.contains(&("reserve-stock", "compensated")),
        "{outcomes:?}"
    );
    assert_eq!(shop.stock().await["onHand"], 10);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_stuck_can_be_resumed() {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.until(&id, "completed").await;
    for request in [
        json!({ "resume": id }),
        json!({ "abandon": id, "reason": "x" }),
    ] {
        let error = shop
            .system
            .invoke(WATCH, &request.to_string())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("is not stuck"), "{error}");
    }
    let error = shop
        .system
        .invoke(WATCH, &Value::Null.to_string())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("invalid request: expected"),
        "{error}"
    );
}

/// The tracker records each event of a stuck fulfilment, so a check seldom finds anything.
#[tokio::test(start_paused = true)]
async fn a_stuck_fulfilment_is_checked_every_hour_and_counted_every_minute() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let (shop, _, _) = stuck().await;
    let checks = || lines.text().matches("\"saga overdue\"").count();
    // The cancellation of the order has a deadline of its own, which is checked once.
    tokio::time::sleep(Duration::from_mins(30)).await;
    let before = checks();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(shop.platform.metric("StuckFulfilments"), Some(1));
    }
    let checked = checks() - before;
    assert!((4..=5).contains(&checked), "{checked} checks in five hours");
}

/// Stores due deadlines of streams that do not exist. All of them are in one partition of the
/// index.
fn add_deadlines(shop: &StillShop, category: &str, watch: &str, count: u128) {
    for number in 0..count {
        let stream = format!("{category}-{}", Uuid::from_u128(number));
        put_deadline(shop, &stream, watch, "");
    }
}

fn put_deadline(shop: &StillShop, stream: &str, watch: &str, padding: &str) {
    let item = json!({
        "stream": { "S": stream }, "watch": { "S": watch }, "version": { "N": "1" },
        "at": { "S": "2020-01-01T00:00:00.000Z" }, "padding": { "S": padding },
    });
    let put = json!({ "TableName": "DeadlinesTable", "Item": item }).to_string();
    let call = aws::Call::new("DynamoDB_20120810.PutItem", put.as_bytes());
    let answer = shop.system.aws.call("test", &call);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Several sagas can share the table; each has a watchdog of its own.
#[tokio::test(start_paused = true)]
async fn the_deadlines_of_another_saga_stay_and_are_not_counted() {
    let shop = StillShop::open();
    add_deadlines(&shop, "refund", "open#0", 3);
    add_deadlines(&shop, "transfer", "parked#0", 3);
    add_deadlines(&shop, "fulfilment", "parked#0", 1);
    let others = shop.items("DeadlinesTable").into_iter();
    let is_other = |row: &Value| !row["stream"].as_str().unwrap().starts_with("fulfilment-");
    let others: Vec<_> = others.filter(is_other).collect();
    let report = shop.invoke(WATCH, &json!({ "detail-type": "test" })).await;
    assert_eq!(report["stuck"], 1);
    assert_eq!(shop.items("DeadlinesTable"), others);
}

/// A page of a scan has at most 1 MB.
#[tokio::test(start_paused = true)]
async fn an_audit_reads_all_pages_of_deadlines() {
    let shop = StillShop::open();
    let padding = "x".repeat(300_000);
    for number in 0..8 {
        put_deadline(&shop, &format!("refund-{number}"), "open#0", &padding);
    }
    let (operator, now) = (shop.system.operator(), shop.platform.now());
    let audit = audit(&operator, now, Limits::default()).unwrap();
    assert_eq!(audit.run(None).await.unwrap().open, 8);
}

#[tokio::test(start_paused = true)]
async fn one_run_examines_all_pages_of_due_deadlines() {
    let shop = StillShop::open();
    add_deadlines(&shop, "order", "open#0", 450);
    let report = shop.invoke(WATCH, &json!({ "detail-type": "test" })).await;
    assert_eq!(
        (&report["complete"], &report["failed"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(shop.items("DeadlinesTable"), Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn all_stuck_fulfilments_are_counted() {
    let shop = StillShop::open();
    add_deadlines(&shop, "order", "parked#0", 450);
    let report = shop.invoke(WATCH, &json!({ "detail-type": "test" })).await;
    assert_eq!(report["stuck"], 450);
    assert_eq!(shop.platform.metric("StuckFulfilments"), Some(450));
}

/// The rest of a run that ends in time is left for the next one.
#[tokio::test(start_paused = true)]
async fn a_run_ends_before_its_timeout_and_the_next_one_continues() {
    let shop = StillShop::open();
    add_deadlines(&shop, "order", "open#0", 450);
    // Each deadline takes three calls, so one run has time for no more than 300.
    *shop.platform.distance.lock().unwrap() = Duration::from_millis(330);
    let begun = shop.platform.elapsed();
    let look = json!({ "detail-type": "test" });
    let report = shop.invoke(WATCH, &look).await;
    assert_eq!(report["complete"], false);
    let took = shop.platform.elapsed().checked_sub(begun).unwrap();
    assert!(took < Duration::from_secs(40), "{took:?}");
    let left = shop.items("DeadlinesTable").len();
    assert!((1..450).contains(&left), "{left}");
    *shop.platform.distance.lock().unwrap() = Duration::ZERO;
    assert_eq!(shop.invoke(WATCH, &look).await["complete"], true);
    assert_eq!(shop.items("DeadlinesTable"), Vec::<Value>::new());
}

/// A burst of more orders than the system can process in time: their events are late, and none is
/// lost.
#[tokio::test(start_paused = true)]
async fn while_events_are_late_the_watchdog_holds_back_and_every_order_is_confirmed() {
    const ORDERS: usize = 120;
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("StepTimeoutSeconds", "5"),
    ]);
    let shop = StillShop::with_template(&template, parts());
    *shop.platform.distance.lock().unwrap() = Duration::from_millis(130);
    let placed = (0..ORDERS).map(async |number| {
        let sku = format!("TEA-{number}");
        let receipts = format!("/stock/{sku}/receipts");
        let quantity = json!({ "quantity": 1 });
        assert_eq!(shop.send("POST", &receipts, &quantity).await.0, 201);
        let order = order(&sku, 1, "tok_visa");
        assert_eq!(shop.send("POST", "/orders", &order).await.0, 201);
    });
    join_all(placed).await;
    // Far more often than on AWS, so that every late order is seen.
    let look = json!({ "detail-type": "Scheduled Event" });
    let mut looks = 0;
    while !shop.items("DeadlinesTable").is_empty() || looks == 0 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        shop.invoke(WATCH, &look).await;
        looks += 1;
        assert!(looks < 500, "the orders never end");
    }
    let items = shop.items("EventsTable").into_iter();
    let commits: Vec<Commit> = items
        .map(|item| serde_json::from_value(item).unwrap())
        .collect();
    let events: Vec<_> = commits.iter().flat_map(Commit::recorded).collect();
    let count = |name: &str| {
        let named = events.iter().filter(|event| event.event.name == name);
        named.count()
    };
    assert_eq!(count("OrderConfirmed"), ORDERS);
    // The watchdog retries some of them as probes.
    let retried = count("StepRetried");
    assert!(retried <= ORDERS / 4, "{retried} in {looks} looks");
}
