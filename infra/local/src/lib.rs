//! The whole system in one process, as its template describes it.
//!
//! - [`template`] reads template.yaml strictly: what it does not know is an error with a line.
//! - [`aws`] answers the AWS calls of the functions, in process and on a loopback port: `DynamoDB`
//!   and its streams, `PutEvents`, and queues.
//! - [`bus`] holds events against rules, each a [`pattern`] of its own; [`async_queue`] brings them to functions durably and with
//!   retries, [`stream_poller`] brings the table's stream there, and [`hosting`] invokes them, the oldest
//!   work first. What fails goes the way that it goes on AWS.
//! - [`gateway`] is the HTTP API; beside it the page on which to see all this has what only one machine has: what each
//!   consumer did, kept in the [`delivery_log`], and [`faults`] to switch on.
//! - [`functions`] lists the functions by the names of their crates; [`composition`] puts all together,
//!   in a [`platform`] of its own, and [`system`] gives it ports.
//! - [`access`] refuses requests that come from elsewhere, before any route of either port.
//! - [`audit`] is the operator's, of the whole system.
//! - [`printer`] prints without waiting for a reader, and [`signals`] ends the program within two seconds.
//! - [`client`] is a small HTTP client, for [`demo`] and [`measure`], which use the system from
//!   outside as anyone would.
//!
//! What is absent on purpose: no business rule, and no second implementation of anything that
//! runs on Lambda. The functions are the very ones that are deployed.

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
