//! `cairn forget`.

use crate::fixture::Fixture;

/// Returns the wrapped key of the customer of all orders.
fn key(system: &Fixture) -> serde_json::Value {
    let request = serde_json::json!({
        "TableName": "CustomerKeysTable", "Key": { "subject": { "S": "c-42" } },
    });
    system.aws("DynamoDB_20120810.GetItem", &request)["Item"]["wrappedKey"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_erased_once_and_a_repetition_changes_nothing() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    let id = system.fulfil("tok_visa").await;
    let history = system.json(&["history", &id], 0).await;
    assert!(!history.to_string().contains("Lovelace"), "{history}");
    assert!(key(&system).is_object());

    let said = system
        .run(&["forget", "c-42", "--yes", "--as", "jane"])
        .await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(said.out, "c-42: personal data erased\n");
    assert!(key(&system).is_null());
    let mut again = system.json(&["forget", "c-42", "--yes"], 0).await;
    let erasures = again["erasures"].take();
    assert_eq!(
        again,
        serde_json::json!({ "customer": "c-42", "forgotten": "before", "erasures": null })
    );
    assert_eq!(erasures.as_array().map(Vec::len), Some(1), "{erasures}");
    assert_eq!(erasures[0]["by"], "jane");
    assert!(erasures[0]["at"].is_string(), "{erasures}");
    assert_eq!(system.json(&["history", &id], 0).await, history);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_customer_has_status_1() {
    let system = Fixture::start().await;
    let said = system.run(&["forget", "c-nobody", "--yes"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("c-nobody: unknown customer"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_data_is_erased_without_a_confirmation() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 3).await;
    system.fulfil("tok_visa").await;
    for arguments in [&["forget", "c-42"][..], &["forget", "c 42", "--yes"]] {
        let said = system.run(arguments).await;
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{said:?}");
    }
    assert!(key(&system).is_object());
}
