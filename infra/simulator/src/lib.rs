//! The whole system on virtual time, under faults, by seed.
//!
//! It is the system of `cargo run`: the template, the functions, the adapters and the AWS SDK. What
//! differs is the [`platform`] that it runs in, where a seed decides what goes wrong: calls, deliveries,
//! crashes, clocks, and [`providers`] with outages. Within it [`customers`] place orders over HTTP.
//! [`simulation`] runs one seed to its end; then the [`invariants`] are checked, each a function.
//!
//! [`crashes`] crashes every handler at every await. [`load`] is the same system on real time, behind a port.
//!
//! What is absent on purpose: a wall clock, threads, and any source of chance but the seed's. So the same
//! seed gives the same history, event for event.

pub mod crashes;
pub mod customers;
pub mod invariants;
pub mod load;
pub mod observed;
pub mod platform;
pub mod providers;
pub mod simulation;
