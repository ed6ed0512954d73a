//! Read models: rows that follow streams, one event at a time.
//!
//! A read model says what an event changes in its row, without reading the row. The same changes
//! are one `UpdateItem` on the table and a fold in memory, so a row can be checked against its
//! streams, rebuilt from them, and shown as it was at any time, all by the same function.
//!
//! [`ReadModel`] is a row per aggregate, fed by one stream or by several; [`Tally`] adds up events of many streams.

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

    /// The row that a stream feeds; `None` when the stream is none of this model's.
    fn place(stream: &StreamId) -> Option<Place<'_>>;

    /// The streams that feed a row: all that have their place in it.
    fn streams(key: &str) -> Vec<StreamId>;

    /// What an event changes in its row. No changes: only the gate moves.
    ///
    /// # Errors
    /// When the event cannot be decoded.
    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError>;
}

/// Where a stream's events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
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
}

/// The row that some streams' events add up to, gates included. `None` when no event is this
/// model's. Events of one stream come in order; streams may be interleaved in any way.
///
/// # Errors
/// When an event cannot be decoded.
pub fn fold<'a, M: ReadModel>(
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, CodecError> {
    fold_on::<M>(None, events)
}

/// The row that a row becomes by some more events: those after its gates.
///
/// # Errors
/// When an event cannot be decoded.
pub fn fold_on<'a, M: ReadModel>(
    mut row: Option<Row>,
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, CodecError> {
    for event in events {
        let Some(place) = M::place(&event.stream) else {
            continue;
        };
        let row = row
            .get_or_insert_with(|| Row::from_iter([(M::KEY.to_owned(), Value::from(place.key))]));
        for change in M::changes(event)? {
            apply(row, change);
        }
        set(row, place.gate, event.version.into());
    }
    Ok(row)
}

fn apply(row: &mut Row, change: Change) {
    match change {
        Change::Set(path, value) => {
            if let Some((map, name)) = parent(row, &path) {
                set(map, name, value);
            }
        }
        Change::Add(path, by) => {
            if let Some((map, name)) = parent(row, &path) {
                let sum = map.get(name).and_then(Value::as_i64).unwrap_or(0) + by;
                set(map, name, sum.into());
            }
        }
    }
}

/// The map that a path leads into, and the name in it.
fn parent<'r, 'p>(row: &'r mut Row, path: &'p str) -> Option<(&'r mut Row, &'p str)> {
    let Some((parents, name)) = path.rsplit_once('.') else {
        return Some((row, path));
    };
    let mut map = row;
    for parent in parents.split('.') {
        map = map.get_mut(parent)?.as_object_mut()?;
    }
    Some((map, name))
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
pub trait Tally: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;

    /// The number of the counters that a stream's events are added to: those of streams with the same number get
    /// into each other's way. `None` when its events are not counted.
    fn lane(stream: &StreamId) -> Option<u32>;

    /// What an event adds, and where. Nothing: only the gate moves.
    ///
    /// # Errors
    /// When the event cannot be decoded.
    fn counts(event: &RecordedEvent) -> Result<Vec<Count>, CodecError>;
}

/// Additions to one row of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The partition key. Many writers are spread over several.
    pub partition: String,
    /// The sort key.
    pub row: String,
    /// Counters and what is added to each; a counter begins at 0.
    pub add: Vec<(String, i64)>,
}
