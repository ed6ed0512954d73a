//! Event sourcing on AWS Lambda and DynamoDB.
//!
//! A guided tour, in the order in which data flows:
//!
//! 1. [`decider`]: an aggregate is three pure functions. Commands are checked against state, events come out.
//!    [`spec`] tests one as *given these events, when this command, then those events*.
//! 2. [`event`] gives an event its stored form, [`commit`] puts the events of one command into one item,
//!    some of them with a [`snapshot`] of the state.
//! 3. `store` appends a commit with one conditional write and reads a stream back; `repository` runs
//!    commands against it, safely under retries and conflicts, at the fewest calls.
//! 4. `relay` turns commits of the table's stream into [`cloudevent`] envelopes and publishes them.
//! 5. `gate` applies an event to a [`read_model`] once and in order, whatever the bus does.
//! 6. [`saga`] says which step of a process is due; `step` does it and records it in one transaction;
//!    [`deadlines`] finds what does not go on.
//! 7. [`audit`] says whether all of that holds together.
//! 8. [`dead_letter`] keeps what could not be handled, to be handled later.
//! 9. `lambda` is the edge: one function, its settings, its clients, its problem documents. `operator` is
//!    the way in for people.
//!
//! What is absent on purpose: this crate knows no order, no customer and no SKU; the modules above
//! that stand in links build without an executor or an AWS crate (features `store`, `aws` and `operator` add the rest).

pub mod audit;
pub mod cloudevent;
pub mod commit;
pub mod dead_letter;
pub mod deadlines;
pub mod decider;
pub mod event;
pub mod generation;
pub mod guard;
pub mod hash;
pub mod input;
pub mod provider;
pub mod read_model;
pub mod saga;
pub mod snapshot;
pub mod spec;
pub mod stream;
pub mod timestamp;

#[cfg(feature = "store")]
pub mod current;
#[cfg(feature = "store")]
pub mod gate;
#[cfg(feature = "store")]
pub mod relay;
#[cfg(feature = "store")]
pub mod repository;
#[cfg(feature = "store")]
pub mod retry;
#[cfg(feature = "store")]
pub mod step;
#[cfg(feature = "store")]
pub mod store;

#[cfg(feature = "aws")]
pub mod dynamodb;
#[cfg(feature = "aws")]
pub mod eventbridge;
#[cfg(feature = "aws")]
pub mod functions;
#[cfg(feature = "aws")]
pub mod lambda;
#[cfg(feature = "aws")]
pub mod mail;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "aws")]
pub mod sqs;

pub use commit::{Commit, Context, RecordedEvent, StoredEvent};
pub use decider::{Aggregate, Decider};
pub use stream::StreamId;
pub use timestamp::Timestamp;
