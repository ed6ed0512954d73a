//! The read models of an application, compared with the events that they have applied.

use std::collections::BTreeMap;

use cairn::{
    RecordedEvent, StreamId,
    read_model::{AnyReadModel, CounterModel, RowModel, fold_any},
};
use serde_json::Value;

use crate::{
    invariants::{Violation, violation},
    observed::Observed,
    running::Projection,
};

/// Streams with those of their events that a projection has applied.
type Applied<'a> = [(&'a StreamId, &'a [RecordedEvent])];

impl Projection {
    /// Returns the version gate of each stream that the projection follows; 0 without a row.
    pub(crate) fn gates<'a>(&self, seen: &'a Observed) -> BTreeMap<&'a StreamId, u64> {
        let (rows, streams) = (seen.table(&self.table), seen.streams.keys());
        match &self.model {
            AnyReadModel::Rows(model) => {
                let rows = by_key(rows, model.key);
                let gates = streams.filter_map(|stream| {
                    let row_key = (model.row_key)(stream)?;
                    let row = rows.get(row_key.key);
                    let gate = row.and_then(|row| row.get(row_key.gate)?.as_u64());
                    Some((stream, gate.unwrap_or(0)))
                });
                gates.collect()
            }
            AnyReadModel::Counters(model) => {
                let [partition, _] = KEYS;
                let rows = by_key(rows, partition);
                let counted = streams.filter(|stream| (model.shard)(stream).is_some());
                let gates = counted.map(|stream| {
                    let row = rows.get(format!("{GATE}{stream}").as_str());
                    let gate = row.and_then(|row| row.get("version")?.as_u64());
                    (stream, gate.unwrap_or(0))
                });
                gates.collect()
            }
        }
    }

    /// Compares the rows with the events up to their gates. Events beyond a gate may be missing
    /// only for a known reason.
    pub(crate) fn compare(&self, seen: &Observed) -> Vec<Violation> {
        let (mut applied, mut violations) = (vec![], vec![]);
        for (stream, gate) in self.gates(seen) {
            let events = seen.stream(stream);
            let at = usize::try_from(gate).unwrap_or(usize::MAX);
            let (before, after) = events.split_at(at.min(events.len()));
            let explained =
                |event: &&RecordedEvent| seen.is_explained(&self.function, stream, event.version);
            match after.iter().find(|event| !explained(event)) {
                None => applied.push((stream, before)),
                Some(event) => violations.push(violation(
                    stream.key(),
                    format!("{} did not apply {}", self.function, event.id()),
                )),
            }
        }
        let rows = seen.table(&self.table);
        violations.extend(match &self.model {
            AnyReadModel::Rows(model) => row_differences(model, rows, &applied),
            AnyReadModel::Counters(model) => counter_differences(model, rows, &applied),
        });
        violations
    }
}

fn by_key<'a>(rows: &'a [Value], key: &str) -> BTreeMap<&'a str, &'a Value> {
    let keyed = rows
        .iter()
        .filter_map(|row| Some((row.get(key)?.as_str()?, row)));
    keyed.collect()
}

fn row_differences(model: &RowModel, rows: &[Value], applied: &Applied<'_>) -> Vec<Violation> {
    let mut events = BTreeMap::<&str, Vec<&RecordedEvent>>::new();
    for (stream, applied) in applied {
        if let Some(row_key) = (model.row_key)(stream) {
            events.entry(row_key.key).or_default().extend(*applied);
        }
    }
    let (rows, name) = (by_key(rows, model.key), model.name);
    let mut violations = vec![];
    for (key, events) in events {
        let row = rows.get(key).copied();
        let expected = fold_any(model, None, events).ok().flatten();
        let expected = expected.map(Value::Object);
        if row != expected.as_ref() {
            let problem = format!("{name} has {row:?}, expected {expected:?}");
            violations.push(violation(key, problem));
        }
    }
    violations
}

/// The partition key and the sort key of a table of counters.
const KEYS: [&str; 2] = ["partition", "row"];
/// The prefix of the partition key of a version gate.
const GATE: &str = "gate#";

/// Counters by partition and row.
type Counters = BTreeMap<[String; 2], BTreeMap<String, i64>>;

fn counter_differences(
    model: &CounterModel,
    rows: &[Value],
    applied: &Applied<'_>,
) -> Vec<Violation> {
    let (mut stored, mut expected) = (Counters::new(), Counters::new());
    for row in rows {
        let text = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let key = KEYS.map(|name| text(name).to_owned());
        if key.iter().any(|name| name.starts_with(GATE)) {
            continue;
        }
        let counters = row.as_object().into_iter().flatten();
        let counters = counters.filter_map(|(name, value)| Some((name.clone(), value.as_i64()?)));
        stored.insert(key, counters.collect());
    }
    let events = applied.iter().flat_map(|(_, events)| *events);
    for change in events.flat_map(|event| (model.counts)(event).unwrap_or_default()) {
        let counters = expected.entry([change.partition, change.row]).or_default();
        for (name, by) in change.add {
            *counters.entry(name).or_default() += by;
        }
    }
    let mut keys = stored.keys().chain(expected.keys());
    let differs = keys.find(|key| stored.get(*key) != expected.get(*key));
    let violation = differs.map(|key| {
        let (stored, expected) = (stored.get(key), expected.get(key));
        let problem = format!("{key:?} has {stored:?}, expected {expected:?}");
        violation(model.name, problem)
    });
    violation.into_iter().collect()
}
