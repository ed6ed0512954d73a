//! The event stores that are compared, each set up as its own documentation says.

use std::future::Future;

use aws_sdk_dynamodb::Client as Sdk;
use serde_json::{Value, json};

use crate::{Failed, service::Client};

pub(crate) mod cairn;
pub(crate) mod dynamo_es;
pub(crate) mod event_store_adapter;

/// An event store, as one process uses it.
pub(crate) trait System: Sized + Send + Sync + Clone + 'static {
    /// Its name in the table.
    const NAME: &'static str;
    /// Whether a command's cost depends on the length of the stream.
    const READS_WHOLE_STREAMS: bool;

    /// Its tables, as `CreateTable` requests.
    fn tables() -> Vec<Value>;

    /// The store, in a process that has just started.
    fn open(client: &Client) -> impl Future<Output = Result<Self, Failed>> + Send;

    /// The store as another process has it, which remembers nothing.
    #[must_use]
    fn cold(&self) -> Self;

    /// Writes a stream of so many events, and what else the store would have written with them.
    fn seed(&self, id: &str, events: u64) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Places an order.
    fn place(&self, id: &str, command: &str) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Changes an order: so many events by one command.
    fn change(
        &self,
        id: &str,
        command: &str,
        events: u64,
    ) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Loads an order and returns how many events it has.
    fn load(&self, id: &str) -> impl Future<Output = Result<u64, Failed>> + Send;
}

fn sdk(client: &Client) -> Sdk {
    Sdk::new(&client.config())
}

/// A table with a partition key (S) and perhaps a sort key (N).
fn table(name: &str, partition: &str, sort: Option<&str>) -> Value {
    let mut attributes = vec![json!({ "AttributeName": partition, "AttributeType": "S" })];
    let mut keys = vec![json!({ "AttributeName": partition, "KeyType": "HASH" })];
    if let Some(sort) = sort {
        attributes.push(json!({ "AttributeName": sort, "AttributeType": "N" }));
        keys.push(json!({ "AttributeName": sort, "KeyType": "RANGE" }));
    }
    json!({
        "TableName": name,
        "AttributeDefinitions": attributes,
        "KeySchema": keys,
        "BillingMode": "PAY_PER_REQUEST",
    })
}
