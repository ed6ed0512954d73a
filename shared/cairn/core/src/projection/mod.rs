//! Read models, their version gates, and their generations.

#[cfg(feature = "store")]
pub mod gate;
pub mod generation;
pub mod read_model;
