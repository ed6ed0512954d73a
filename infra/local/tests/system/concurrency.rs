//! Concurrent clients, deliveries out of order, and a process that is killed.

use std::sync::Arc;

use axum::http::StatusCode;
use cairn::read_model::{ReadModel, fold};
use cairn_local::{LocalPlatform, Options, faults::Fault};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use orders::read_models::{
    orders::Orders,
    sales::{self, Sums, Window, Windows},
    stock::StockLevels,
};
use orders_local::options;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, order},
    process::Process,
    waiting::within,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_twenty_times_at_once_is_one_order_and_twenty_equal_answers() {
    let system = Fixture::start().await;
    let body = order("TEA-01", 1, "tok_visa");
    let key = [("idempotency-key", "once")];
    let answers = join_all((0..20).map(|_| system.client.post("/orders", &key, &body))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        assert_eq!(answer.body, answers[0].body);
    }
    let replayed =
        |answer: &&cairn_local::client::Answer| answer.headers.contains_key("idempotent-replayed");
    assert_eq!(answers.iter().filter(replayed).count(), 19);
    let placed = system
        .history()
        .into_iter()
        .filter(|event| event.event.name == "OrderPlaced");
    assert_eq!(placed.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_orders_for_twenty_pieces_confirm_exactly_twenty() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 20).await;
    let body = order("TEA-01", 1, "tok_visa");
    let ids = join_all((0..50).map(|_| system.place(&body))).await;
    system.settled().await;

    let orders = join_all(ids.iter().map(|id| system.order(id))).await;
    let count = |status: &str| {
        orders
            .iter()
            .filter(|order| order["status"] == status)
            .count()
    };
    assert_eq!((count("confirmed"), count("cancelled")), (20, 30));
    let stock = system.stock("TEA-01").await;
    assert_eq!(
        (&stock["onHand"], &stock["reserved"], &stock["available"]),
        (&json!(0), &json!(0), &json!(0))
    );
    let sales = system.get("/sales?window=day").await.body;
    let sum = |name: &str| -> i64 {
        let windows = sales["windows"].as_array().unwrap().iter();
        windows.map(|window| window[name].as_i64().unwrap()).sum()
    };
    assert_eq!(
        (
            sum("ordersPlaced"),
            sum("ordersConfirmed"),
            sum("ordersCancelled")
        ),
        (50, 20, 30)
    );
    let revenue: i64 = sales["windows"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|window| window["revenue"].as_array().unwrap())
        .map(|revenue| revenue["amount"].as_i64().unwrap())
        .sum();
    assert_eq!(revenue, 20 * 1250);
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

#[tokio::test(flavor = "multi_thread")]
async fn every_read_model_equals_the_fold_though_the_bus_repeats_and_shuffles_everything() {
    let system = Fixture::with(Options {
        platform: Arc::new(LocalPlatform::with(&[Fault::Duplicates, Fault::Disorder])),
        ..options()
    })
    .await;
    system.receive("TEA-01", 12).await;
    system.receive("POT-07", 5).await;
    let bodies = (0..30).map(|n| {
        let sku = if n % 3 == 0 { "POT-07" } else { "TEA-01" };
        order(
            sku,
            1,
            if n % 5 == 0 {
                "tok_declined"
            } else {
                "tok_visa"
            },
        )
    });
    let bodies: Vec<_> = bodies.collect();
    let ids = join_all(bodies.iter().map(|body| system.place(body))).await;
    for id in ids.iter().step_by(7) {
        system
            .post(&format!("/orders/{id}/cancel"), &json!({ "reason": "x" }))
            .await;
    }
    system.settled().await;
    read_models_equal_the_fold(&system);
    for id in &ids {
        let status = system.order(id).await["fulfilment"]["status"].clone();
        assert!(
            ["completed", "aborted"].map(Value::from).contains(&status),
            "{id} is {status}"
        );
    }
}

/// Asserts that every read model has exactly the rows that a fold of the streams gives.
pub(crate) fn read_models_equal_the_fold(system: &Fixture) {
    let history = system.history();
    rows_equal_the_fold::<Orders>(system, "OrdersTable", &history);
    rows_equal_the_fold::<StockLevels>(system, "StockTable", &history);

    let times = || history.iter().map(|event| event.at);
    let (first, last) = (times().min().unwrap(), times().max().unwrap());
    let mut sums = Sums::new(Windows::new(Window::Day, first, last));
    for row in system.scan("SalesTable") {
        let partition = row["partition"].as_str().unwrap();
        if ["hour#", "product#"]
            .iter()
            .any(|kind| partition.starts_with(kind))
        {
            let key = row["row"].as_str().unwrap();
            sums.add(key, row.as_object().unwrap()).unwrap();
        }
    }
    assert_eq!(sums.render(), sales::fold(Window::Day, &history).unwrap());
}

fn rows_equal_the_fold<M: ReadModel>(
    system: &Fixture,
    table: &str,
    history: &[cairn::RecordedEvent],
) {
    let mut keys: Vec<_> = history
        .iter()
        .filter_map(|event| M::row_key(&event.stream))
        .map(|row| row.key)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let rows = system.scan(table);
    assert_eq!(rows.len(), keys.len(), "{table}");
    for row in rows {
        let key = row[M::KEY].as_str().unwrap();
        let events = history
            .iter()
            .filter(|event| M::row_key(&event.stream).is_some_and(|row| row.key == key));
        let expected = fold::<M>(events).unwrap().unwrap();
        assert_eq!(row, Value::Object(expected), "{table} {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_order_reaches_its_end_though_the_process_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path());
    let receipt = json!({ "quantity": 1_000 });
    process
        .client
        .post("/stock/TEA-01/receipts", &[], &receipt)
        .await
        .unwrap();
    let body = order("TEA-01", 1, "tok_visa");
    let mut accepted = vec![];
    let mut placing: FuturesUnordered<_> = (0..100)
        .map(|_| process.client.post("/orders", &[], &body))
        .collect();
    // Kill it midway: some orders are accepted, some are in progress, and some get no answer.
    while accepted.len() < 60 {
        let placed = within("an order is placed", placing.next()).await;
        let placed = placed.unwrap().unwrap();
        assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.body);
        accepted.push(placed.body["orderId"].as_str().unwrap().to_owned());
    }
    drop(placing);
    process.kill();

    let system = Fixture::with(Options {
        data: Some(data.path().to_owned()),
        ..options()
    })
    .await;
    system.settled().await;
    for id in &accepted {
        let order = system.order(id).await;
        assert_eq!(order["status"], "confirmed", "{order}");
    }
    // An order whose answer was lost was still accepted.
    let history = system.history();
    let count = |name: &str| {
        history
            .iter()
            .filter(|event| event.event.name == name)
            .count()
    };
    assert_eq!(count("OrderPlaced"), count("OrderConfirmed"));
    let stock = system.stock("TEA-01").await;
    assert_eq!(stock["onHand"], 1_000 - count("OrderConfirmed"));
    assert_eq!(stock["reserved"], 0);
    read_models_equal_the_fold(&system);
}
