#![doc = include_str!("../README.md")]
//! # Modules
//!
//! The simulated system is that of the local runtime: the template, the functions, the adapters and
//! the AWS SDK. Only the [`platform`] differs. There the seed decides all [`faults`]: of calls,
//! deliveries, invocations, clocks and providers. The simulator has no wall clock, no threads, and
//! no randomness except the seed's. The same seed therefore yields the same history, event for
//! event.
//!
//! - An [`application`] brings its functions, its clients and its own invariants. The clients use
//!   the [`api`].
//! - [`simulation`] runs one seed to its end. [`observed`] is the final state, which must satisfy
//!   the kit's guarantees and the application's [`invariants`].
//! - [`crashes`] crashes every handler at every await, for units of work and for an application's
//!   scenarios.
//! - [`isolation`] compares a run with the same run beside a disturbance.
//! - [`program`] is the command line.
//!
//! This program simulates an application, with all tests that the application describes:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     Program::<Shop>::new("shop-simulator").scenarios().isolation().run()
//! }
//! ```

pub mod api;
pub mod application;
pub mod crashes;
pub mod faults;
mod guarantees;
pub mod invariants;
pub mod isolation;
mod load;
pub mod observed;
pub mod platform;
pub mod program;
mod projections;
mod running;
pub mod simulation;
