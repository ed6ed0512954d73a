//! The domain's rules, as sentences.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

mod deadlines;
mod fixtures;
mod fulfilment;
mod order;
mod payment;
mod properties;
mod read_models;
mod requests;
mod shipment;
mod snapshots;
mod stock;
