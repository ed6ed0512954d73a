//! Tests of the simulator: it detects each fault, and reports none without a fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

mod crashes;
mod guards;
mod isolation;
mod roles;
mod seeds;
