//! Read models in memory, for tests. They combine events as the tables do.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::{Advance, Checkpointed, DeliveryError};
use crate::{
    commit::RecordedEvent,
    event::CodecError,
    read_model::{
        CounterBatch, CounterKey, CounterModel, CounterProjection, ReadModel, Row, RowBatch,
        RowModel,
    },
    stream::StreamId,
};

/// The rows of a read model. A write is one row.
#[derive(Debug)]
pub struct MemoryRows {
    model: RowModel,
    stored: Mutex<Stored<BTreeMap<String, Row>>>,
}

/// The counters of a read model. A write is one transaction, or one item without a transaction.
#[derive(Debug)]
pub struct MemoryCounters {
    model: CounterModel,
    stored: Mutex<Stored<Sums>>,
}

/// Counters by row and name.
pub type CounterRows = BTreeMap<CounterKey, BTreeMap<String, i64>>;

#[derive(Debug, Default)]
struct Stored<T> {
    content: T,
    writes: Vec<usize>,
}

#[derive(Debug, Default)]
struct Sums {
    gates: BTreeMap<StreamId, u64>,
    counters: CounterRows,
}

impl MemoryRows {
    /// Creates a table without rows.
    pub fn new<M: ReadModel>() -> Self {
        Self {
            model: RowModel::new::<M>(),
            stored: Mutex::default(),
        }
    }

    /// Returns the rows by their keys.
    pub fn rows(&self) -> BTreeMap<String, Row> {
        lock(&self.stored).content.clone()
    }

    /// Returns the number of writes that took effect.
    pub fn writes(&self) -> usize {
        lock(&self.stored).writes.len()
    }
}

impl MemoryCounters {
    /// Creates a table without counters.
    pub fn new<T: CounterProjection>() -> Self {
        Self {
            model: CounterModel::new::<T>(),
            stored: Mutex::default(),
        }
    }

    /// Returns the counters.
    pub fn counters(&self) -> CounterRows {
        lock(&self.stored).content.counters.clone()
    }

    /// Returns the number of items of each write that took effect. An item of a transaction of
    /// several takes two write request units for each kilobyte.
    pub fn writes(&self) -> Vec<usize> {
        lock(&self.stored).writes.clone()
    }
}

impl Checkpointed for MemoryRows {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        self.model.target(stream)
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        let (batch, taken) = RowBatch::new(&self.model, events)?;
        let Some(first) = events.first() else {
            return Ok(Advance::Applied(0));
        };
        let row_key = (self.model.row_key)(&first.stream);
        let key = row_key.map_or("", |row_key| row_key.key);
        let mut stored = lock(&self.stored);
        let mut row = stored.content.get(key).cloned().unwrap_or_else(|| {
            let key = Value::from(key);
            Row::from_iter([(self.model.key.to_owned(), key)])
        });
        let is_next = |(gate, (before, _)): (&&str, &(u64, u64))| gate_of(&row, gate) == *before;
        if !batch.gates.iter().all(is_next) {
            let gates = self.model.gates_of(events, |gate| gate_of(&row, gate));
            return Ok(Advance::NotNext(gates));
        }
        let applied = batch.apply(self.model.key, &mut row);
        applied.map_err(|(path, problem)| CodecError::Change {
            event: first.id(),
            path,
            problem,
        })?;
        stored.content.insert(key.to_owned(), row);
        stored.writes.push(1);
        Ok(Advance::Applied(taken))
    }
}

fn gate_of(row: &Row, gate: &str) -> u64 {
    row.get(gate).and_then(Value::as_u64).unwrap_or(0)
}

impl Checkpointed for MemoryCounters {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        self.model.target(stream)
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        let (batch, taken) = CounterBatch::new(&self.model, events)?;
        let items = batch.items();
        let mut stored = lock(&self.stored);
        let at = |stream: &StreamId| stored.content.gates.get(stream).copied().unwrap_or(0);
        let refused = batch.gates.iter();
        let refused = refused.filter(|(stream, (before, _))| at(stream) != *before);
        let refused: BTreeMap<_, _> = refused
            .map(|(stream, _)| (stream.clone(), at(stream)))
            .collect();
        if !refused.is_empty() {
            return Ok(Advance::NotNext(refused));
        }
        for (stream, (_, version)) in batch.gates {
            stored.content.gates.insert(stream, version);
        }
        for (key, counters) in batch.counters {
            let row = stored.content.counters.entry(key).or_default();
            for (name, by) in counters {
                *row.entry(name).or_default() += by;
            }
        }
        stored.writes.push(items);
        Ok(Advance::Applied(taken))
    }
}

fn lock<T>(stored: &Mutex<T>) -> MutexGuard<'_, T> {
    stored.lock().unwrap_or_else(PoisonError::into_inner)
}
