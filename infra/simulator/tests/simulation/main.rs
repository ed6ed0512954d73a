//! The simulator: it finds nothing where nothing is wrong, and what is wrong where something is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

mod crashes;
mod guards;
mod roles;
mod seeds;
