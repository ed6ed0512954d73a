//! The way of events out of the store: envelopes, the relay, and dead letters.

pub mod cloudevent;
pub mod dead_letter;
#[cfg(feature = "store")]
pub mod relay;
