//! `DynamoDB` and `DynamoDB` Streams, emulated by dynoxide in process.

mod capacity;
mod json;
mod refusals;
mod streams;
mod tables;

pub(crate) use streams::Page;
pub(crate) use tables::table_names;
pub use tables::{Dynamo, OpenError};
