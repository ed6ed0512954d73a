//! Sagas and processes, their steps and deadlines, and calls of providers.

pub mod deadlines;
pub mod processes;
pub mod provider;
pub mod saga;
#[cfg(feature = "store")]
pub mod step;
