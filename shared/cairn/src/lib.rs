//! Event sourcing on AWS Lambda and DynamoDB.
//!
//! An aggregate is three pure functions. What they decide is appended to `DynamoDB` with one conditional write, is published
//! from the table's stream, and has its effect on each reader once. This is a whole program; on Lambda the store is
//! `dynamodb::DynamoStore` and the rest stays as it is:
//!
#![cfg_attr(feature = "store", doc = "```")]
#![cfg_attr(not(feature = "store"), doc = "```ignore")]
//! use std::{error::Error, sync::Arc, time::Duration};
//!
//! use cairn::{Aggregate, Context, Decider, StreamId, Timestamp, event};
//! use cairn::{repository::Repository, spec::given, store::memory::MemoryStore};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug)] struct GiftCard;
//!
//! enum Command { Load(u64), Spend(u64) }
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! #[serde(tag = "type", content = "data")]
//! enum Event {
//!     #[serde(rename = "CardLoaded")]
//!     Loaded { amount: u64 },
//!     #[serde(rename = "CardSpent")]
//!     Spent { amount: u64 },
//! }
//! impl event::Event for Event {}
//!
//! #[derive(Debug, PartialEq, thiserror::Error)]
//! #[error("there is not enough on the card")]
//! struct NotEnough;
//!
//! impl Decider for GiftCard {
//!     type State = u64;
//!     type Command = Command;
//!     type Event = Event;
//!     type Rejection = NotEnough;
//!     fn initial() -> u64 { 0 }
//!     fn decide(left: &u64, command: &Command) -> Result<Vec<Event>, NotEnough> {
//!         match *command {
//!             Command::Load(amount) => Ok(vec![Event::Loaded { amount }]),
//!             Command::Spend(amount) if amount <= *left => Ok(vec![Event::Spent { amount }]),
//!             Command::Spend(_) => Err(NotEnough),
//!         }
//!     }
//!     fn evolve(left: u64, event: &Event) -> u64 {
//!         match *event {
//!             Event::Loaded { amount } => left.saturating_add(amount),
//!             Event::Spent { amount } => left.saturating_sub(amount),
//!         }
//!     }
//! }
//! impl Aggregate for GiftCard { const CATEGORY: &'static str = "card"; }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn Error>> {
//!     given::<GiftCard>([Event::Loaded { amount: 50 }]).when(&Command::Spend(70)).then_rejected(&NotEnough);
//!     let cards = Repository::<GiftCard, _>::new(Arc::new(MemoryStore::default()));
//!     let card = StreamId::new(GiftCard::CATEGORY, "4711")?;
//!     let now = Timestamp::now();
//!     let asked = |id: &str| Context::new(id, now, Duration::from_secs(5));
//!     cards.handle(&card, &Command::Load(50), &asked("load-1")).await?;
//!     let spent = cards.handle(&card, &Command::Spend(20), &asked("spend-1")).await?;
//!     assert_eq!((spent.current.state, spent.current.version), (30, 2));
//!     // The same command again, because its answer was lost: nothing happens, and the answer is the same.
//!     let again = cards.handle(&card, &Command::Spend(20), &asked("spend-1")).await?;
//!     assert!(again.replayed && again.current.state == 30);
//!     Ok(())
//! }
//! ```
//!
//! # A guided tour
//!
//! In the order in which data flows:
//!
//! 1. [`decider`]: an aggregate is three pure functions. Commands are checked against state, events come out.
//!    [`spec`] tests one as *given these events, when this command, then those events*.
//! 2. [`event`] gives an event its stored form, [`schema`] tells which changes of that its readers survive, [`commit`] puts the events of one command into one item,
//!    some of them with a [`snapshot`] of the state.
//! 3. `store` appends a commit with one conditional write and reads a stream back; `repository` runs
//!    commands against it, safely under retries and conflicts, at the fewest calls.
//! 4. `relay` turns commits of the table's stream into [`cloudevent`] envelopes and publishes them.
//! 5. `gate` applies an event to a [`read_model`] once and in order, whatever the bus does.
//! 6. [`saga`] says which step of a process is due; `step` does it and records it in one transaction;
//!    [`deadlines`] finds what does not go on.
//! 7. [`audit`] says whether all of that holds together.
//! 8. [`dead_letter`] keeps what could not be handled, to be handled later.
//! 9. [`sealed`] stands in events where personal data would; `seal` opens it for as long as its subject's key is there.
//! 10. `lambda` is the edge: one function, its settings, its clients, its problem documents. `operator` is
//!    the way in for people.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none | the pure core: deciders, the codec, sagas, read models. No executor, no AWS crate |
//! | `store` | what waits: `store` with `store::memory`, `repository`, `relay`, `gate`, `step`, `retry` |
//! | `aws` | `dynamodb`, `eventbridge`, `sqs`, `mail`, `functions`, and `lambda`, the edge |
//! | `operator` | what people use: the way in to a running stack |
//! | `unguarded` | for tests only: switches for the [guards](guard) |
//!
//! # What holds
//!
//! - A command is carried out once for each id, as long as fewer than
//!   64 others (`RecentCommands::CAPACITY`) came after it on its stream; what begins a stream, and a saga's steps, for ever.
//! - A stream's versions have no gaps, and its times do not go back. There is no order among streams.
//! - Every committed event is published, at least once. Each reader behind a version gate takes it in once and in order.
//! - A saga ends: completed, undone, or stuck with a place and a reason.
//!
//! What is absent on purpose: this crate knows no order, no customer and no SKU; it has no time window within which
//! a repetition is recognised, and no coordinator that could fail between two steps.
//!
//! # The limits of AWS
//!
//! | limit | how it is kept |
//! |---|---|
//! | [an item has 400 KB](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html) | a larger commit is refused before the write: `store::MAX_COMMIT_BYTES` |
//! | [a transaction has 100 items, and 4 MB](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html) | `store::MAX_STREAMS_PER_APPEND`; `DynamoDB` refuses what is larger, and nothing is written |
//! | [a query's page has 1 MB](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html) | every read follows its pages |
//! | [a token of a transaction counts for ten minutes](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html) | after that the conditions recognise it |
//! | [a table's stream keeps a record for 24 hours](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html), and [feeds two readers](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html) | the mapping's maximum age is below; there are two readers, the relay and the deadlines |
//! | [`PutEvents` takes 10 entries](https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html), each of which may fail | `relay::MAX_ENTRIES`; what failed is published again |
//! | [an entry had 256 KB, now 1 MB](https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html) | `relay::MAX_BYTES`; a larger event goes by reference |
//! | [a rule's target is tried for 24 hours or 185 times](https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html) | then it is a [dead letter](dead_letter) |
//! | [a function that fails is tried twice more](https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html) | then it is a [dead letter](dead_letter) |
//! | [`ReceiveMessage` gives 10 messages](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html) | a redrive asks until there are none |

pub mod audit;
pub mod causality;
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
pub mod schema;
pub mod sealed;
pub mod snapshot;
pub mod spec;
pub mod stream;
pub mod timestamp;

#[cfg(feature = "store")]
pub mod gate;
#[cfg(feature = "store")]
pub mod loaded_stream;
#[cfg(feature = "store")]
pub mod recent_commands;
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
pub mod kms;
#[cfg(feature = "aws")]
pub mod lambda;
#[cfg(feature = "aws")]
pub mod lazy_client;
#[cfg(feature = "aws")]
pub mod mail;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "aws")]
pub mod seal;
#[cfg(feature = "aws")]
pub mod sqs;

pub use commit::{Commit, Context, RecordedEvent, StoredEvent};
pub use decider::{Aggregate, Decider};
pub use stream::StreamId;
pub use timestamp::Timestamp;
