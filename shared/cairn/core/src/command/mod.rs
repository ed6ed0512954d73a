//! Commands: rules, the repository that applies them, and the input of an API.

pub mod api;
pub mod decider;
pub mod input;
#[cfg(feature = "store")]
pub mod loaded_stream;
#[cfg(feature = "store")]
pub(crate) mod moments;
#[cfg(feature = "store")]
pub mod recent_commands;
#[cfg(feature = "store")]
pub mod repository;
#[cfg(feature = "store")]
pub mod retry;
pub mod spec;
