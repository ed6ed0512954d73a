//! Events in batches: the rows are those of one delivery after the other, with fewer writes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

use std::{
    borrow::Cow,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use cairn::{
    Commit, RecordedEvent, StoredEvent, StreamId, Timestamp,
    event::CodecError,
    gate::{
        Advance, Checkpointed, Delivered, Delivery, DeliveryError, deliver_all,
        memory::{MemoryCounters, MemoryRows},
    },
    read_model::{Change, CounterChange, CounterProjection, ReadModel, RowKey},
    store::{AppendError, EventStore, ReadRange, StoreError, memory::MemoryStore},
};
use fastrand::Rng;
use serde_json::{Value, json, value::to_raw_value};

/// Rows that follow two streams, whose events contain their changes: `["set", path, value]`,
/// `["add", path, by]`.
struct Parcel;

impl ReadModel for Parcel {
    const NAME: &'static str = "parcels";
    const TABLE: &'static str = "PARCELS_TABLE";
    const KEY: &'static str = "id";

    fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
        let gate = match stream.category() {
            "parcel" => "version",
            "label" => "labelVersion",
            _ => return None,
        };
        Some(RowKey {
            key: stream.key(),
            gate,
        })
    }

    fn streams(_: &str) -> Vec<StreamId> {
        vec![]
    }

    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
        let changes: Vec<(String, String, Value)> =
            serde_json::from_str(event.event.data.get()).map_err(|_| unreadable(event))?;
        let change = |(kind, path, value): (String, String, Value)| match kind.as_str() {
            "set" => Change::set(path, value),
            _ => Change::Add(path.into(), value.as_i64().unwrap()),
        };
        Ok(changes.into_iter().map(change).collect())
    }
}

fn unreadable(event: &RecordedEvent) -> CodecError {
    CodecError::Change {
        event: event.id(),
        path: String::new(),
        problem: "it is unreadable",
    }
}

/// Counts the events of parcels by name.
struct Names;

impl CounterProjection for Names {
    const NAME: &'static str = "names";
    const TABLE: &'static str = "NAMES_TABLE";

    fn shard(stream: &StreamId) -> Option<u32> {
        let shard = u32::from(stream.key() > "2");
        (stream.category() == "parcel").then_some(shard)
    }

    fn counts(event: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError> {
        Parcel::changes(event)?;
        let shard = Self::shard(&event.stream).unwrap();
        let all = ("all".to_owned(), 1);
        let rows = ["day", "hour"].map(|row| CounterChange {
            partition: format!("{row}#{shard}"),
            row: row.to_owned(),
            add: vec![(event.event.name.clone(), 1), all.clone()],
        });
        Ok(rows.to_vec())
    }
}

/// A store that counts its reads.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    reads: AtomicU32,
}

impl EventStore for Counting {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        self.store.append(commits).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.read(stream, range).await
    }
}

/// A table that loses writes: before they take effect, or only their answer.
struct Lossy<P> {
    table: P,
    /// Of 100 writes, the number that are lost before they take effect, and after it.
    lost: [u32; 2],
    random: Mutex<Rng>,
}

impl<P> Lossy<P> {
    fn new(table: P, lost: [u32; 2], seed: u64) -> Self {
        Self {
            table,
            lost,
            random: Mutex::new(Rng::with_seed(seed)),
        }
    }

    fn call(&self, lost: u32) -> Result<(), DeliveryError> {
        if self.random.lock().unwrap().u32(..100) < lost {
            return Err(DeliveryError::Unavailable("the call was lost".into()));
        }
        Ok(())
    }
}

impl<P: Checkpointed> Checkpointed for Lossy<P> {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        self.table.target(stream)
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        self.call(self.lost[0])?;
        let advanced = self.table.advance(events).await?;
        self.call(self.lost[1])?;
        Ok(advanced)
    }
}

fn event(name: &str, changes: &Value) -> StoredEvent {
    StoredEvent {
        name: name.to_owned(),
        schema: 1,
        data: to_raw_value(changes).unwrap(),
    }
}

/// Appends a stream with one commit, and returns its events.
async fn stream(store: &impl EventStore, stream: &str, changes: &[Value]) -> Vec<RecordedEvent> {
    let events = changes.iter().map(|changes| event("Changed", changes));
    let at = Timestamp::from_millis(7);
    let commit = Commit::new(stream.parse().unwrap(), 1, "c", at, events.collect());
    store.append(std::slice::from_ref(&commit)).await.unwrap();
    commit.recorded().collect()
}

fn add(path: &str, by: i64) -> Value {
    json!([["add", path, by]])
}

fn outcomes(delivered: &[Delivered]) -> Vec<String> {
    let text = |outcome: &Delivered| match outcome {
        Ok(delivery) => delivery.name().to_owned(),
        Err(error) if error.is_transient() => "unavailable".to_owned(),
        Err(_) => "permanent".to_owned(),
    };
    delivered.iter().map(text).collect()
}

/// Any changes of a row, of which some cannot be combined.
fn any_changes(random: &mut Rng, version: u64) -> Value {
    if version == 1 {
        return json!([["set", "map", { "n": 1 }]]);
    }
    match random.u32(..7) {
        0 => json!([
            ["add", "count", random.i64(1..9)],
            ["set", "status", version]
        ]),
        1 => json!([["add", "map.n", random.i64(-3..9)]]),
        2 => json!([["set", "map", { "n": version }]]),
        3 => json!([["set", "count", random.i64(1..9)]]),
        4 => json!([]),
        _ => add("count", random.i64(-3..9)),
    }
}

async fn any_streams(random: &mut Rng, store: &MemoryStore) -> Vec<RecordedEvent> {
    let mut events = vec![];
    for key in 0..5 {
        let changes: Vec<_> = (1..=random.u64(1..9))
            .map(|version| any_changes(random, version))
            .collect();
        events.extend(stream(store, &format!("parcel-{key}"), &changes).await);
        let labels: Vec<_> = (0..random.u32(1..4))
            .map(|label| json!([["set", "label", label], ["add", "labels", 1]]))
            .collect();
        events.extend(stream(store, &format!("label-{key}"), &labels).await);
        events.extend(stream(store, &format!("other-{key}"), &[add("count", 1)]).await);
    }
    events
}

/// Delivers all events in any order, some of them twice, in batches of any size. A failed event is
/// delivered again.
async fn deliver_in_batches(
    random: &mut Rng,
    table: &impl Checkpointed,
    store: &MemoryStore,
    events: &[RecordedEvent],
    most: usize,
) {
    let again = (0..events.len() / 2).map(|_| random.usize(..events.len()));
    let again: Vec<_> = again.map(|index| events[index].clone()).collect();
    let mut waiting: Vec<_> = events.iter().cloned().chain(again).collect();
    while !waiting.is_empty() {
        random.shuffle(&mut waiting);
        let size = random.usize(1..=most.min(waiting.len()));
        let batch: Vec<_> = waiting.drain(..size).collect();
        let delivered = deliver_all(table, store, &batch).await;
        for (event, outcome) in batch.into_iter().zip(delivered) {
            match outcome {
                Ok(_) => {}
                Err(error) if error.is_transient() => waiting.push(event),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn any_batches_of_any_order_with_duplicates_and_lost_calls_give_the_rows_of_one_by_one() {
    for seed in 0..60 {
        let mut random = Rng::with_seed(seed);
        let store = MemoryStore::default();
        let events = any_streams(&mut random, &store).await;
        let (alone, sums) = (MemoryRows::new::<Parcel>(), MemoryCounters::new::<Names>());
        for event in events.chunks(1) {
            deliver_all(&alone, &store, event).await[0]
                .as_ref()
                .unwrap();
            deliver_all(&sums, &store, event).await[0].as_ref().unwrap();
        }
        for (most, lost) in [(1, [0, 0]), (10, [0, 0]), (100, [0, 0]), (10, [20, 20])] {
            let rows = Lossy::new(MemoryRows::new::<Parcel>(), lost, seed);
            deliver_in_batches(&mut random, &rows, &store, &events, most).await;
            assert_eq!(rows.table.rows(), alone.rows(), "seed {seed}");
            let counters = Lossy::new(MemoryCounters::new::<Names>(), lost, seed);
            deliver_in_batches(&mut random, &counters, &store, &events, most).await;
            assert_eq!(counters.table.counters(), sums.counters(), "seed {seed}");
            assert!(rows.table.writes() <= alone.writes(), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn the_events_of_a_row_that_wait_in_a_batch_are_one_write() {
    let store = Counting::default();
    let mut events = stream(&store, "parcel-1", &vec![add("count", 1); 7]).await;
    events.extend(stream(&store, "label-1", &vec![add("labels", 1); 3]).await);
    events.reverse();
    let rows = MemoryRows::new::<Parcel>();
    let delivered = deliver_all(&rows, &store, &events).await;
    assert_eq!(outcomes(&delivered), ["applied"; 10]);
    assert_eq!(rows.writes(), 1);
    let expected = json!({ "id": "1", "count": 7, "version": 7, "labels": 3, "labelVersion": 3 });
    assert_eq!(json!(rows.rows()["1"]), expected);
    assert_eq!(store.reads.load(Ordering::Relaxed), 0);
    let again = deliver_all(&rows, &store, &events).await;
    assert_eq!(outcomes(&again), ["duplicate"; 10]);
    assert_eq!(rows.writes(), 1);
}

#[tokio::test]
async fn the_events_of_a_shard_that_wait_in_a_batch_are_one_transaction() {
    let store = MemoryStore::default();
    let mut events = vec![];
    for key in 10..20 {
        let created = stream(&store, &format!("parcel-{key}"), &[json!([]), json!([])]).await;
        events.extend(created);
    }
    let counters = MemoryCounters::new::<Names>();
    let delivered = deliver_all(&counters, &store, &events).await;
    assert_eq!(outcomes(&delivered), ["applied"; 20]);
    assert_eq!(counters.writes(), [10 + 2], "ten gates, and two rows");
}

#[tokio::test]
async fn a_batch_with_a_gap_is_one_read_and_one_write() {
    let store = Counting::default();
    let events = stream(&store, "parcel-1", &vec![add("count", 1); 8]).await;
    let rows = MemoryRows::new::<Parcel>();
    let batch = [&events[2], &events[5], &events[5], &events[6]].map(Clone::clone);
    let delivered = deliver_all(&rows, &store, &batch).await;
    let gaps: Vec<_> = delivered.into_iter().map(Result::unwrap).collect();
    let expected = [
        Delivery::CaughtUp(2),
        Delivery::CaughtUp(2),
        Delivery::Duplicate,
        Delivery::Applied,
    ];
    assert_eq!(gaps, expected);
    assert_eq!((rows.writes(), store.reads.load(Ordering::Relaxed)), (1, 1));
    assert_eq!(rows.rows()["1"]["count"], 7);
}

#[tokio::test]
async fn an_event_that_cannot_be_applied_fails_alone_with_the_later_events_of_its_stream() {
    let store = MemoryStore::default();
    for poison in [json!("unreadable"), json!([["set", "none.a", 1]])] {
        let (key, other) = (poison.to_string().len(), "label");
        let changes = [add("count", 1), poison, add("count", 1)];
        let mut events = stream(&store, &format!("parcel-{key}"), &changes).await;
        events.extend(stream(&store, &format!("{other}-{key}"), &[add("labels", 1)]).await);
        events.extend(stream(&store, &format!("parcel-9{key}"), &[add("count", 1)]).await);
        let rows = MemoryRows::new::<Parcel>();
        let delivered = deliver_all(&rows, &store, &events).await;
        let expected = ["applied", "permanent", "permanent", "applied", "applied"];
        assert_eq!(outcomes(&delivered), expected);
        let row = &rows.rows()[&key.to_string()];
        assert_eq!(
            (&row["version"], &row["labelVersion"]),
            (&json!(1), &json!(1))
        );
    }
}

/// A table in which the writes of one row fail.
struct Throttled(MemoryRows, &'static str);

impl Checkpointed for Throttled {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        self.0.target(stream)
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        if events[0].stream.key() == self.1 {
            return Err(DeliveryError::Unavailable("throttled".into()));
        }
        self.0.advance(events).await
    }
}

#[tokio::test]
async fn an_unavailable_table_fails_the_events_whose_rows_were_not_written() {
    let store = MemoryStore::default();
    let mut events = stream(&store, "parcel-1", &[add("count", 1), add("count", 1)]).await;
    events.extend(stream(&store, "parcel-2", &[add("count", 1)]).await);
    let rows = Throttled(MemoryRows::new::<Parcel>(), "1");
    let delivered = deliver_all(&rows, &store, &events).await;
    assert_eq!(
        outcomes(&delivered),
        ["unavailable", "unavailable", "applied"]
    );
    let delivered = deliver_all(&rows.0, &store, &events).await;
    assert_eq!(outcomes(&delivered), ["applied", "applied", "duplicate"]);
}

#[tokio::test]
async fn a_crash_between_the_write_and_the_answer_has_no_effect_on_the_rows() {
    let store = MemoryStore::default();
    let events = stream(&store, "parcel-1", &vec![add("count", 1); 5]).await;
    let lossy = Lossy::new(MemoryRows::new::<Parcel>(), [0, 100], 1);
    let delivered = deliver_all(&lossy, &store, &events[..3]).await;
    assert_eq!(outcomes(&delivered), ["unavailable"; 3]);
    let delivered = deliver_all(&lossy.table, &store, &events).await;
    let expected = ["duplicate", "duplicate", "duplicate", "applied", "applied"];
    assert_eq!(outcomes(&delivered), expected);
    assert_eq!(lossy.table.rows()["1"]["count"], 5);
}
