//! Tests of the domain's rules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]

mod deadlines;
#[path = "../../examples/schemas/files.rs"]
mod files;
mod fixtures;
mod fulfilment;
mod moments;
mod order;
mod payment;
mod prices;
mod product;
mod properties;
mod read_models;
mod requests;
mod sample_order;
mod schemas;
mod shipment;
mod snapshots;
mod stock;
mod system;
