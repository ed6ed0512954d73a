//! The domain's rules, as sentences.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]

mod deadlines;
#[allow(dead_code, reason = "the example needs more of it")]
#[path = "../../examples/schemas/files.rs"]
mod files;
mod fixtures;
mod fulfilment;
mod order;
mod payment;
mod properties;
mod read_models;
mod requests;
mod samples;
mod schemas;
mod shipment;
mod snapshots;
mod stock;
