//! The whole system in one process, as its template describes it.
//!
//! - [`template`] reads template.yaml strictly: what it does not know is an error with a line.
//! - [`aws`] answers the AWS calls of the functions, in process and on a loopback port: `DynamoDB`
//!   and its streams, `PutEvents`, and queues.
//! - [`bus`] matches events with rules; [`deliveries`] invokes functions asynchronously, durably
//!   and with retries; [`pump`] hands the table's stream to the relay.
//! - [`gateway`] is the HTTP API.
//! - [`functions`] lists the functions by the names of their crates; [`system`] puts all together.
//! - [`client`] is a small HTTP client, for [`demo`] and [`measure`], which use the system from
//!   outside as anyone would.
//!
//! What is absent on purpose: no business rule, and no second implementation of anything that
//! runs on Lambda. The functions are the very ones that are deployed.

pub mod aws;
pub mod bus;
pub mod client;
pub mod deliveries;
pub mod demo;
pub mod functions;
pub mod gateway;
pub mod measure;
pub mod pump;
pub mod system;
pub mod template;
mod yaml;
