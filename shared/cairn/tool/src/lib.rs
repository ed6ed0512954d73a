//! The operator's tool `cairn` as a library.
//!
//! * [`scaffold`]: Writes new aggregates, functions and read models into a project.

pub mod scaffold;
