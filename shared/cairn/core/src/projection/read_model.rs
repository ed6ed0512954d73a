//! Read models: rows that follow streams, one event at a time.
//!
//! A read model states the changes that an event makes to its row, without reading the row. The
//! same changes are one `UpdateItem` on the table and a fold in memory. One function therefore
//! updates a row, rebuilds it, audits it, and shows a past state of it.
//!
//! A [`ReadModel`] has one row per aggregate, which one or several streams change.
//! [`derive@crate::Row`] implements it for the struct of a row. A [`CounterProjection`] adds up the
//! events of many streams.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    marker::PhantomData,
};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{commit::RecordedEvent, decider::Aggregate, event::CodecError, stream::StreamId};

mod any;
mod batch;
#[cfg(feature = "store")]
mod live_rows;

// For the registry, and for the adapters of tables.
#[doc(hidden)]
pub use any::{AnyReadModel, CounterModel, RowModel};
#[doc(hidden)]
pub use batch::{CounterBatch, CounterKey, RowBatch};
#[cfg(feature = "store")]
pub use live_rows::LiveRows;

/// A row: its key, one version gate per stream, and the attributes of the read model.
pub type Row = Map<String, Value>;

/// A read model with a row per aggregate.
pub trait ReadModel: Send + Sync + 'static {
    /// The name of the read model.
    const NAME: &'static str;

    /// The environment variable with the name of the table.
    const TABLE: &'static str;

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
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey<'a> {
    /// The value of [`ReadModel::KEY`].
    pub key: &'a str,
    /// The attribute with the version of the last event that was applied from the stream.
    pub gate: &'static str,
}

/// The changes that the events of one aggregate make to a row. See [`derive@crate::Row`].
pub trait Project<A: Aggregate>: ReadModel {
    /// Returns the changes that an event makes to its row. Without changes, only the gate moves.
    fn project(event: &A::Event, recorded: &RecordedEvent) -> Vec<Change>;
}

#[doc(hidden)]
pub fn project<M: Project<A>, A: Aggregate>(
    event: &RecordedEvent,
) -> Result<Vec<Change>, CodecError> {
    Ok(M::project(&event.decode()?, event))
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

/// The path of an attribute at the top of a row, and the type of its value. See
/// [`derive@crate::Row`].
pub struct Path<T> {
    name: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T> Path<T> {
    /// Creates the path of an attribute.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            value: PhantomData,
        }
    }
}

impl<T: Serialize> Path<T> {
    /// Gives the attribute a value.
    ///
    /// # Panics
    /// Panics if the value is not JSON, such as a map whose keys are not texts.
    #[must_use]
    pub fn set(&self, value: impl Borrow<T>) -> Change {
        Change::set(self.name, json!(value.borrow()))
    }
}

impl<T: TryInto<i64>> Path<T> {
    /// Adds to the number, which is 0 before its first change. A number that is too large counts as
    /// `i64::MAX`.
    #[must_use]
    pub fn add(&self, by: T) -> Change {
        Change::Add(self.name.into(), by.try_into().unwrap_or(i64::MAX))
    }

    /// Subtracts from the number, like [`add`](Self::add).
    #[must_use]
    pub fn subtract(&self, by: T) -> Change {
        let by = by.try_into().unwrap_or(i64::MAX);
        Change::Add(self.name.into(), by.saturating_neg())
    }
}

impl<T> fmt::Debug for Path<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Folds events into a row, gates included. Returns `None` if the read model ignores all of them.
/// The events of one stream must be in order; streams can be interleaved in any way.
///
/// # Errors
/// Returns an error if an event cannot be decoded, or its change is impossible on the row.
pub fn fold<'a, M: ReadModel>(
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, CodecError> {
    fold_on::<M>(None, events)
}

/// Folds events into an existing row. The events must be those after its gates.
///
/// # Errors
/// Returns an error if an event cannot be decoded, or its change is impossible on the row.
pub fn fold_on<'a, M: ReadModel>(
    row: Option<Row>,
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, CodecError> {
    fold_any(&RowModel::new::<M>(), row, events)
}

/// Folds events into an existing row of any read model. See [`fold_on`].
///
/// # Errors
/// Returns an error if an event cannot be decoded, or its change is impossible on the row.
#[doc(hidden)]
pub fn fold_any<'a>(
    model: &RowModel,
    mut row: Option<Row>,
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Option<Row>, CodecError> {
    for event in events {
        let Some(row_key) = (model.row_key)(&event.stream) else {
            continue;
        };
        let (batch, _) = RowBatch::new(model, &[event])?;
        let row = row.get_or_insert_with(|| {
            Row::from_iter([(model.key.to_owned(), Value::from(row_key.key))])
        });
        batch
            .apply(model.key, row)
            .map_err(|(path, problem)| CodecError::Change {
                event: event.id(),
                path,
                problem,
            })?;
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
    if path.split('.').any(str::is_empty) {
        return Err("a name in the path is empty");
    }
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

    /// The environment variable with the name of the table.
    const TABLE: &'static str;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decider::Decider, event::StoredEvent, metadata::Metadata, timestamp::Timestamp};

    struct Ship;

    #[derive(cairn::Event)]
    enum Event {
        Loaded { tons: u64 },
        Unloaded { tons: u64 },
        Renamed { name: String },
    }

    impl Decider for Ship {
        type State = ();
        type Command = ();
        type Event = Event;
        type Rejection = ();

        fn decide((): &(), (): &()) -> Result<Vec<Event>, ()> {
            Ok(vec![])
        }

        fn evolve((): (), _: &Event) {}
    }

    impl Aggregate for Ship {
        type Id = String;

        const CATEGORY: &'static str = "ship";
    }

    #[derive(Debug, PartialEq, cairn::Row)]
    #[row(name = "fleet", table = "FLEET_TABLE")]
    struct Fleet {
        #[row(key)]
        ship_id: String,
        #[serde(default)]
        net_cargo: i64,
        #[row(name = "called")]
        name: Option<String>,
        #[row(gate = Ship)]
        ship_version: u64,
    }

    impl Project<Ship> for Fleet {
        fn project(event: &Event, _: &RecordedEvent) -> Vec<Change> {
            vec![match event {
                Event::Loaded { tons } => Self::net_cargo().add(signed(*tons)),
                Event::Unloaded { tons } => Self::net_cargo().subtract(signed(*tons)),
                Event::Renamed { name } => Self::name().set(Some(name.clone())),
            }]
        }
    }

    fn signed(tons: u64) -> i64 {
        tons.try_into().unwrap()
    }

    fn recorded(stream: &str, version: u64, name: &str, data: &Value) -> RecordedEvent {
        RecordedEvent {
            stream: stream.parse().unwrap(),
            version,
            at: Timestamp::from_millis(7),
            metadata: Metadata::new("c"),
            event: StoredEvent {
                name: name.to_owned(),
                schema: 1,
                data: serde_json::value::to_raw_value(data).unwrap(),
            },
        }
    }

    #[test]
    fn a_derived_row_follows_the_stream_of_its_gate() {
        let events = [
            recorded("ship-7", 1, "Loaded", &json!({ "tons": 5 })),
            recorded("port-7", 1, "Opened", &json!({})),
            recorded("ship-7", 2, "Unloaded", &json!({ "tons": 2 })),
            recorded("ship-7", 3, "Renamed", &json!({ "name": "Fram" })),
        ];
        let row = fold::<Fleet>(&events).unwrap().unwrap();
        let stored = json!({ "shipId": "7", "netCargo": 3, "called": "Fram", "shipVersion": 3 });
        assert_eq!(Value::from(row.clone()), stored);
        let fleet = Fleet::try_from(row).unwrap();
        assert_eq!(json!(fleet), stored);
        let expected = Fleet {
            ship_id: "7".to_owned(),
            net_cargo: 3,
            name: Some("Fram".to_owned()),
            ship_version: 3,
        };
        assert_eq!(fleet, expected);
    }

    #[test]
    fn a_derived_row_names_its_table_and_its_streams() {
        let names = [Fleet::NAME, Fleet::TABLE, Fleet::KEY];
        assert_eq!(names, ["fleet", "FLEET_TABLE", "shipId"]);
        let streams: Vec<StreamId> = vec!["ship-7".parse().unwrap()];
        assert_eq!(Fleet::streams("7"), streams);
        assert_eq!(Fleet::streams("no key/of#ours"), []);
        let row_key = Fleet::row_key(&streams[0]).unwrap();
        assert_eq!((row_key.key, row_key.gate), ("7", "shipVersion"));
        assert_eq!(Fleet::row_key(&"port-7".parse().unwrap()), None);
    }

    #[test]
    fn an_amount_beyond_an_integer_is_the_largest_integer() {
        let path = Path::<u64>::new("n");
        assert_eq!(path.add(u64::MAX), Change::Add("n".into(), i64::MAX));
        assert_eq!(path.subtract(u64::MAX), Change::Add("n".into(), -i64::MAX));
    }

    #[test]
    fn a_fold_refuses_the_changes_that_dynamodb_rejects() {
        for (row, change, problem) in [
            (json!({}), Change::set("none.a", 1), "not a map"),
            (json!({ "a": 1 }), Change::set("a.b", 1), "not a map"),
            (json!({ "a": {} }), Change::set("a.b.c", 1), "not a map"),
            (json!({ "a": {} }), Change::set("a.", 1), "is empty"),
            (
                json!({ "a": "x" }),
                Change::Add("a".into(), 1),
                "not a whole number",
            ),
        ] {
            let Value::Object(mut row) = row else {
                panic!("a row is an object");
            };
            let error = apply(&mut row, change.clone()).unwrap_err();
            assert!(error.contains(problem), "{change:?}: {error}");
        }
    }
}
