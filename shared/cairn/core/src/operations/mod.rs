//! The registry of a system, and the audit of its data.

pub mod audit;
#[cfg(feature = "store")]
pub mod past;
pub mod system;
