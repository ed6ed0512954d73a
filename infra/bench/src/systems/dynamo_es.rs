//! dynamo-es with cqrs-es, set up as in its README, and with its snapshots every hundred events.

use std::sync::Arc;

use aws_sdk_dynamodb::Client as Sdk;
use cqrs_es::{
    Aggregate, AggregateContext, AggregateError, DomainEvent, EventStore,
    event_sink::EventSink,
    persist::{PersistedEventRepository, PersistedEventStore, SerializedEvent},
};
use dynamo_es::{DynamoCqrs, DynamoEventRepository, dynamodb_cqrs, dynamodb_snapshot_cqrs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use store_bench::{
    Failed,
    order::{self, State},
    service::Client,
    systems::{System, sdk, table},
};

const SNAPSHOT_EVERY: usize = 100;
/// A transaction of the store has at most 25 writes, and a hundredth event must end one.
const SEEDED_AT_ONCE: usize = 20;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Order(State);

#[derive(Debug)]
pub(crate) enum Command {
    Place,
    /// Change it this number of times.
    Change(u64),
}

/// The event of every system, for which the framework wants a trait of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Event(order::Event);

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self.0 {
            order::Event::Placed { .. } => "OrderPlaced".to_owned(),
            order::Event::Changed { .. } => "OrderChanged".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Rejection(&'static str);

impl Aggregate for Order {
    const TYPE: &'static str = "Order";
    type Command = Command;
    type Event = Event;
    type Error = Rejection;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Rejection> {
        match command {
            Command::Place => {
                let placed = self.0.place().ok_or(Rejection("placed already"))?;
                sink.write(Event(placed), self).await;
            }
            Command::Change(times) => {
                let changes = self.0.change(times);
                if changes.is_empty() {
                    return Err(Rejection("not placed"));
                }
                for change in changes {
                    sink.write(Event(change), self).await;
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        self.0.apply(&event.0);
    }
}

/// The framework with one SDK client.
#[derive(Clone)]
pub(crate) struct Whole<const SNAPSHOTS: bool> {
    sdk: Sdk,
    cqrs: Arc<DynamoCqrs<Order>>,
}

/// The setup of its README.
pub(crate) type DynamoEs = Whole<false>;
/// With its snapshot store.
pub(crate) type DynamoEsSnapshots = Whole<true>;

impl<const SNAPSHOTS: bool> System for Whole<SNAPSHOTS> {
    const NAME: &'static str = if SNAPSHOTS {
        "dynamo-es, snapshots every 100"
    } else {
        "dynamo-es"
    };
    const READS_WHOLE_STREAMS: bool = !SNAPSHOTS;

    fn tables() -> Vec<Value> {
        vec![
            table("Events", "AggregateTypeAndId", Some("AggregateIdSequence")),
            table("Snapshots", "AggregateTypeAndId", None),
        ]
    }

    async fn open(client: &Client) -> Result<Self, Failed> {
        let sdk = sdk(client);
        let cqrs = if SNAPSHOTS {
            dynamodb_snapshot_cqrs(sdk.clone(), vec![], SNAPSHOT_EVERY, ())
        } else {
            dynamodb_cqrs(sdk.clone(), vec![], ())
        };
        Ok(Self {
            sdk,
            cqrs: Arc::new(cqrs),
        })
    }

    /// It has no cache.
    fn cold(&self) -> Self {
        self.clone()
    }

    async fn seed(&self, id: &str, events: u64) -> Result<(), Failed> {
        let repository = DynamoEventRepository::new(self.sdk.clone());
        let mut state = State::default();
        let mut batch = vec![];
        let events = usize::try_from(events).map_err(Failed::new)?;
        for sequence in 1..=events {
            let event = state.place().or_else(|| state.change(1).pop());
            let event = event.ok_or_else(|| Failed::new("nothing happens"))?;
            state.apply(&event);
            let event = Event(event);
            batch.push(SerializedEvent::new(
                id.to_owned(),
                sequence,
                Order::TYPE.to_owned(),
                event.event_type(),
                event.event_version(),
                serde_json::to_value(&event).map_err(Failed::new)?,
                json!({}),
            ));
            if batch.len() == SEEDED_AT_ONCE || sequence == events {
                let snapshot = (SNAPSHOTS && sequence % SNAPSHOT_EVERY == 0)
                    .then(|| serde_json::to_value(Order(state.clone())))
                    .transpose()
                    .map_err(Failed::new)?
                    .map(|state| (id.to_owned(), state, sequence / SNAPSHOT_EVERY));
                let persisted = repository.persist::<Order>(&batch, snapshot).await;
                persisted.map_err(Failed::new)?;
                batch.clear();
            }
        }
        Ok(())
    }

    async fn place(&self, id: &str, _: &str) -> Result<(), Failed> {
        let placed = self.cqrs.execute(id, Command::Place).await;
        placed.map_err(failed)
    }

    async fn change(&self, id: &str, _: &str, events: u64) -> Result<(), Failed> {
        let changed = self.cqrs.execute(id, Command::Change(events)).await;
        changed.map_err(failed)
    }

    async fn load(&self, id: &str) -> Result<u64, Failed> {
        let repository = DynamoEventRepository::new(self.sdk.clone());
        let store = if SNAPSHOTS {
            PersistedEventStore::<_, Order>::new_snapshot_store(repository, SNAPSHOT_EVERY)
        } else {
            PersistedEventStore::<_, Order>::new_event_store(repository)
        };
        let mut loaded = store.load_aggregate(id).await.map_err(failed)?;
        Ok(1 + loaded.aggregate().0.changes)
    }
}

fn failed(error: AggregateError<Rejection>) -> Failed {
    match error {
        AggregateError::AggregateConflict => Failed::Conflict,
        other => Failed::new(other),
    }
}
