//! The history and the log record the operator of each action.

use cairn::Commit;
use serde_json::{Value, json};

use crate::{
    fixture::{order, template_file},
    forget::Lines,
    still::StillShop,
    watch::stuck,
};

const NAME: &str = "arn:aws:sts::123456789012:assumed-role/operations/jane";
const WATCH: &str = "WatchFulfilmentsFunction";

fn commits(shop: &StillShop, stream: &str) -> Vec<Commit> {
    let items = shop.items("EventsTable").into_iter();
    let commits = items.map(|item| serde_json::from_value::<Commit>(item).unwrap());
    commits
        .filter(|commit| commit.stream.as_str() == stream)
        .collect()
}

/// Returns the actor of the commit with an event.
fn actor_of(shop: &StillShop, stream: &str, event: &str) -> Option<String> {
    let commits = commits(shop, stream);
    let mut found = commits
        .iter()
        .filter(|commit| commit.events.iter().any(|stored| stored.name == event));
    let commit = found
        .next()
        .unwrap_or_else(|| panic!("no {event}: {commits:?}"));
    commit.metadata.actor.clone()
}

fn has_line(lines: &Lines, message: &str, operator: &str) -> bool {
    let text = lines.text();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.any(|line| line["fields"]["message"] == message && line["span"]["operator"] == operator)
}

/// Invokes a function of the API as a caller with a token.
async fn send(shop: &StillShop, function: &str, file: &str, scope: &str) -> u64 {
    let path = template_file().with_file_name("events").join(file);
    let mut event: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    event["requestContext"]["authorizer"]["jwt"]["claims"] =
        json!({ "sub": "c-42", "scope": scope });
    shop.invoke(function, &event).await["statusCode"]
        .as_u64()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_with_the_operator_scope_is_recorded_with_the_subject_of_its_token() {
    let shop = StillShop::open();
    let lines = Lines::default();
    let _listening = lines.listen();
    let operator = "openid cairn/operator";
    let received = send(
        &shop,
        "ReceiveStockFunction",
        "receive-stock.json",
        operator,
    );
    assert_eq!(received.await, 201);
    let actor = actor_of(&shop, "stock-TEA-01", "StockReceived");
    assert_eq!(actor.as_deref(), Some("c-42"));
    assert!(
        has_line(&lines, "request completed", "c-42"),
        "{}",
        lines.text()
    );

    // A customer is the actor of their orders, and no log line has their id.
    let lines = Lines::default();
    let _listening = lines.listen();
    let placed = send(&shop, "PlaceOrderFunction", "place-order.json", "openid");
    assert_eq!(placed.await, 201);
    assert!(
        lines.text().contains("request completed"),
        "{}",
        lines.text()
    );
    assert!(!lines.text().contains("c-42"), "{}", lines.text());
}

#[tokio::test(start_paused = true)]
async fn an_invocation_is_recorded_with_the_operator_that_it_names() {
    let (shop, id, _) = stuck().await;
    let lines = Lines::default();
    let _listening = lines.listen();
    let request = json!({ "abandon": id, "reason": "refunded by hand", "operator": NAME });
    shop.invoke(WATCH, &request).await;
    shop.until(&id, "aborted").await;
    let saga = format!("fulfilment-{id}");
    assert_eq!(
        actor_of(&shop, &saga, "StepAbandoned").as_deref(),
        Some(NAME)
    );
    assert!(
        has_line(&lines, "operator command executed", NAME),
        "{}",
        lines.text()
    );
    // Steps and the watchdog act for no caller.
    let others = commits(&shop, &saga).into_iter();
    let others = others.filter(|commit| commit.events[0].name != "StepAbandoned");
    assert!(others.clone().count() > 3);
    assert!(
        others
            .into_iter()
            .all(|commit| commit.metadata.actor.is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_without_a_printable_name_is_refused() {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    for name in [json!(""), json!("a\nb"), json!(7), json!("x".repeat(1025))] {
        let request = json!({ "resume": id, "operator": name });
        let error = shop.system.invoke(WATCH, &request.to_string()).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("invalid request: `operator`"), "{error}");
    }
}
