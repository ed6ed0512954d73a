//! `cairn audit`.

use serde_json::json;

use crate::fixture::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn a_system_in_which_all_is_well_has_status_0() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    let said = system.run(&["audit", "--settle", "0"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.ends_with("Nothing is wrong.\n"), "{said:?}");
    let report = system.json(&["audit", "--settle", "0"], 0).await;
    assert_eq!(
        (&report["found"], &report["findings"]),
        (&json!(0), &json!([]))
    );
    assert_eq!(report["rows"]["orders"]["compared"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_named_with_status_1() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    let edit = json!({
        "TableName": "OrdersTable",
        "Key": { "orderId": { "S": id } },
        "UpdateExpression": "SET customerId = :other",
        "ExpressionAttributeValues": { ":other": { "S": "c-13" } },
    });
    system.aws("DynamoDB_20120810.UpdateItem", &edit);
    let said = system.run(&["audit"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    let line = format!("orders {id}: differs from its events in: customerId");
    assert_eq!(said.out.lines().next(), Some(line.as_str()), "{said:?}");
    assert!(said.out.ends_with("1 finding\n"), "{said:?}");
    let report = system.json(&["audit"], 1).await;
    assert_eq!(report["findings"][0]["kind"], "row-differs");
    let stock = system.json(&["audit", "--projection", "stock"], 0).await;
    assert_eq!(stock["rows"].as_object().unwrap().len(), 1, "{stock}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_there_is_not_is_refused_with_status_2() {
    let system = Fixture::start().await;
    let said = system.run(&["audit", "--projection", "customers"]).await;
    assert_eq!((said.status, said.out.as_str()), (2, ""), "{said:?}");
}
