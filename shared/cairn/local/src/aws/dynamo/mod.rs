//! `DynamoDB` and `DynamoDB` Streams, emulated by dynoxide in process.

mod capacity;
mod json;
mod pages;
mod refusals;
mod retention;
mod streams;
mod tables;

pub(crate) use retention::Consumer;
pub(crate) use streams::{Page, StreamRecord};
pub(crate) use tables::table_names;
pub use tables::{Dynamo, OpenError};

/// Opens a database in memory with the table `Table`, whose key is `k`, for tests of the modules.
#[cfg(test)]
fn with_a_table() -> Dynamo {
    let create = serde_json::json!({
        "TableName": "Table", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{ "AttributeName": "k", "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": "k", "KeyType": "HASH" }],
    });
    let name = "Table".to_owned();
    let table = crate::template::Table { name, create };
    Dynamo::open(None, &[table]).unwrap()
}
