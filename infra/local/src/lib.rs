//! The whole system in one process, as its template describes it.
//!
//! - [`template`] reads template.yaml strictly: an unknown entry is an error with its line.
//! - [`aws`] answers the AWS calls of the functions, in process and on a loopback port.
//! - [`bus`] matches events against rules, each of which has a [`pattern`].
//! - [`async_queue`] delivers events to functions, durably and with retries. [`stream_poller`]
//!   delivers the table's `DynamoDB` Stream.
//! - [`hosting`] invokes the functions, the oldest work first. A failure has the same consequences
//!   as on AWS.
//! - [`gateway`] is the HTTP API. The page also shows the [`delivery_log`] and switches [`faults`]
//!   on.
//! - [`functions`] lists the functions by crate name. [`composition`] combines all parts on a
//!   [`platform`], and [`system`] adds ports.
//! - [`access`] refuses foreign requests to both ports before routing.
//! - [`audit`] is the operator's audit of the whole system.
//! - [`printer`] prints without waiting for a reader. [`signals`] ends the program within two
//!   seconds.
//! - [`client`] is a small HTTP client for [`demo`] and [`measure`], which use the system from
//!   outside.
//!
//! Absent on purpose: business rules, and a second implementation of anything that runs on Lambda.
//! The functions are the deployed ones.

pub mod access;
pub mod async_queue;
pub mod audit;
pub mod aws;
pub mod bus;
pub mod client;
pub mod composition;
mod conditions;
mod console;
mod data;
pub mod delivery_log;
pub mod demo;
pub mod faults;
pub mod functions;
pub mod gateway;
pub mod hosting;
pub mod measure;
pub mod pattern;
mod places;
pub mod platform;
pub mod printer;
mod schedule;
mod server;
pub mod signals;
pub mod stream_poller;
pub mod system;
pub mod template;
mod throttle;
mod tokens;
mod yaml;
