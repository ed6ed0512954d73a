//! What the system tells of itself: figures for dashboards and alarms.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    fixture::{order, template},
    still::StillShop,
};

/// The sum of a figure over all its lines.
fn sum(shop: &StillShop, name: &str) -> u64 {
    let figures = shop.world.figures();
    figures.iter().filter_map(|line| line[name].as_u64()).sum()
}

fn consumers(shop: &StillShop) -> BTreeSet<String> {
    let figures = shop.world.figures();
    let lags = figures.iter().filter(|line| line["ConsumerLag"].is_u64());
    lags.map(|line| line["Consumer"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_consumer_says_how_far_it_is_behind_and_fulfilments_are_counted_by_their_end() {
    let shop = StillShop::open();
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
        let is_consumer = function.on_failure.as_deref() == Some("DeadLettersQueue")
            && id != "WatchFulfilmentsFunction";
        // Nobody has cancelled anything that was under way.
        let has_work = id != "UnwindOrderFunction";
        assert!(
            !is_consumer || !has_work || heard.contains(id),
            "{id}: {heard:?}"
        );
    }
    assert!(shop.world.figure("RelayLag").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_figure_says_whose_it_is_and_in_what_unit() {
    let shop = StillShop::open();
    shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.system.settled().await;
    let figures = shop.world.figures();
    let find = |name: &str| figures.iter().find(|line| !line[name].is_null()).unwrap();
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
    // Beside it, for whoever looks for one event in the log.
    assert_eq!(lag["Outcome"], "applied");
    assert!(lag["Event"].as_str().unwrap().contains('@'), "{lag}");
}

#[tokio::test(start_paused = true)]
async fn a_late_delivery_is_seen_as_lag() {
    let worst = |shop: &StillShop| {
        let figures = shop.world.figures();
        let lags = figures
            .iter()
            .filter_map(|line| line["ConsumerLag"].as_u64());
        lags.max().unwrap()
    };
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    assert_eq!(worst(&shop), 0, "no time passes where nothing waits");
    *shop.world.unreachable.lock().unwrap() = 1;
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    assert!(worst(&shop) > 0);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_another_was_faster_than_is_counted() {
    let shop = StillShop::open();
    let id = shop.place(&order("TEA-01", 2, "tok_visa")).await;
    shop.until(&id, "completed").await;
    shop.system.settled().await;
    let before = sum(&shop, "Conflicts");
    // The function that took the first pieces in remembers the stream as it left it.
    let receipt = json!({ "quantity": 5 });
    shop.send("POST", "/stock/TEA-01/receipts", &receipt).await;
    assert!(sum(&shop, "Conflicts") > before);
}
