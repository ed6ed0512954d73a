//! Read models: rows that follow streams, one event at a time.
//!
//! A read model states the changes that an event makes to its row, without reading the row. The
//! same changes are one `UpdateItem` on the table and a fold in memory. One function therefore
//! updates a row, rebuilds it, audits it, and shows a past state of it.
//!
//! A [`ReadModel`] has one row per aggregate, which one or several streams change. A
//! [`CounterProjection`] adds up the events of many streams.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{commit::RecordedEvent, event::CodecError, stream::StreamId};

/// A row: its key, one version gate per stream, and the attributes of the read model.
pub type Row = Map<String, Value>;

/// A read model with a row per aggregate.
pub trait ReadModel: Send + Sync + 'static {
    /// The name of the read model.
    const NAME: &'static str;

    /// The attribute that is the table's partition key.
    const KEY: &'static str;

    /// Returns the row that a stream changes, or `None` if the read model ignores the stream.
    fn row_key(stream: &StreamId) -> Option<RowKey<'_>>;

    /// Returns the streams that change a row.
    fn streams(key: &str) -> Vec<StreamId>;

    /// Returns the changes that an event makes to its row. Without changes, only the gate moves.
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError>;
}

/// The row that a stream changes, and the gate of the stream in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey<'a> {
    /// The value of [`ReadModel::KEY`].
    pub key: &'a str,
    /// The attribute with the version of the last event that was applied from the stream.
    pub gate: &'static str,
}

/// One change of a row. A path is a list of attribute names with dots between them. All names but
/// the last are maps, which an earlier event of the same stream has set.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Gives an attribute a value.
    Set(Cow<'static, str>, Value),
    /// Adds to a number, which is 0 before its first change.
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

/// Events cannot be folded into a row.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// An event cannot be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A read model makes a change that is impossible on the row. DynamoDB rejects it too.
    #[error(
        "{event} cannot change `{path}` of its row: {problem}; correct the read model's changes"
    )]
    Change {
        /// The event.
        event: String,
        /// The path of the change.
        path: String,
        /// The problem.
        problem: &'static str,
    },
}

/// Folds events into a row, gates included. Returns `None` if the read model ignores all of them.
/// The events of one stream must be in order; streams can be interleaved in any way.
///
/// # Errors
/// See [`FoldError`].
pub fn fold<'a, M: ReadModel>(
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, FoldError> {
    fold_on::<M>(None, events)
}

/// Folds events into an existing row. The events must be those after its gates.
///
/// # Errors
/// See [`FoldError`].
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
        // `UpdateItem` accepts no overlapping paths, and no change of the key.
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

/// Returns true if one path is a prefix of the other, or both are equal.
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

/// Returns the map that contains the last name of a path, and that name.
fn parent<'r, 'p>(row: &'r mut Row, path: &'p str) -> Result<(&'r mut Row, &'p str), &'static str> {
    let Some((parents, name)) = path.rsplit_once('.') else {
        return Ok((row, path));
    };
    let mut map = row;
    for parent in parents.split('.') {
        let below = map.get_mut(parent).and_then(Value::as_object_mut);
        map = below.ok_or("the path leads through a value that is not a map")?;
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

/// A read model of counters, which adds up the events of many streams.
///
/// It has one gate per stream, which is an item of its own and moves in the same transaction.
pub trait CounterProjection: Send + Sync + 'static {
    /// The name of the read model.
    const NAME: &'static str;

    /// Returns the shard of the counters that a stream's events are added to, or `None` if they are
    /// not counted. Writes to the same shard conflict.
    fn shard(stream: &StreamId) -> Option<u32>;

    /// Returns the additions of an event. Without additions, only the gate moves.
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    fn counts(event: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError>;
}

/// Additions to one row of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterChange {
    /// The partition key. Several partitions distribute the writes.
    pub partition: String,
    /// The sort key.
    pub row: String,
    /// The counters and the amount to add to each. A counter begins at 0.
    pub add: Vec<(String, i64)>,
}
