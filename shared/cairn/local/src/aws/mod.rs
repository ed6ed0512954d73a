//! The AWS services that the system uses, emulated in process.
//!
//! [`Aws`] is the dispatcher of all calls. State outside the tables is in the [`journal`], and
//! [`data`] is the directory of both.

pub(crate) mod async_queue;
#[doc(hidden)]
pub mod bus;
pub(crate) mod call;
#[doc(hidden)]
pub mod data;
mod dispatcher;
#[doc(hidden)]
pub mod dynamo;
#[doc(hidden)]
pub mod journal;
#[doc(hidden)]
pub mod kms;
#[doc(hidden)]
pub mod mailbox;
mod meter;
#[doc(hidden)]
pub mod queues;
#[doc(hidden)]
pub mod roles;
#[doc(hidden)]
pub mod rules;
#[doc(hidden)]
pub mod secrets;

pub use bus::Seen;
#[doc(hidden)]
pub use call::Answer;
pub use call::Call;
pub use dispatcher::Aws;
pub(crate) use dispatcher::too_large_for_event;
#[doc(hidden)]
pub use meter::{Meter, Units};
