//! The command-line tool as operators and scripts run it, against a system of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panic"
)]

mod add;
mod audit;
mod child;
mod dead_letters;
mod doctor;
mod fixture;
mod forget;
mod history;
mod lag;
#[cfg(unix)]
mod local;
mod past;
mod reach;
mod rebuild;
mod republish;
mod restore;
mod sagas;
mod tail;
#[path = "../../../local/tests/system/waiting.rs"]
mod waiting;
