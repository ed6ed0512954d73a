//! `cairn rebuild`.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::fixture::Fixture;

/// Removes every row of orders, as an accident would.
fn empty(system: &Fixture) {
    for row in system.system.composition.aws.dynamo.items("OrdersTable") {
        let key = json!({ "orderId": { "S": row["orderId"] } });
        let delete = json!({ "TableName": "OrdersTable", "Key": key });
        system.aws("DynamoDB_20120810.DeleteItem", &delete);
    }
}

async fn with_orders(count: usize) -> Fixture {
    let system = Fixture::start().await;
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
async fn lost_rows_are_made_anew() {
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
        said.out.contains("0 differ, 0 are new, 0 are gone."),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_was_killed_goes_on_where_it_was() {
    let system = with_orders(20).await;
    empty(&system);
    let mut command = system.command(&["rebuild", "orders", "--segments", "16"]);
    let mut tool = command.stdout(Stdio::null()).spawn().unwrap();
    let begun = loop {
        let standing = system
            .system
            .composition
            .aws
            .dynamo
            .items("ReadModelsTable");
        let building = standing
            .iter()
            .find_map(|item| item["beside"].get("building"));
        if let Some(building) = building {
            break building["generation"].clone();
        }
        tokio::task::yield_now().await;
    };
    tool.kill().unwrap();
    tool.wait().unwrap();
    // It may have been as far as to show the new rows.
    let done = system.json(&["rebuild", "orders"], 0).await;
    assert!(done["did"] == "rebuilt" || done["did"] == "swept", "{done}");
    let items = system
        .system
        .composition
        .aws
        .dynamo
        .items("ReadModelsTable");
    let standing = items
        .iter()
        .find(|item| item["item"] == "standing#0")
        .unwrap();
    assert_eq!(standing["live"], begun, "{standing}");
    assert_eq!(standing.get("beside"), None, "{standing}");
    assert_eq!(rows(&system), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_event_leads_to_stop_a_rebuild_until_somebody_decides() {
    let system = with_orders(1).await;
    let stranger = json!({ "sku": { "S": "POT-07" }, "version": { "N": "1" } });
    let put = json!({ "TableName": "StockTable", "Item": stranger });
    system.aws("DynamoDB_20120810.PutItem", &put);
    let said = system.run(&["rebuild", "stock"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.out.contains("POT-07") && said.out.contains("--without-strangers"),
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
    let abandoned = system.json(&["rebuild", "stock", "--abandon"], 0).await;
    assert_eq!(abandoned["did"], "abandoned");
    assert_eq!(count(), 2);
    let nothing = system.run(&["rebuild", "stock", "--abandon"]).await;
    assert_eq!(nothing.status, 1, "{nothing:?}");
    let done: Value = system
        .json(&["rebuild", "stock", "--without-strangers"], 0)
        .await;
    assert_eq!(done["did"], "rebuilt");
    assert_eq!(count(), 1);
}
