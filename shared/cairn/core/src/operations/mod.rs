//! The registry of a system, and the audit of its data.

pub mod audit;
pub mod system;
