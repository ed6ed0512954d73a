//! Simulates the whole system on virtual time, under faults, by seed.
//!
//! The simulated system is that of `cargo run`: the template, the functions, the adapters and the
//! AWS SDK. Only the [`platform`] differs. There the seed decides all faults: of calls, deliveries,
//! invocations, clocks and [`providers`]. [`customers`] place orders over HTTP. [`simulation`] runs
//! one seed to its end and checks the [`invariants`].
//!
//! [`crashes`] crashes every handler at every await. [`isolation`] makes a product hot and a payment
//! provider hang, and compares the other orders. [`load`] runs the same system on real time, behind
//! a port.
//!
//! The simulator has no wall clock, no threads, and no randomness except the seed's. The same seed
//! therefore yields the same history, event for event.

pub mod crashes;
pub mod customers;
pub mod invariants;
pub mod isolation;
pub mod load;
pub mod observed;
pub mod platform;
pub mod providers;
pub mod simulation;
