//! A library that lends books: what a project of its own looks like on the toolkit.
//!
//! [`book`] and [`reader`] are aggregates, [`loan`] is the saga that changes both, [`shelf`] what people see. [`library`] puts them on
//! any event store, and [`functions`] on Lambda: one step, one function.
//!
//! What is absent on purpose: `orders`, and whatever depends on it. A check of the build keeps it so; the toolkit is all that
//! such a project needs.

pub mod book;
pub mod functions;
pub mod library;
pub mod loan;
pub mod reader;
pub mod shelf;
