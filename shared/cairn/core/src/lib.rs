// The front page is the README. Its program needs a store.
#![cfg_attr(feature = "store", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "store"),
    doc = "The core of Cairn without its feature `store`.\n"
)]
//! # A guided tour
//!
//! The tour follows the data: from a command to its events, to the read models and sagas that react
//! to them, and to the operator. A module without a link needs a [feature](#features), or serves the
//! other crates of the kit.
//!
//! ## Decide
//!
//! * [`decider`]: A [`Decider`] checks commands against a state and returns events. An
//!   [`Aggregate`] is a decider with stored events.
//! * [`spec`]: Given/when/then for deciders. A test needs no store and no clock.
//! * [`event`]: The stored form of an event: a name, a schema version and JSON. Upcasters read
//!   earlier schema versions. A version or a type can be read before it is written.
//! * [`schema`]: JSON Schemas of events, and the detection of events that the previous release cannot
//!   read. For tests, `schema::breaking` detects breaking changes between two schemas.
//!
//! ## Store
//!
//! * [`commit`]: A [`Commit`] is the events of one command on one stream, stored as one item. Some
//!   commits carry a `snapshot` of the state. A [`StreamId`] names the stream, and the
//!   [`metadata`] names its cause and its caller.
//! * `store`: The `EventStore` trait appends commits on condition that their versions are free, and
//!   reads streams. `store::memory` implements it for tests, and
//!   `cairn_aws::dynamodb` for AWS.
//! * `repository`: A `Repository` loads a stream, decides a command and appends the events. It
//!   decides again after a conflict, and replays a command that was handled before.
//! * `past`: The state of a stream at an earlier version or time.
//! * [`causality`]: The commits of several streams in one order, causes before effects.
//!
//! ## Publish and project
//!
//! * `relay`: The relay publishes the commits of the DynamoDB Stream as [`cloudevent`] envelopes.
//!   `cairn_aws::eventbridge` connects it to a bus.
//! * `gate`: A version gate applies each event once and in order. It skips a duplicate delivery,
//!   and fills a gap from the store.
//! * [`read_model`]: A read model states the changes that an event makes to its row. The same
//!   function updates the table, rebuilds it and audits it.
//! * `generation`: A rebuild backfills a second generation of rows while queries read the first.
//!
//! ## Run a process
//!
//! * [`saga`]: A saga is a decider whose events name the step that is due.
//! * [`processes`]: A process joins events of many streams, and has timers and parallel commands.
//! * `step`: A step appends its commands and the saga's record of them in one transaction.
//! * [`provider`] and `retry`: Calls to external providers, with an idempotency key and a time
//!   budget.
//! * `deadlines`: A deadline makes the watchdog check a stream that makes no progress.
//!
//! ## Protect personal data
//!
//! * [`personal_data`]: A [`Sealed`](personal_data::Sealed) is an encrypted value in an event. A
//!   `Key` of its subject encrypts it, and a `MasterKey` wraps that key. Without the key, every copy
//!   is unreadable.
//!
//! ## Run on Lambda, and operate
//!
//! * [`system`]: The registry of an application, a [`System`], names each aggregate, saga,
//!   process and read model once. Schemas, past states, rebuilds and audits follow from it.
//! * `cairn_aws::lambda`: A handler gets its clients and environment variables from an `AppContext`. The
//!   module adapts HTTP requests, bus events, stream records and saga steps to handlers.
//! * [`input`]: Strict JSON input, with a pointer to every invalid field.
//! * `dead_letter`: A dead letter is the failed invocation, so a redrive repeats it.
//! * `audit`: The findings of an audit, which compares streams, rows and deadlines.
//! * `guard`: Switches for tests. They prove that a guarantee fails without its check.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none | the pure core: deciders, codec, sagas, read models; no executor and no AWS crate |
//! | `store` | asynchronous modules: `store`, `repository`, `relay`, `gate`, `step`, `retry`; ciphers |
//! | `schema-compat` | `schema::breaking`, for tests |
//! | `unguarded` | switches for the guards, for tests only |
//!
//! # Guarantees
//!
//! - A command is handled once per command id, while fewer than 64 other commands
//!   (`RecentCommands::CAPACITY`) follow it on its stream. A command that begins a stream, and a
//!   step of a saga, are handled once without this limit.
//! - The versions of a stream have no gaps, and its times never decrease. Streams have no common
//!   order.
//! - Every committed event is published at least once. A reader behind a version gate applies it
//!   once and in order.
//! - A saga ends completed or compensated, or it is stuck with a step and a reason.
//!
//! Some things are absent on purpose. The kit knows no order, no customer and no SKU. It has no
//! time window for the recognition of a repeated command, and no coordinator that could fail
//! between two steps of a saga.
//!
//! # Limits of AWS
//!
//! | limit | consequence |
//! |---|---|
//! | [400 KB per item][item-size] | a larger commit is rejected first: `store::MAX_COMMIT_BYTES` |
//! | [100 items and 4 MB per transaction][transaction] | `store::MAX_COMMITS_PER_APPEND` |
//! | [1 MB per page of a query][page-size] | every read follows its pages |
//! | [ten minutes per transaction token][transaction] | later, the write conditions apply |
//! | [24 hours per stream record][retention] | a mapping has a lower maximum record age |
//! | [two readers per DynamoDB Stream][quotas] | the relay and the deadline tracker |
//! | [10 entries per `PutEvents`][put] | `relay::MAX_ENTRIES`; a failed entry is retried |
//! | [256 KB per entry, 1 MB since January 2026][entry] | `relay::MAX_BYTES`; else by reference |
//! | [24 hours or 185 retries per delivery of a rule][rule] | then a dead letter |
//! | [two retries per asynchronous invocation][invocation] | then a dead letter |
//! | [10 messages per `ReceiveMessage`][receive] | a redrive calls it until the queue is empty |
//!
//! [item-size]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
//! [transaction]: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html
//! [page-size]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html
//! [retention]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html
//! [quotas]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
//! [put]: https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
//! [entry]: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
//! [rule]: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html
//! [invocation]: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
//! [receive]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]

// The derives name the crate `cairn`.
#[cfg(test)]
extern crate self as cairn;

mod command;
mod events;
mod operations;
mod outbox;
pub mod personal_data;
mod process;
mod projection;
#[cfg(feature = "store")]
pub mod store;

#[cfg(feature = "store")]
use command::moments;
#[cfg(feature = "store")]
pub use command::repository;
pub use command::{api, decider, input, spec};
use events::structure;
pub use events::{causality, commit, event, metadata, schema, stream, timestamp};
pub use operations::system;
pub use outbox::cloudevent;
pub use process::{processes, provider, saga};
pub use projection::read_model;
#[cfg(feature = "store")]
pub use {process::step, projection::gate};

// For the other crates of the kit. An application does not name their items.
#[doc(hidden)]
#[cfg(feature = "store")]
pub use command::{loaded_stream, recent_commands, retry};
#[doc(hidden)]
pub use events::{error, guard, hash, snapshot};
#[doc(hidden)]
pub use operations::audit;
#[doc(hidden)]
pub use outbox::dead_letter;
#[doc(hidden)]
pub use process::deadlines;
#[doc(hidden)]
pub use projection::generation;
#[doc(hidden)]
#[cfg(feature = "store")]
pub use {operations::past, outbox::relay};

pub use cairn_macros::{Event, Input, Row, Step};
pub use commit::{Commit, Context, RecordedEvent};
pub use decider::{Aggregate, Decider};
pub use event::StoredEvent;
pub use input::Input;
pub use metadata::Metadata;
pub use stream::StreamId;
pub use system::System;
pub use timestamp::Timestamp;

/// The crates that the code of the derives uses.
#[doc(hidden)]
pub mod __private {
    pub use schemars;
    pub use serde;
    pub use serde_json;
}
