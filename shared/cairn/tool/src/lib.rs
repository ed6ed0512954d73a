#![doc = include_str!("../README.md")]
//! # Modules
//!
//! * [`Tool`]: The system and its words. [`Tool::run`] parses the command line and runs the
//!   command.
//! * [`Ids`], [`Subject`], [`Sagas`]: The ids that name several streams, the subjects of personal
//!   data, and the saga of the system.
//!
//! A command has a file in `commands`. The tool reaches AWS only through the kit, as the functions
//! do.

#![warn(missing_docs)]

mod access;
mod commands;
mod failure;
mod output;
mod program;
#[doc(hidden)]
pub mod project;
mod saga;
#[doc(hidden)]
pub mod scaffold;
mod tool;
mod words;

pub use tool::{Ids, Sagas, Subject, Tool};
