//! Read models: rows that follow streams, one event at a time.
//!
//! A read model says what an event changes in its row, without reading the row. The same changes
//! are one `UpdateItem` on the table and a fold in memory, so a row can be checked against its
//! streams, rebuilt from them, and shown as it was at any time, all by the same function.
//!
//! [`ReadModel`] is a row per aggregate, fed by one stream or by several; [`CounterProjection`] adds up events of many streams.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{commit::RecordedEvent, event::CodecError, stream::StreamId};

/// A row: its key, one gate for each stream that feeds it, and the read model's own attributes.
pub type Row = Map<String, Value>;

/// A read model with a row per aggregate.
pub trait ReadModel: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;

    /// The attribute that is the table's partition key.
    const KEY: &'static str;

    /// The key of the row that a stream feeds; `None` when the stream is none of this model's.
    fn row_key(stream: &StreamId) -> Option<RowKey<'_>>;

    /// The streams that feed a row: those with its key.
    fn streams(key: &str) -> Vec<StreamId>;

    /// What an event changes in its row. No changes: only the gate moves.
    ///
    /// # Errors
    /// When the event cannot be decoded.
    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError>;
}

/// The key of the row that a stream's events change, and their gate in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey<'a> {
    /// The value of [`ReadModel::KEY`].
    pub key: &'a str,
    /// The attribute that holds the version of the last event applied from this stream.
    pub gate: &'static str,
}

/// One change of a row. A path is a list of attribute names joined by dots; all but the last
/// name maps that an earlier event of the same stream has set.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Gives an attribute a value.
    Set(Cow<'static, str>, Value),
    /// Adds to a number, which counts as 0 before its first change.
    Add(Cow<'static, str>, i64),
}

impl Change {
    /// Gives an attribute a value.
    pub fn set(path: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        Self::Set(path.into(), value.into())
    }

    fn path(&self) -> &str {
        match self {
            Self::Set(path, _) | Self::Add(path, _) => path,
        }
    }
}

/// The reason for which events cannot be folded into a row.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// An event cannot be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A read model makes a change that a row does not take. `DynamoDB` refuses it as well.
    #[error(
        "{event} cannot change `{path}` of its row: {problem}; correct the read model's changes"
    )]
    Change {
        /// The event.
        event: String,
        /// The path that was to be changed.
        path: String,
        /// The fault.
        problem: &'static str,
    },
}

/// The row that some streams' events add up to, gates included. `None` when no event is this
/// model's. Events of one stream come in order; streams may be interleaved in any way.
///
/// # Errors
/// When an event cannot be decoded, or makes a change that a row does not take.
pub fn fold<'a, M: ReadModel>(
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, FoldError> {
    fold_on::<M>(None, events)
}

/// The row that a row becomes by some more events: those after its gates.
///
/// # Errors
/// When an event cannot be decoded, or makes a change that a row does not take.
pub fn fold_on<'a, M: ReadModel>(
    mut row: Option<Row>,
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, FoldError> {
    for event in events {
        let Some(row_key) = M::row_key(&event.stream) else {
            continue;
        };
        let row = row
            .get_or_insert_with(|| Row::from_iter([(M::KEY.to_owned(), Value::from(row_key.key))]));
        // One update changes each part of a row once, and no part of its key.
        let mut taken = vec![M::KEY.to_owned(), row_key.gate.to_owned()];
        for change in M::changes(event)? {
            let path = change.path().to_owned();
            let applied = if taken.iter().any(|other| overlap(other, &path)) {
                Err("it overlaps with the key, the gate, or another change of the event")
            } else {
                apply(row, change)
            };
            applied.map_err(|problem| FoldError::Change {
                event: event.id(),
                path: path.clone(),
                problem,
            })?;
            taken.push(path);
        }
        set(row, row_key.gate, event.version.into());
    }
    Ok(row)
}

/// True if one path leads to the other, or both are the same.
fn overlap(one: &str, other: &str) -> bool {
    let mut names = one.split('.').zip(other.split('.'));
    names.all(|(one, other)| one == other)
}

fn apply(row: &mut Row, change: Change) -> Result<(), &'static str> {
    match change {
        Change::Set(path, value) => {
            let (map, name) = parent(row, &path)?;
            set(map, name, value);
        }
        Change::Add(path, by) => {
            let (map, name) = parent(row, &path)?;
            let before = match map.get(name) {
                Some(value) => value.as_i64().ok_or("it is not a whole number")?,
                None => 0,
            };
            let sum = before.checked_add(by).ok_or("the sum is too large")?;
            set(map, name, sum.into());
        }
    }
    Ok(())
}

/// The map that a path leads into, and the name in it.
fn parent<'r, 'p>(row: &'r mut Row, path: &'p str) -> Result<(&'r mut Row, &'p str), &'static str> {
    let Some((parents, name)) = path.rsplit_once('.') else {
        return Ok((row, path));
    };
    let mut map = row;
    for parent in parents.split('.') {
        let below = map.get_mut(parent).and_then(Value::as_object_mut);
        map = below.ok_or("the path leads through what is not a map")?;
    }
    Ok((map, name))
}

fn set(map: &mut Row, name: &str, value: Value) {
    match map.get_mut(name) {
        Some(there) => *there = value,
        None => {
            map.insert(name.to_owned(), value);
        }
    }
}

/// A read model that adds up events of many streams: counters in partitions and rows.
///
/// Its gate is an item per stream beside the counters, moved in the same transaction.
pub trait CounterProjection: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;

    /// The shard of the counters that a stream's events are added to: writes to the same shard conflict. `None` when its events are not counted.
    fn shard(stream: &StreamId) -> Option<u32>;

    /// What an event adds, and where. Nothing: only the gate moves.
    ///
    /// # Errors
    /// When the event cannot be decoded.
    fn counts(event: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError>;
}

/// Additions to one row of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterChange {
    /// The partition key. Many writers are spread over several.
    pub partition: String,
    /// The sort key.
    pub row: String,
    /// Counters and what is added to each; a counter begins at 0.
    pub add: Vec<(String, i64)>,
}
