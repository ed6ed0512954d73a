//! The kit on AWS: its stores on DynamoDB, its clients of other services, and its adapter for
//! Lambda. The rules that these parts follow are in [`cairn`].
//!
//! * [`dynamodb`]: The event store, rows, counters, deadlines and keys on DynamoDB.
//! * [`lambda`]: A handler gets its clients and environment variables from an `AppContext`. The
//!   module adapts HTTP requests, bus events, stream records and saga steps to handlers.
//! * [`functions`]: Ready-made functions: relay, watchdog, deadline tracker, rebuild, redrive and
//!   erasure.
//! * [`eventbridge`]: The bus of the relay.
//! * [`sqs`], [`invoker`]: Dead letters are read from a queue; a redrive invokes their functions.
//! * [`kms`]: The key that wraps the keys of [`personal_data`](cairn::personal_data).
//! * `mail`: Emails through Amazon SES, with the feature `mail`. [`dynamodb::MailGate`] claims an
//!   email before it is sent.
//! * `operator`: The connection of a command-line tool to a deployed stack, with the feature
//!   `operator`.

#![warn(missing_docs)]

mod clients;
pub mod dynamodb;
pub mod functions;
pub mod lambda;
#[cfg(feature = "operator")]
pub mod operator;
mod trace;

pub use clients::{error, eventbridge, invoker, kms, lazy_client, sqs};
#[cfg(feature = "mail")]
pub use lambda::mail;
