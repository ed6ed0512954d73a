//! `cairn rebuild`.

use std::sync::Arc;

use cairn_aws::lambda::Handler;
use cairn_local::Options;
use orders_local::{functions, options};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{child::Process, fixture::Fixture, waiting::within};

/// A step of a rebuild that a test blocks.
struct Held {
    /// True after the first request for the step.
    asked: watch::Sender<bool>,
    /// True while requests for the step get no answer.
    holds: watch::Sender<bool>,
}

impl Held {
    /// Returns a blocked step, and options with a function that blocks it.
    fn step(step: &'static str) -> (Arc<Self>, Options) {
        let held = Arc::new(Self {
            asked: watch::Sender::new(false),
            holds: watch::Sender::new(true),
        });
        let holding = held.clone();
        let functions = functions().with("rebuild-projection", move |app| {
            let (function, held) = (rebuild_projection::function(app)?, holding.clone());
            Ok(Handler::new(move |payload, invocation| {
                let (function, held) = (function.clone(), held.clone());
                async move {
                    let request: Value = serde_json::from_slice(&payload).unwrap();
                    if request["step"] == step && *held.holds.borrow() {
                        held.asked.send_replace(true);
                        std::future::pending::<()>().await;
                    }
                    function.invoke(payload, invocation).await
                }
            }))
        });
        let options = Options {
            functions,
            ..options()
        };
        (held, options)
    }

    async fn asked(&self) {
        let mut asked = self.asked.subscribe();
        let asked = asked.wait_for(|asked| *asked);
        within("the step is asked for", asked).await.unwrap();
    }

    fn release(&self) {
        self.holds.send_replace(false);
    }
}

/// Deletes every row of the read model `orders`.
fn empty(system: &Fixture) {
    for row in system.system.composition.aws.dynamo.items("OrdersTable") {
        let key = json!({ "orderId": { "S": row["orderId"] } });
        let delete = json!({ "TableName": "OrdersTable", "Key": key });
        system.aws("DynamoDB_20120810.DeleteItem", &delete);
    }
}

async fn with_orders(count: usize) -> Fixture {
    orders_in(Fixture::start().await, count).await
}

async fn orders_in(system: Fixture, count: usize) -> Fixture {
    system.receive("TEA-01", 100).await;
    for _ in 0..count {
        system.place("tok_visa").await;
    }
    system.settled().await;
    system
}

fn rows(system: &Fixture) -> usize {
    system
        .system
        .composition
        .aws
        .dynamo
        .items("OrdersTable")
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rows_are_rebuilt() {
    let system = with_orders(3).await;
    empty(&system);
    let done = system.json(&["rebuild", "orders"], 0).await;
    assert_eq!(done["did"], "rebuilt");
    assert_eq!(done["comparison"]["onlyNew"], 3, "{done}");
    assert!(done["events"].as_u64().unwrap() > 3 * 14, "{done}");
    assert_eq!(rows(&system), 3);
    let said = system.run(&["rebuild", "sales"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.starts_with("Rebuilt from "), "{said:?}");
    assert!(
        said.out.contains("0 changed, 0 added, 0 removed."),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rebuild_is_resumed_by_the_next_run() {
    for (step, did) in [
        ("backfill", "rebuilt"),
        ("promote", "rebuilt"),
        ("prune", "pruned"),
    ] {
        let (held, options) = Held::step(step);
        let system = orders_in(Fixture::with(options).await, 5).await;
        empty(&system);
        let mut command = system.command(&["rebuild", "orders", "--segments", "16"]);
        let tool = Process::start(&mut command);
        held.asked().await;
        // This kills the process.
        drop(tool);
        let before = stored_set(&system);
        let building = &before["beside"]["building"]["generation"];
        let started = if building.is_null() {
            &before["live"]
        } else {
            building
        };
        held.release();
        let done = system.json(&["rebuild", "orders"], 0).await;
        assert_eq!(done["did"], did, "{step}: {done}");
        let after = stored_set(&system);
        assert_eq!(after["live"], *started, "{step}: {after}");
        assert_eq!(after.get("beside"), None, "{step}: {after}");
        assert_eq!(rows(&system), 5, "{step}");
    }
}

fn stored_set(system: &Fixture) -> Value {
    let tables = &system.system.composition.aws.dynamo;
    let items = tables.items("ReadModelsTable").into_iter();
    let mut orders = items.filter(|item| item["item"] == "standing#0");
    orders.next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_does_not_end_in_time_says_so_and_can_be_continued() {
    let (held, options) = Held::step("backfill");
    let system = orders_in(Fixture::with(options).await, 1).await;
    let said = system.run(&["rebuild", "orders", "--timeout", "1"]).await;
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    assert!(
        said.err.contains("did not end within 1 s") && said.err.contains("--cancel"),
        "{said:?}"
    );
    held.release();
    let done = system.json(&["rebuild", "orders"], 0).await;
    assert_eq!(done["did"], "rebuilt", "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orphan_rows_stop_a_rebuild_until_an_operator_decides() {
    let system = with_orders(1).await;
    let orphan = json!({ "sku": { "S": "POT-07" }, "version": { "N": "1" } });
    let put = json!({ "TableName": "StockTable", "Item": orphan });
    system.aws("DynamoDB_20120810.PutItem", &put);
    let said = system.run(&["rebuild", "stock"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.out.contains("POT-07") && said.out.contains("--drop-orphans"),
        "{said:?}"
    );
    let stopped = system.json(&["rebuild", "stock"], 1).await;
    assert_eq!(
        (&stopped["did"], &stopped["comparison"]["onlyOld"]),
        (&json!("stopped"), &json!(1))
    );

    let count = || -> usize {
        system
            .system
            .composition
            .aws
            .dynamo
            .items("StockTable")
            .len()
    };
    let cancelled = system.json(&["rebuild", "stock", "--cancel"], 0).await;
    assert_eq!(cancelled["did"], "cancelled");
    assert_eq!(count(), 2);
    let nothing = system.run(&["rebuild", "stock", "--cancel"]).await;
    assert_eq!(nothing.status, 1, "{nothing:?}");
    let done: Value = system
        .json(&["rebuild", "stock", "--drop-orphans"], 0)
        .await;
    assert_eq!(done["did"], "rebuilt");
    assert_eq!(count(), 1);
}
