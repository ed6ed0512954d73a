//! Tests of the runtime with templates of their own: no application takes part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]

mod failures;
mod front_door;
mod processes;
mod queue_source;
mod streams;
mod virtual_time;
