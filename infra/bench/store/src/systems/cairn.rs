//! Cairn.

use std::{sync::Arc, time::Duration};

use cairn::{
    Aggregate, Context, Decider, StreamId, Timestamp, commit::fingerprint, event,
    repository::HandleError,
};
use cairn_aws::dynamodb::{DynamoStore, Repository};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Failed,
    order::{Event, State},
    service::Client,
    systems::{System, sdk, table},
};

const TABLE: &str = "Events";

/// The default snapshot interval of an aggregate.
pub const DEFAULT_INTERVAL: u32 = 16;

/// The order as a decider, with a snapshot every `EVERY` commits.
#[derive(Debug)]
pub struct Order<const EVERY: u32>;

#[derive(Clone, Debug, Serialize)]
pub enum Command {
    Place,
    /// Change it this number of times.
    Change(u64),
}

impl event::Event for Event {}

impl<const EVERY: u32> Decider for Order<EVERY> {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = &'static str;

    fn decide(state: &State, command: &Command) -> Result<Vec<Event>, &'static str> {
        match command {
            Command::Place => state
                .place()
                .map(|placed| vec![placed])
                .ok_or("placed already"),
            Command::Change(times) => match state.change(*times) {
                none if none.is_empty() => Err("not placed"),
                changes => Ok(changes),
            },
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        state.apply(event);
        state
    }
}

impl<const EVERY: u32> Aggregate for Order<EVERY> {
    type Id = String;

    const CATEGORY: &'static str = "order";
    const SNAPSHOT_EVERY: u32 = EVERY;
}

#[derive(Clone, Debug)]
pub struct CairnEvery<const EVERY: u32> {
    store: DynamoStore,
    orders: Arc<Repository<Order<EVERY>>>,
}

pub type Cairn = CairnEvery<DEFAULT_INTERVAL>;

impl<const EVERY: u32> CairnEvery<EVERY> {
    fn new(store: DynamoStore) -> Self {
        Self {
            orders: Arc::new(Repository::new(store.clone())),
            store,
        }
    }
}

impl<const EVERY: u32> System for CairnEvery<EVERY> {
    const NAME: &'static str = "cairn";
    const READS_WHOLE_STREAMS: bool = false;

    fn tables() -> Vec<Value> {
        vec![table(TABLE, "stream", Some("version"))]
    }

    async fn open(client: &Client) -> Result<Self, Failed> {
        Ok(Self::new(DynamoStore::new(sdk(client), TABLE.to_owned())))
    }

    fn cold(&self) -> Self {
        Self::new(self.store.clone())
    }

    async fn seed(&self, id: &str, events: u64) -> Result<(), Failed> {
        self.place(id, &format!("{id}-seed-0")).await?;
        for n in 1..events {
            self.change(id, &format!("{id}-seed-{n}"), 1).await?;
        }
        Ok(())
    }

    async fn place(&self, id: &str, command: &str) -> Result<(), Failed> {
        let (stream, context) = (stream(id)?, context(command, &Command::Place)?);
        let placed = self.orders.create(&stream, &Command::Place, &context);
        placed.await.map(drop).map_err(failed)
    }

    async fn change(&self, id: &str, command: &str, events: u64) -> Result<(), Failed> {
        let change = Command::Change(events);
        let (stream, context) = (stream(id)?, context(command, &change)?);
        let changed = self.orders.handle(&stream, &change, &context);
        changed.await.map(drop).map_err(failed)
    }

    async fn load(&self, id: &str) -> Result<u64, Failed> {
        let loaded = self.orders.load(&stream(id)?).await.map_err(Failed::new)?;
        Ok(loaded.version)
    }
}

pub fn stream(id: &str) -> Result<StreamId, Failed> {
    StreamId::new("order", id).map_err(Failed::new)
}

/// Returns the context of an HTTP request. Ids are as long as UUIDs.
pub fn context(id: &str, command: &Command) -> Result<Context, Failed> {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).to_string();
    Ok(Context {
        fingerprint: Some(fingerprint(command).map_err(Failed::new)?),
        ..Context::new(id, Timestamp::now(), Duration::from_mins(1))
    })
}

fn failed(error: HandleError<&'static str>) -> Failed {
    match error {
        HandleError::Contended => Failed::Conflict,
        other => Failed::new(other),
    }
}
