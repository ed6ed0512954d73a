//! Tests of the library: its rules and loans in memory, and its functions on DynamoDB.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

mod in_memory;
mod on_dynamodb;
mod tables;

use std::time::Duration;

use cairn::{Context, Timestamp};

fn asked(id: &str) -> Context {
    Context::new(id, Timestamp::now(), Duration::from_secs(5))
}
