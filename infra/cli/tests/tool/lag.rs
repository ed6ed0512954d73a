//! `cairn lag` and `cairn cost`.

use serde_json::{Value, json};

use crate::fixture::Fixture;

fn consumer<'a>(lag: &'a Value, name: &str) -> &'a Value {
    let consumers = lag["consumers"].as_array().unwrap();
    consumers
        .iter()
        .find(|consumer| consumer["consumer"] == name)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_an_event_has_not_reached_is_found() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    let lag = system.json(&["lag", "--tolerance", "0"], 0).await;
    for consumer in lag["consumers"].as_array().unwrap() {
        assert_eq!(
            (&consumer["events"], &consumer["streams"]),
            (&json!(0), &json!(0)),
            "{lag}"
        );
    }

    let back = json!({
        "TableName": "StockTable", "Key": { "sku": { "S": "TEA-01" } },
        "UpdateExpression": "SET version = :one",
        "ExpressionAttributeValues": { ":one": { "N": "1" } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &back);
    let lag = system.json(&["lag", "--tolerance", "0"], 1).await;
    let stock = consumer(&lag, "ProjectStockFunction");
    assert_eq!(
        (&stock["events"], &stock["streams"]),
        (&json!(2), &json!(1)),
        "{lag}"
    );
    assert_eq!(stock["examples"], json!(["stock-TEA-01"]));
    assert_eq!(consumer(&lag, "ProjectSalesFunction")["events"], 0);
    // The default tolerance is 60 seconds.
    let said = system.run(&["lag"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    let line = said
        .out
        .lines()
        .find(|line| line.starts_with("ProjectStock"))
        .unwrap();
    assert!(
        line.contains('2') && line.ends_with("stock-TEA-01"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_an_event_has_not_reached_is_found() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    let gate = json!({
        "TableName": "SalesTable",
        "Key": { "partition": { "S": format!("gate#order-{id}") }, "row": { "S": "gate" } },
    });
    system.aws("DynamoDB_20120810.DeleteItem", &gate);
    let lag = system.json(&["lag", "--tolerance", "0"], 1).await;
    assert_eq!(consumer(&lag, "ProjectSalesFunction")["events"], 2, "{lag}");
    assert_eq!(consumer(&lag, "ProjectOrdersFunction")["events"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unit_has_its_function() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    let cost = system.json(&["cost"], 0).await;
    let received = &cost["functions"]["ReceiveStockFunction"];
    assert_eq!(received["invocations"], 1, "{cost}");
    assert_eq!(received["writeUnits"], 1.0, "{cost}");
    assert_eq!(received["calls"]["PutItem"], 1, "{cost}");
    assert_eq!(cost["functions"].get("CancelOrderFunction"), None);
    let said = system.run(&["cost"]).await;
    assert!(
        said.out
            .lines()
            .any(|line| line.starts_with("PlaceOrderFunction ")),
        "{said:?}"
    );
    assert!(
        said.out.lines().last().unwrap().starts_with("all "),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lags_is_found_in_exactly_one_part() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    let back = json!({
        "TableName": "StockTable", "Key": { "sku": { "S": "TEA-01" } },
        "UpdateExpression": "SET version = :one",
        "ExpressionAttributeValues": { ":one": { "N": "1" } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &back);
    let mut streams = vec![];
    for part in ["1/2", "2/2"] {
        let said = system.run(&["lag", "--part", part, "--json"]).await;
        let lag: Value = serde_json::from_str(&said.out).unwrap();
        streams.push(
            consumer(&lag, "ProjectStockFunction")["streams"]
                .as_u64()
                .unwrap(),
        );
        let said = system.run(&["lag", "--part", part]).await;
        let line = format!("not compared: parts other than {part}\n");
        assert!(said.out.ends_with(&line), "{said:?}");
    }
    streams.sort_unstable();
    assert_eq!(streams, [0, 1]);
}
