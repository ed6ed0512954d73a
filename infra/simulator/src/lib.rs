//! Simulates the order system, with the simulator of the kit.
//!
//! The [`application`] describes the [`shop`] to the simulator: its functions, read models and
//! saga. [`customers`] place orders, the [`providers`] fail, and the [`invariants`] compare the
//! providers' records with the system's events. [`scenarios`] are the orders whose handlers are
//! crashed. [`isolation`] has a hot product and a payment provider that hangs.

pub mod application;
pub mod customers;
pub mod invariants;
pub mod isolation;
pub mod providers;
pub mod scenarios;
pub mod shop;
