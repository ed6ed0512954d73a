#![doc = include_str!("../README.md")]
//! # Modules
//!
//! The rooms, each of which uses only those above it:
//!
//! - [`names`] has the Region, the account and the ARNs. `yaml` reads text with line numbers.
//! - `pattern` matches events as `EventBridge` does. [`template`] reads template.yaml strictly: an
//!   unknown entry is an error with its line.
//! - [`platform`] is the environment: clock, randomness and faults. [`local_platform`] is the local
//!   one, with [`faults`] that can be switched on.
//! - [`aws`] answers the AWS calls of the functions.
//! - [`host`] invokes the functions, the oldest work first.
//! - `delivery` passes events and stream records to functions, durably and with retries.
//! - [`http`] is the HTTP API and the server of both ports. `endpoint` is the AWS endpoint on a
//!   port.
//! - [`composition`] combines all parts on a platform. [`system`] adds ports, and [`extension`]
//!   local routes of an application.
//! - [`programs`] finds the programs of functions that run as processes, and [`command`] is
//!   `cairn local`.
//! - [`client`], [`printer`] and [`signals`] are tools for programs. [`program`] is the command line
//!   of an application.
//!
//! Absent on purpose: anything about one application, and a second implementation of anything that
//! runs on Lambda.

pub mod aws;
pub mod client;
pub mod command;
pub mod composition;
mod delivery;
mod endpoint;
pub mod extension;
pub mod faults;
pub mod host;
pub mod http;
pub mod local_platform;
pub mod names;
mod pattern;
pub mod platform;
pub mod printer;
pub mod program;
pub mod programs;
pub mod signals;
pub mod system;
pub mod template;
mod yaml;

pub use composition::{Composition, Parts};
pub use host::{Functions, Program};
pub use local_platform::LocalPlatform;
pub use platform::Platform;
pub use programs::Search;
pub use system::{Options, System};
pub use template::{Parameters, Template};
