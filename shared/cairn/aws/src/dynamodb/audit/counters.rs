//! The audit of counters and of their version gates.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::future::try_join_all;
use serde_json::Value;

use super::{
    AT_ONCE, Stopped,
    rows::{differing, examine, note, stored},
    version,
};
use crate::dynamodb::{Counters, DynamoStore, Key, Projection, ScannedRow, history::Scanned};
use cairn::{
    audit::{Finding, Omitted, Report, Scope},
    commit::{Commit, RecordedEvent},
    hash::fnv1a,
    read_model::Row,
    store::{EventStore, ReadRange, StoreError},
    stream::StreamId,
};

/// Compares counters with the sums of the events up to the version gates.
///
/// A counter that is equal before and after the sum did not change in between. Neither did the
/// gates of its events, because one transaction moves both. Counters that changed are skipped.
///
/// In a scope that is not everything, only the version gates are checked.
pub(super) async fn counters(
    counters: &Counters,
    store: &DynamoStore,
    scope: &Scope,
    report: &mut Report,
) -> Result<(), StoreError> {
    let name = counters.name();
    if *scope != Scope::default() {
        let projection = name.to_owned();
        report.omitted.insert(Omitted::Counters { projection });
        return gates(counters, store, scope, report).await;
    }
    let mut batches = vec![ScanBatch::ALL];
    while let Some(batch) = batches.pop() {
        let mut sums = Sums::new(batch, Sums::AT_ONCE);
        stored_sums(counters, store, &mut sums, report).await?;
        sum_events(counters, store, &mut sums, report).await?;
        for (key, sum) in sums.rows {
            let attributes = sum.differing();
            let look = if attributes.is_empty() {
                Ok(None)
            } else if counters.table().item(&key).await? != sum.stored {
                Err(Stopped::Broken)
            } else {
                let (projection, key) = (name.to_owned(), key.to_string());
                Ok(Some(if sum.expected.is_empty() {
                    Finding::NoEvents { projection, key }
                } else {
                    Finding::RowDiffers {
                        projection,
                        key,
                        attributes,
                    }
                }))
            };
            note(name, look, report);
        }
        batches.extend(sums.put_off);
    }
    Ok(())
}

/// Checks that no version gate of a part, or of the changed streams, is ahead of its stream.
async fn gates(
    counters: &Counters,
    store: &DynamoStore,
    scope: &Scope,
    report: &mut Report,
) -> Result<(), StoreError> {
    let (table, name) = (counters.table(), counters.name());
    let part = match scope {
        Scope::Part(part) => *part,
        Scope::Changed { streams, .. } => {
            let counted = streams
                .iter()
                .filter(|stream| (counters.model.shard)(stream).is_some());
            let keys = counted.map(<Counters>::gate_of).collect();
            let gates = stored(table, keys).await?;
            return examine(name, &gates, |gate| reaches(name, gate, store), report).await;
        }
    };
    let (segment, segments) = part.segment();
    let mut from = None;
    loop {
        let (mut found, next) = table.part(segment, segments, from).await?;
        found.retain(|row| row.generation == table.generation() && is_gate(row));
        examine(name, &found, |gate| reaches(name, gate, store), report).await?;
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

fn is_gate(row: &ScannedRow) -> bool {
    row.key.partition().starts_with(<Counters>::GATES)
}

/// Reads the counters of a batch, and checks that no version gate is ahead of its stream.
async fn stored_sums(
    counters: &Counters,
    store: &DynamoStore,
    sums: &mut Sums,
    report: &mut Report,
) -> Result<(), StoreError> {
    let (table, name) = (counters.table(), counters.name());
    let is_first = sums.batch.residue == 0;
    let mut from = None;
    loop {
        let (found, next) = table.items(from).await?;
        let mut gates = vec![];
        for row in found {
            if row.generation != table.generation() {
                continue;
            }
            if is_gate(&row) {
                gates.push(row);
            } else if let Some(sum) = sums.at(row.key) {
                sum.stored = Some(row.row);
            }
        }
        if is_first {
            examine(name, &gates, |gate| reaches(name, gate, store), report).await?;
        }
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Finds a version gate that is ahead of its stream.
async fn reaches(
    name: &str,
    gate: &ScannedRow,
    store: &DynamoStore,
) -> Result<Option<Finding>, Stopped> {
    let (projection, key) = (name.to_owned(), gate.key.to_string());
    let stream = gate.key.partition().strip_prefix(<Counters>::GATES);
    let Some(stream) = stream.and_then(|stream| stream.parse::<StreamId>().ok()) else {
        return Ok(Some(Finding::NoEvents { projection, key }));
    };
    let at = version(&gate.row, <Counters>::GATE);
    let Some(last) = store.last(&stream).await? else {
        return Ok(Some(Finding::NoEvents { projection, key }));
    };
    let head = last.map_err(|_| Stopped::Broken)?.last_version();
    Ok((head < at).then_some(Finding::RowAhead {
        projection,
        key,
        stream,
        at,
        head,
    }))
}

/// Adds up the changes of a batch of counters by all events up to their version gates.
async fn sum_events(
    counters: &Counters,
    store: &DynamoStore,
    sums: &mut Sums,
    report: &mut Report,
) -> Result<(), StoreError> {
    let is_first = sums.batch.residue == 0;
    let mut add = |sums: &mut Sums, event: &RecordedEvent| match (counters.model.counts)(event) {
        Ok(counts) => {
            for count in counts {
                if let Some(sum) = sums.at(Key::from(&count)) {
                    sum.add(count.add);
                }
            }
        }
        Err(error) => {
            if let Stopped::Finding(finding) = Stopped::unreadable(event, &error)
                && is_first
            {
                report.add(finding);
            }
        }
    };
    let mut gates = HashMap::<StreamId, u64>::new();
    let mut current: Option<(StreamId, u64)> = None;
    let mut after = None;
    loop {
        let Scanned { items, next } = store.scan(0, 1, after.as_ref()).await?;
        gates.retain(|stream, _| current.as_ref().is_some_and(|(now, _)| now == stream));
        let commits: Vec<_> = items.into_iter().flatten().collect();
        let new: BTreeSet<_> = commits.iter().map(|commit| &commit.stream).collect();
        let new = new
            .into_iter()
            .filter(|stream| !gates.contains_key(*stream));
        let new: Vec<_> = new
            .filter_map(|stream| Some((stream, (counters.model.shard)(stream)?)))
            .collect();
        for some in new.chunks(AT_ONCE) {
            let mut reads = vec![];
            for (stream, _) in some {
                reads.push(gate_at(counters, stream));
            }
            gates.extend(try_join_all(reads).await?);
        }
        for commit in &commits {
            let Some(gate) = gates.get(&commit.stream).copied() else {
                continue;
            };
            if let Some((stream, last)) = current.take_if(|(now, _)| *now != commit.stream) {
                let gate = gates.get(&stream).copied().unwrap_or(0);
                for event in since(store, &stream, last, gate).await? {
                    add(sums, &event);
                }
            }
            for event in commit.recorded().filter(|event| event.version <= gate) {
                add(sums, &event);
            }
            let before = current.take().map_or(0, |(_, last)| last);
            current = Some((commit.stream.clone(), commit.last_version().max(before)));
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    if let Some((stream, last)) = current {
        let gate = gates.get(&stream).copied().unwrap_or(0);
        for event in since(store, &stream, last, gate).await? {
            add(sums, &event);
        }
    }
    Ok(())
}

async fn gate_at(counters: &Counters, stream: &StreamId) -> Result<(StreamId, u64), StoreError> {
    let item = counters.table().item(&<Counters>::gate_of(stream)).await?;
    let at = item.map_or(0, |gate| version(&gate, <Counters>::GATE));
    Ok((stream.clone(), at))
}

/// Returns the events up to the version gate that were appended after the stream was read.
async fn since(
    store: &DynamoStore,
    stream: &StreamId,
    last: u64,
    gate: u64,
) -> Result<Vec<RecordedEvent>, StoreError> {
    if gate <= last {
        return Ok(vec![]);
    }
    let range = ReadRange {
        to: gate,
        ..ReadRange::after(last)
    };
    let commits = match store.read(stream, &range).await {
        Err(StoreError::Corrupt { .. }) => vec![],
        commits => commits?,
    };
    let events = commits.iter().flat_map(Commit::recorded);
    Ok(events
        .filter(|event| event.version > last && event.version <= gate)
        .collect())
}

/// A part of all counters: those whose hash leaves the residue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScanBatch {
    residue: u32,
    of: u32,
}

impl ScanBatch {
    const ALL: Self = Self { residue: 0, of: 1 };

    fn has(self, key: &Key) -> bool {
        fnv1a(&key.to_string()) % self.of == self.residue
    }

    fn halves(self) -> (Self, Self) {
        let of = self.of.saturating_mul(2);
        let residue = self.residue + self.of;
        (Self { of, ..self }, Self { residue, of })
    }
}

/// The counters of a batch. If they are too many, the batch is halved, and another pass over the
/// events handles the other half.
struct Sums {
    batch: ScanBatch,
    most: usize,
    rows: HashMap<Key, Sum>,
    put_off: Vec<ScanBatch>,
}

impl Sums {
    /// This number of rows takes some tens of megabytes.
    const AT_ONCE: usize = 50_000;

    fn new(batch: ScanBatch, most: usize) -> Self {
        Self {
            batch,
            most,
            rows: HashMap::new(),
            put_off: vec![],
        }
    }

    fn at(&mut self, key: Key) -> Option<&mut Sum> {
        while self.batch.has(&key) && self.rows.len() >= self.most && !self.rows.contains_key(&key)
        {
            let (batch, other) = self.batch.halves();
            self.batch = batch;
            self.put_off.push(other);
            self.rows.retain(|key, _| batch.has(key));
        }
        self.batch
            .has(&key)
            .then(|| self.rows.entry(key).or_default())
    }
}

/// A stored row of counters, and its expected values.
#[derive(Default)]
struct Sum {
    stored: Option<Row>,
    expected: BTreeMap<String, i64>,
}

impl Sum {
    fn add(&mut self, counters: Vec<(String, i64)>) {
        for (name, by) in counters {
            *self.expected.entry(name).or_default() += by;
        }
    }

    fn differing(&self) -> BTreeSet<String> {
        let expected = self.expected.iter();
        let expected: Row = expected
            .map(|(name, sum)| (name.clone(), Value::from(*sum)))
            .collect();
        match &self.stored {
            Some(stored) => differing(stored, &expected),
            None => expected.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::new([("partition", "minute"), ("row", &number.to_string())])
    }

    #[test]
    fn counters_that_are_too_many_at_once_are_all_added_up_in_several_passes() {
        let (mut batches, mut passes, mut seen) =
            (vec![ScanBatch::ALL], 0, HashMap::<Key, i64>::new());
        while let Some(batch) = batches.pop() {
            let mut sums = Sums::new(batch, 10);
            for number in (0..100).chain(0..100) {
                if let Some(sum) = sums.at(key(number)) {
                    sum.add(vec![("placed".to_owned(), 1)]);
                }
                assert!(sums.rows.len() <= 10);
            }
            passes += 1;
            batches.extend(sums.put_off);
            for (key, sum) in sums.rows {
                let before = seen.insert(key, sum.expected["placed"]);
                assert_eq!(before, None, "a key is in two batches");
            }
        }
        assert_eq!(seen.len(), 100);
        assert!(seen.values().all(|count| *count == 2), "{seen:?}");
        assert!(passes >= 10, "{passes}");
    }
}
