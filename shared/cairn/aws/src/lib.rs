#![doc = include_str!("../README.md")]
//! # Modules
//!
//! The rules that these parts follow are in [`cairn`].
//!
//! * [`dynamodb`]: The event store, rows, counters, deadlines and keys on DynamoDB.
//! * [`lambda`]: A handler gets its clients and environment variables from an `AppContext`. The
//!   module adapts HTTP requests, bus events, stream records and saga steps to handlers.
//! * [`functions`]: Ready-made functions: relay, watchdog, deadline tracker, rebuild, redrive and
//!   erasure.
//! * The clients of the kit's own functions: the bus of the relay, the queues and functions of a
//!   redrive, and the key that wraps the keys of [`personal_data`](cairn::personal_data).
//! * `mail`: Emails through Amazon SES, with the feature `mail`. [`dynamodb::MailGate`] claims an
//!   email before it is sent.
//!
//! The feature `operator` adds the connection of a command-line tool to a deployed stack.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]

mod clients;
mod context;
pub mod dynamodb;
#[doc(hidden)]
pub mod error;
pub mod functions;
pub mod lambda;
#[doc(hidden)]
#[cfg(feature = "operator")]
pub mod operator;
mod trace;

#[cfg(feature = "mail")]
pub use clients::mail;
// For the ready-made functions, the tool and the simulator.
#[doc(hidden)]
pub use clients::{eventbridge, invoker, kms, lazy_client, sqs};
