//! The changes of several events, combined for one write.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Change, CounterChange, CounterModel, Row, RowModel, apply, overlap, set as set_attribute,
};
use crate::{commit::RecordedEvent, event::CodecError, stream::StreamId};

/// The changes of events to one row: each gate and each attribute once.
#[derive(Clone, Debug, Default)]
pub struct RowBatch {
    /// The versions of each gate before and after the events.
    pub gates: BTreeMap<&'static str, (u64, u64)>,
    /// The changes. Those of several events do not overlap.
    pub changes: Vec<Change>,
}

impl RowBatch {
    /// The maximum number of changes of several events, because an expression is limited to 4 KB.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
    const MOST_CHANGES: usize = 50;

    /// Combines the first events of a row whose changes fit into one write, at least one, and
    /// returns their number. The events of each stream must be consecutive.
    ///
    /// # Errors
    /// Returns an error if the first event cannot be decoded.
    pub fn new(model: &RowModel, events: &[&RecordedEvent]) -> Result<(Self, usize), CodecError> {
        let (mut batch, mut taken) = (Self::default(), 0);
        for event in events {
            let Some(row_key) = (model.row_key)(&event.stream) else {
                break;
            };
            match (model.changes)(event) {
                Ok(changes) if taken == 0 => batch.changes = changes,
                Ok(changes) if batch.combine(&changes) => {}
                Err(error) if taken == 0 => return Err(error),
                Ok(_) | Err(_) => break,
            }
            let before = event.version.saturating_sub(1);
            let gate = batch.gates.entry(row_key.gate).or_insert((before, before));
            gate.1 = event.version;
            taken += 1;
        }
        Ok((batch, taken))
    }

    /// Adds the changes of the next event. Returns false, and changes nothing, if one write cannot
    /// have the same result as two.
    fn combine(&mut self, changes: &[Change]) -> bool {
        let mut combined = Vec::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            let (path, others) = (change.path(), changes.iter().take(index));
            if others.clone().any(|other| overlap(other.path(), path)) {
                return false;
            }
            let mut earlier = self.changes.iter();
            let earlier = earlier.position(|earlier| overlap(earlier.path(), path));
            let change = match earlier.and_then(|earlier| self.changes.get(earlier)) {
                Some(earlier) => match earlier.then(change) {
                    Some(change) => change,
                    None => return false,
                },
                None => change.clone(),
            };
            combined.push((earlier, change));
        }
        let added = combined.iter().filter(|(earlier, _)| earlier.is_none());
        if self.changes.len() + added.count() > Self::MOST_CHANGES {
            return false;
        }
        for (earlier, change) in combined {
            match earlier.and_then(|earlier| self.changes.get_mut(earlier)) {
                Some(earlier) => *earlier = change,
                None => self.changes.push(change),
            }
        }
        true
    }

    /// Applies the changes to a row whose key attribute has this name, and moves the gates. The row
    /// is undefined after an error.
    ///
    /// # Errors
    /// Returns the path of a change that `UpdateItem` rejects, and the reason.
    pub fn apply(self, key: &str, row: &mut Row) -> Result<(), (String, &'static str)> {
        // `UpdateItem` accepts no overlapping paths, and no change of the key.
        let gates = self.gates.keys().map(|gate| (*gate).to_owned());
        let mut taken: Vec<_> = gates.chain([key.to_owned()]).collect();
        for change in self.changes {
            let path = change.path().to_owned();
            let applied = if taken.iter().any(|other| overlap(other, &path)) {
                Err("it overlaps with the key, the gate, or another change of the event")
            } else {
                apply(row, change)
            };
            applied.map_err(|problem| (path.clone(), problem))?;
            taken.push(path);
        }
        for (gate, (_, version)) in self.gates {
            set_attribute(row, gate, version.into());
        }
        Ok(())
    }
}

impl Change {
    /// Returns the change that has the result of this change and a later one. `None`: the two need
    /// two writes.
    fn then(&self, later: &Self) -> Option<Self> {
        if self.path() != later.path() {
            return None;
        }
        match (self, later) {
            (Self::Set(..), Self::Set(..)) => Some(later.clone()),
            (Self::Set(path, value), Self::Add(_, by)) => {
                let sum = value.as_i64()?.checked_add(*by)?;
                Some(Self::Set(path.clone(), Value::from(sum)))
            }
            (Self::Add(path, one), Self::Add(_, other)) => {
                Some(Self::Add(path.clone(), one.checked_add(*other)?))
            }
            // The addition fails if the attribute is no number.
            (Self::Add(..), Self::Set(..)) => None,
        }
    }
}

/// The partition key and the sort key of a row of counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterKey {
    /// See [`CounterChange::partition`].
    pub partition: String,
    /// See [`CounterChange::row`].
    pub row: String,
}

/// The additions of several events in one transaction: each gate and each row of counters once.
#[derive(Clone, Debug, Default)]
pub struct CounterBatch {
    /// The versions of each stream before and after the events.
    pub gates: BTreeMap<StreamId, (u64, u64)>,
    /// The additions by row and counter.
    pub counters: BTreeMap<CounterKey, BTreeMap<String, i64>>,
}

impl CounterBatch {
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
    pub const MOST_ITEMS: usize = 100;
    /// The maximum number of counters per row, because an expression is limited to 4 KB.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
    pub const MOST_COUNTERS: usize = 200;

    /// Takes the first events that fit into one transaction, at least one, and returns their
    /// number. The events of each stream must be consecutive.
    ///
    /// # Errors
    /// Returns an error if the first event cannot be decoded.
    pub fn new(
        model: &CounterModel,
        events: &[&RecordedEvent],
    ) -> Result<(Self, usize), CodecError> {
        let (mut batch, mut taken) = (Self::default(), 0);
        for event in events {
            let counts = match (model.counts)(event) {
                Ok(counts) if taken == 0 || batch.has_room(event, &counts) => counts,
                Err(error) if taken == 0 => return Err(error),
                Ok(_) | Err(_) => break,
            };
            batch.add(event, counts);
            taken += 1;
        }
        Ok((batch, taken))
    }

    /// Returns the number of items of the transaction.
    pub fn items(&self) -> usize {
        self.gates.len() + self.counters.len()
    }

    fn has_room(&self, event: &RecordedEvent, counts: &[CounterChange]) -> bool {
        let mut items = self.items() + usize::from(!self.gates.contains_key(&event.stream));
        let mut is_short = true;
        for count in counts {
            match self.counters.get(&CounterKey::from(count)) {
                Some(counters) => {
                    is_short &= counters.len() + count.add.len() <= Self::MOST_COUNTERS;
                }
                None => items += 1,
            }
        }
        is_short && items <= Self::MOST_ITEMS
    }

    fn add(&mut self, event: &RecordedEvent, counts: Vec<CounterChange>) {
        let before = event.version.saturating_sub(1);
        let gate = self.gates.entry(event.stream.clone());
        gate.or_insert((before, before)).1 = event.version;
        for count in counts {
            let counters = self.counters.entry(CounterKey::from(&count)).or_default();
            for (name, by) in count.add {
                let sum = counters.entry(name).or_default();
                *sum = sum.saturating_add(by);
            }
        }
    }
}

impl From<&CounterChange> for CounterKey {
    fn from(count: &CounterChange) -> Self {
        Self {
            partition: count.partition.clone(),
            row: count.row.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        event::StoredEvent, metadata::Metadata, read_model::CounterProjection, timestamp::Timestamp,
    };

    struct Names;

    const NAMES: CounterModel = CounterModel::new::<Names>();

    impl CounterProjection for Names {
        const NAME: &'static str = "names";
        const TABLE: &'static str = "NAMES_TABLE";

        fn shard(_: &StreamId) -> Option<u32> {
            Some(0)
        }

        fn counts(event: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError> {
            Ok(vec![CounterChange {
                partition: "all".to_owned(),
                row: "row".to_owned(),
                add: vec![(event.event.name.clone(), 1)],
            }])
        }
    }

    fn event(stream: &str, version: u64, name: &str) -> RecordedEvent {
        RecordedEvent {
            stream: stream.parse().unwrap(),
            version,
            at: Timestamp::from_millis(7),
            metadata: Metadata::default(),
            event: StoredEvent {
                name: name.to_owned(),
                schema: 1,
                data: serde_json::value::to_raw_value(&json!({})).unwrap(),
            },
        }
    }

    #[test]
    fn events_that_are_counted_together_move_each_gate_once_and_add_up() {
        let events = [
            event("order-a", 3, "Placed"),
            event("order-a", 4, "Placed"),
            event("order-b", 1, "Placed"),
        ];
        let all: Vec<_> = events.iter().collect();
        let (batch, taken) = CounterBatch::new(&NAMES, &all).unwrap();
        assert_eq!(taken, 3);
        let gates: Vec<_> = batch.gates.into_values().collect();
        assert_eq!(gates, [(2, 4), (0, 1)]);
        let counters: Vec<_> = batch.counters.into_values().collect();
        assert_eq!(counters, [BTreeMap::from([("Placed".to_owned(), 3)])]);
    }

    #[test]
    fn a_transaction_takes_no_more_than_there_is_room_for() {
        let fitting = |events: Vec<RecordedEvent>| {
            let events: Vec<_> = events.iter().collect();
            CounterBatch::new(&NAMES, &events).unwrap().1
        };
        let streams = (0..150).map(|number| event(&format!("order-{number}"), 1, "Placed"));
        assert_eq!(
            fitting(streams.collect()),
            99,
            "one item holds the counters"
        );
        let names = (1..=300).map(|version| event("order-a", version, &format!("Event{version}")));
        assert_eq!(fitting(names.collect()), 200);
    }

    #[test]
    fn changes_combine_only_if_one_write_has_the_result_of_two() {
        let set = |path: &'static str, value: Value| Change::set(path, value);
        let add = |path: &'static str, by| Change::Add(path.into(), by);
        for (first, second, combined) in [
            (add("a", 1), add("a", 2), Some(vec![add("a", 3)])),
            (
                add("a", 1),
                add("b", 2),
                Some(vec![add("a", 1), add("b", 2)]),
            ),
            (
                set("a", json!(1)),
                add("a", 2),
                Some(vec![set("a", json!(3))]),
            ),
            (set("a", json!("x")), add("a", 2), None),
            (add("a", 1), set("a", json!(2)), None),
            (add("a", i64::MAX), add("a", 1), None),
            (set("a", json!({})), set("a.b", json!(1)), None),
            (set("a.b", json!(1)), set("a", json!({})), None),
        ] {
            let mut batch = RowBatch {
                changes: vec![first.clone()],
                ..RowBatch::default()
            };
            let is_combined = batch.combine(std::slice::from_ref(&second));
            assert_eq!(is_combined, combined.is_some(), "{first:?}, {second:?}");
            assert_eq!(batch.changes, combined.unwrap_or(vec![first]));
        }
    }

    #[test]
    fn an_event_that_changes_an_attribute_twice_stays_alone_and_is_refused_there() {
        let mut batch = RowBatch::default();
        let twice = [Change::set("a", 1), Change::set("a", 2)];
        assert!(!batch.combine(&twice));
        batch.changes = twice.to_vec();
        assert!(batch.apply("key", &mut Row::new()).is_err());
    }
}
