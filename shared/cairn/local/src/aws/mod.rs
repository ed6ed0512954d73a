//! The AWS services that the system uses, emulated in process.
//!
//! [`Aws`] is the dispatcher of all calls. State outside the tables is in the [`journal`], and
//! [`data`] is the directory of both.

pub(crate) mod async_queue;
pub mod bus;
pub(crate) mod call;
pub mod data;
mod dispatcher;
pub mod dynamo;
pub mod journal;
pub mod kms;
pub mod mailbox;
mod meter;
pub mod queues;
pub mod roles;
pub mod rules;
pub mod secrets;

pub use call::{Answer, Call};
pub use dispatcher::Aws;
pub(crate) use dispatcher::too_large_for_event;
pub use meter::{Meter, Units};
