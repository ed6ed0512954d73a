//! The drill of docs/operations/restore.md: commits are lost, and restored from a copy of the event
//! table.

use std::time::Duration;

use cairn::audit::Limits;
use cairn_aws::dynamodb::{Restore, Restored};
use cairn_local::{Platform, aws::Call};
use orders_local::audit;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    fixture::order,
    mails::{mails, shop},
    still::StillShop,
};

/// A table that DynamoDB made from a backup.
const COPY: &str = "restored-events";

fn dynamodb(shop: &StillShop, operation: &str, request: &Value) -> Value {
    let target = format!("DynamoDB_20120810.{operation}");
    let body = request.to_string();
    let call = Call::new(&target, body.as_bytes());
    let answer = shop.system.aws.call("test", &call);
    assert_eq!(answer.status, 200, "{operation}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Returns the commits of the event table, with types.
fn commits(shop: &StillShop) -> Vec<Value> {
    let page = dynamodb(shop, "Scan", &json!({ "TableName": "EventsTable" }));
    assert_eq!(page["LastEvaluatedKey"], Value::Null);
    page["Items"].as_array().unwrap().clone()
}

fn make_copy(shop: &StillShop, commits: &[Value]) {
    let create = json!({
        "TableName": COPY,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            { "AttributeName": "stream", "AttributeType": "S" },
            { "AttributeName": "version", "AttributeType": "N" },
        ],
        "KeySchema": [
            { "AttributeName": "stream", "KeyType": "HASH" },
            { "AttributeName": "version", "KeyType": "RANGE" },
        ],
    });
    dynamodb(shop, "CreateTable", &create);
    for commit in commits {
        let put = json!({ "TableName": COPY, "Item": commit });
        dynamodb(shop, "PutItem", &put);
    }
}

async fn restore(shop: &StillShop) -> Restored {
    let store = shop.system.operator().event_store().unwrap();
    let restore = Restore::new(store, COPY.to_owned());
    let restored = restore.run(4, |_| {}).await.unwrap();
    shop.system.settled().await;
    restored
}

/// Places an order with an email address, and returns its id after all its deliveries.
async fn fulfil(shop: &StillShop, token: &str) -> String {
    let mut body = order("TEA-01", 1, token);
    body["email"] = "ada@example.com".into();
    let id = shop.place(&body).await;
    shop.system.settled().await;
    id
}

async fn views(shop: &StillShop, orders: &[String]) -> Vec<Value> {
    let mut views = vec![];
    for id in orders {
        views.push(shop.order(id).await);
    }
    views.push(shop.stock().await);
    views
}

async fn assert_consistent(shop: &StillShop) {
    let limits = Limits {
        settle: Duration::ZERO,
        overdue: Duration::ZERO,
    };
    let audit = audit::audit(&shop.system.operator(), shop.platform.now(), limits).unwrap();
    let report = audit.run(None).await.unwrap();
    assert_eq!(report.findings, []);
    let letters = ["DeadLettersQueue", "StreamFailuresQueue"].map(|queue| shop.depth(queue));
    assert_eq!(letters, [0, 0]);
}

/// A restored commit differs from the lost one by its mark only.
fn without_marks(mut commits: Vec<Value>) -> Vec<Value> {
    for commit in &mut commits {
        commit.as_object_mut().unwrap().remove("restored");
    }
    commits
}

/// The claims of the emails are lost with the commits, so only the mark prevents a second email.
#[tokio::test(start_paused = true)]
async fn a_lost_hour_comes_back_without_a_second_mail_and_without_a_second_step() {
    let shop = shop();
    let mut orders = vec![fulfil(&shop, "tok_visa").await];
    sleep(Duration::from_hours(1)).await;
    let since = shop.platform.now().to_string();
    orders.push(fulfil(&shop, "tok_visa").await);
    orders.push(fulfil(&shop, "tok_declined").await);
    let (before, stored, sent) = (views(&shop, &orders).await, commits(&shop), mails(&shop));
    assert_eq!(sent, 3, "an email for each order");
    make_copy(&shop, &stored);

    let is_lost = |commit: &&Value| commit["at"]["S"].as_str().unwrap() >= since.as_str();
    let lost: Vec<_> = stored.iter().filter(is_lost).collect();
    assert!(!lost.is_empty() && lost.len() < stored.len());
    for commit in &lost {
        let key = json!({ "stream": commit["stream"], "version": commit["version"] });
        let delete = json!({ "TableName": "EventsTable", "Key": key });
        dynamodb(&shop, "DeleteItem", &delete);
    }
    for mail in shop.items("MailsTable") {
        let key = json!({ "mail": { "S": mail["mail"] } });
        let delete = json!({ "TableName": "MailsTable", "Key": key });
        dynamodb(&shop, "DeleteItem", &delete);
    }
    shop.system.settled().await;

    let restored = restore(&shop).await;
    let (kept, missing) = (stored.len() - lost.len(), lost.len());
    assert_eq!(
        (restored.present, restored.missing, restored.conflicts),
        (kept as u64, missing as u64, 0)
    );
    assert_eq!(without_marks(commits(&shop)), stored);
    assert_eq!(mails(&shop), sent);
    assert_eq!(views(&shop, &orders).await, before);
    assert_consistent(&shop).await;

    let again = restore(&shop).await;
    assert_eq!((again.present, again.missing), (stored.len() as u64, 0));
}

/// The read models and the deadlines follow from the restored commits.
#[tokio::test(start_paused = true)]
async fn a_new_system_is_filled_from_a_copy_and_sends_no_mail() {
    let old = shop();
    let mut orders = vec![fulfil(&old, "tok_visa").await];
    orders.push(fulfil(&old, "tok_declined").await);
    let stored = commits(&old);

    let new = shop();
    make_copy(&new, &stored);
    let restored = restore(&new).await;
    assert_eq!(restored.missing, stored.len() as u64);
    assert_eq!(without_marks(commits(&new)), stored);
    assert_eq!(views(&new, &orders).await, views(&old, &orders).await);
    assert_eq!((mails(&old), mails(&new)), (2, 0));
    assert_consistent(&new).await;
}
