//! An event store of the comparison.

use std::future::Future;

use aws_sdk_dynamodb::Client as Sdk;
use serde_json::{Value, json};

use crate::{Failed, service::Client};

pub mod cairn;

/// An event store, as one process uses it.
pub trait System: Sized + Send + Sync + Clone + 'static {
    /// The name in the table.
    const NAME: &'static str;
    /// True if a command's cost depends on the length of the stream.
    const READS_WHOLE_STREAMS: bool;

    /// The tables, as `CreateTable` requests.
    fn tables() -> Vec<Value>;

    /// Opens the store in a process that has just started.
    fn open(client: &Client) -> impl Future<Output = Result<Self, Failed>> + Send;

    /// Returns the store of another process, with an empty cache.
    #[must_use]
    fn cold(&self) -> Self;

    /// Writes a stream of this number of events, and the store's other items for them.
    fn seed(&self, id: &str, events: u64) -> impl Future<Output = Result<(), Failed>> + Send;

    fn place(&self, id: &str, command: &str) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Changes an order with one command of this number of events.
    fn change(
        &self,
        id: &str,
        command: &str,
        events: u64,
    ) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Loads an order and returns its number of events.
    fn load(&self, id: &str) -> impl Future<Output = Result<u64, Failed>> + Send;
}

/// Returns an SDK client of a process.
pub fn sdk(client: &Client) -> Sdk {
    Sdk::new(&client.config())
}

/// Returns a table with a partition key (S) and an optional sort key (N).
pub fn table(name: &str, partition: &str, sort: Option<&str>) -> Value {
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
