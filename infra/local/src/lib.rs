//! The order system on the local runtime of the kit, [`cairn_local`].
//!
//! - [`functions`](mod@functions) lists the functions by crate name, and [`system`] has the parts and
//!   options that start them.
//! - [`console`] is the local part of the page. It shows the [`delivery_log`] and switches the
//!   faults on.
//! - [`audit`] is the operator's audit of the whole system.
//! - [`demo`] and [`measure`] use the system from outside.
//! - [`references`] compares generated files with their code, in tests.
//!
//! Absent on purpose: business rules, and a second implementation of anything that runs on Lambda.
//! The functions are the deployed ones.

pub mod audit;
pub mod console;
pub mod delivery_log;
pub mod demo;
mod faults;
pub mod functions;
pub mod measure;
pub mod references;
pub mod system;

pub use functions::functions;
pub use system::{options, options_with_page, parts};
