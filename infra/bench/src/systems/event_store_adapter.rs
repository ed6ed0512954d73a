//! event-store-adapter-rs, set up as in its README, and with a snapshot every ten events as in its
//! author's example application.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client as Sdk,
    primitives::Blob,
    types::{AttributeValue, PutRequest, WriteRequest},
};
use chrono::Utc;
use event_store_adapter_rs::{
    AggregateId, DynamoDbOptions, DynamoDbTables, EventEnvelope, EventStoreError,
    EventStoreForDynamoDB, SnapshotEnvelope,
};
use serde_json::{Value, json};

use store_bench::{
    Failed,
    order::{Event, State},
    service::Client,
    systems::{System, sdk, table},
};

const SNAPSHOT_EVERY: u64 = 10;
/// The maximum number of writes in one `BatchWriteItem`.
const SEEDED_AT_ONCE: usize = 25;

#[derive(Clone, Debug)]
pub(crate) struct OrderId(String);

impl AggregateId for OrderId {
    fn type_name(&self) -> String {
        "Order".to_owned()
    }

    fn value(&self) -> String {
        self.0.clone()
    }
}

/// A repository as in the library's example.
#[derive(Clone)]
pub(crate) struct Adapter<const SNAPSHOTS: bool> {
    sdk: Sdk,
    store: Arc<EventStoreForDynamoDB<OrderId, State, Event>>,
}

pub(crate) type EventStoreAdapter = Adapter<false>;
pub(crate) type EventStoreAdapterSnapshots = Adapter<true>;

impl<const SNAPSHOTS: bool> Adapter<SNAPSHOTS> {
    async fn find(&self, id: &OrderId) -> Result<(State, u64), Failed> {
        let read = self
            .store
            .get_latest_snapshot_by_id(id)
            .await
            .map_err(failed)?;
        let Some(read) = read else {
            return Ok((State::default(), 0));
        };
        let (snapshot, head) = read.into_parts();
        let from = snapshot.as_ref().map_or(0, SnapshotEnvelope::seq_nr);
        let events = if from < head {
            let events = self.store.get_events_by_id_since_seq_nr(id, from + 1);
            events.await.map_err(failed)?
        } else {
            vec![]
        };
        let version = events.last().map_or(from, EventEnvelope::seq_nr);
        let mut state = snapshot
            .map(SnapshotEnvelope::into_aggregate)
            .unwrap_or_default();
        for event in events {
            state.apply(&event.into_payload());
        }
        Ok((state, version))
    }

    async fn persist(
        &self,
        id: &OrderId,
        version: u64,
        event: Event,
        state: &State,
    ) -> Result<(), Failed> {
        let event = EventEnvelope::new(id.clone(), version, Utc::now(), event);
        let persisted = if SNAPSHOTS && (version == 1 || version.is_multiple_of(SNAPSHOT_EVERY)) {
            let snapshot = SnapshotEnvelope::new(state.clone(), version);
            self.store.persist_event_and_snapshot(event, snapshot).await
        } else {
            self.store.persist_event(event).await
        };
        persisted.map(drop).map_err(failed)
    }
}

impl<const SNAPSHOTS: bool> System for Adapter<SNAPSHOTS> {
    const NAME: &'static str = if SNAPSHOTS {
        "event-store-adapter-rs, snapshots every 10"
    } else {
        "event-store-adapter-rs"
    };
    const READS_WHOLE_STREAMS: bool = !SNAPSHOTS;

    fn tables() -> Vec<Value> {
        let mut snapshots = table("snapshot", "aid", Some("skey"));
        snapshots["AttributeDefinitions"] = json!([
            { "AttributeName": "aid", "AttributeType": "S" },
            { "AttributeName": "skey", "AttributeType": "N" },
            { "AttributeName": "active_history_seq_nr", "AttributeType": "N" },
        ]);
        snapshots["GlobalSecondaryIndexes"] = json!([{
            "IndexName": "snapshot-history",
            "KeySchema": [
                { "AttributeName": "aid", "KeyType": "HASH" },
                { "AttributeName": "active_history_seq_nr", "KeyType": "RANGE" },
            ],
            "Projection": { "ProjectionType": "KEYS_ONLY" },
        }]);
        vec![
            table("journal", "aid", Some("seq_nr")),
            snapshots,
            table("head", "aid", None),
        ]
    }

    async fn open(client: &Client) -> Result<Self, Failed> {
        let sdk = sdk(client);
        let tables = DynamoDbTables {
            journal_table_name: "journal".to_owned(),
            snapshot_table_name: "snapshot".to_owned(),
            head_table_name: "head".to_owned(),
            snapshot_history_index_name: "snapshot-history".to_owned(),
        };
        let opened = EventStoreForDynamoDB::open(sdk.clone(), tables, DynamoDbOptions::default());
        Ok(Self {
            sdk,
            store: Arc::new(opened.await.map_err(failed)?),
        })
    }

    /// It has no cache.
    fn cold(&self) -> Self {
        self.clone()
    }

    /// The library writes one event per transaction. Batches write the same items faster.
    async fn seed(&self, id: &str, events: u64) -> Result<(), Failed> {
        let aid = AttributeValue::S(format!("Order-{id}"));
        let mut state = State::default();
        let mut batch = vec![];
        for version in 1..=events {
            let event = state.place().or_else(|| state.change(1).pop());
            let event = event.ok_or_else(|| Failed::new("nothing happens"))?;
            state.apply(&event);
            if version == events {
                // The library writes the last one, so that the head item is its own.
                self.flush(&mut batch).await?;
                self.seed_head(&aid, version - 1, &event).await?;
                let id = OrderId(id.to_owned());
                return self.persist(&id, version, event, &state).await;
            }
            batch.push((
                "journal",
                item(
                    &aid,
                    [
                        ("seq_nr", number(version)),
                        ("occurred_at", number(1_700_000_000_000_000_000)),
                        ("manifest", AttributeValue::S(String::new())),
                        ("payload", payload(&event)?),
                    ],
                ),
            ));
            let is_last =
                version + SNAPSHOT_EVERY >= events && version.is_multiple_of(SNAPSHOT_EVERY);
            if SNAPSHOTS && is_last {
                batch.push((
                    "snapshot",
                    item(
                        &aid,
                        [
                            ("skey", number(0)),
                            ("seq_nr", number(version)),
                            ("manifest", AttributeValue::S(String::new())),
                            ("payload", payload(&state)?),
                            ("last_updated_at", number(1_700_000_000_000)),
                        ],
                    ),
                ));
            }
            if batch.len() >= SEEDED_AT_ONCE - 1 {
                self.flush(&mut batch).await?;
            }
        }
        Ok(())
    }

    async fn place(&self, id: &str, _: &str) -> Result<(), Failed> {
        let mut state = State::default();
        let placed = state.place().ok_or_else(|| Failed::new("placed already"))?;
        state.apply(&placed);
        self.persist(&OrderId(id.to_owned()), 1, placed, &state)
            .await
    }

    /// Commits one event at a time: the library has no commit of several.
    async fn change(&self, id: &str, _: &str, events: u64) -> Result<(), Failed> {
        let id = OrderId(id.to_owned());
        let (mut state, version) = self.find(&id).await?;
        for (version, event) in (version + 1..).zip(state.clone().change(events)) {
            state.apply(&event);
            self.persist(&id, version, event, &state).await?;
        }
        Ok(())
    }

    async fn load(&self, id: &str) -> Result<u64, Failed> {
        let (state, _) = self.find(&OrderId(id.to_owned())).await?;
        Ok(1 + state.changes)
    }
}

type Item = std::collections::HashMap<String, AttributeValue>;

impl<const SNAPSHOTS: bool> Adapter<SNAPSHOTS> {
    async fn seed_head(
        &self,
        aid: &AttributeValue,
        version: u64,
        last: &Event,
    ) -> Result<(), Failed> {
        if version == 0 {
            return Ok(());
        }
        let event = Item::from([
            ("seq_nr".to_owned(), number(version)),
            ("occurred_at".to_owned(), number(1_700_000_000_000_000_000)),
            ("manifest".to_owned(), AttributeValue::S(String::new())),
            ("payload".to_owned(), payload(last)?),
        ]);
        let head = item(
            aid,
            [
                ("type_name", AttributeValue::S("Order".to_owned())),
                ("seq_nr", number(version)),
                ("events", AttributeValue::L(vec![AttributeValue::M(event)])),
            ],
        );
        self.flush(&mut vec![("head", head)]).await
    }

    async fn flush(&self, batch: &mut Vec<(&'static str, Item)>) -> Result<(), Failed> {
        let mut requests = std::collections::HashMap::<String, Vec<WriteRequest>>::new();
        for (table, item) in batch.drain(..) {
            let put = PutRequest::builder().set_item(Some(item)).build();
            let put = put.map_err(Failed::new)?;
            let request = WriteRequest::builder().put_request(put).build();
            requests.entry(table.to_owned()).or_default().push(request);
        }
        if requests.is_empty() {
            return Ok(());
        }
        let written = self
            .sdk
            .batch_write_item()
            .set_request_items(Some(requests));
        written.send().await.map(drop).map_err(Failed::new)
    }
}

fn item<const N: usize>(aid: &AttributeValue, values: [(&str, AttributeValue); N]) -> Item {
    let values = values.map(|(name, value)| (name.to_owned(), value));
    let aid = ("aid".to_owned(), aid.clone());
    values.into_iter().chain([aid]).collect()
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn payload(value: &impl serde::Serialize) -> Result<AttributeValue, Failed> {
    let json = serde_json::to_vec(value).map_err(Failed::new)?;
    Ok(AttributeValue::B(Blob::new(json)))
}

fn failed(error: EventStoreError) -> Failed {
    match error {
        EventStoreError::OptimisticLock { .. } => Failed::Conflict,
        other => Failed::new(other),
    }
}
