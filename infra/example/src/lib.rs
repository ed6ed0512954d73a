//! A library that lends books: an example of a service on the kit.
//!
//! [`book`] and [`reader`] are aggregates, [`loan`] is the saga that changes both, and [`shelf`] is
//! a read model. [`library`] runs them on any event store, and [`functions`] on Lambda, with one
//! function per step.
//!
//! The example does not depend on `orders`, which the CI gate checks: a service needs only the kit.

pub mod book;
pub mod functions;
pub mod library;
pub mod loan;
pub mod reader;
pub mod shelf;
