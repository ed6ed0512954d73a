//! The registry of an application: its aggregates, sagas and read models, each named once.
//!
//! Schemas, past states, rebuilds, audits and the operator's tool follow from it. It is pure: an
//! entry has the functions of its type as values, and no connection.

use std::fmt::Debug;

use schemars::JsonSchema;
use serde_json::Value;

use crate::{
    commit::Commit,
    deadlines::AnyMonitored,
    decider::Aggregate,
    event::{CodecError, Event},
    processes::{Process, ProcessStream},
    read_model::{AnyReadModel, CounterModel, CounterProjection, ReadModel, RowModel},
    saga::{AnySaga, Saga, Triggered},
    schema::EventType,
    snapshot::state_fingerprint,
};

/// The aggregates, sagas and read models of an application.
#[derive(Clone, Debug)]
pub struct System {
    name: &'static str,
    aggregates: Vec<AnyAggregate>,
    monitored: Vec<AnyMonitored>,
    sagas: Vec<AnySaga>,
    read_models: Vec<AnyReadModel>,
}

impl System {
    /// Creates an empty registry with the name of the application.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            aggregates: vec![],
            monitored: vec![],
            sagas: vec![],
            read_models: vec![],
        }
    }

    /// Adds an aggregate.
    #[must_use]
    pub fn aggregate<A: Aggregate<Event: JsonSchema>>(mut self) -> Self {
        self.aggregates.push(AnyAggregate::new::<A>());
        self
    }

    /// Adds a saga. An audit also checks its deadlines. Several sagas can share a table of
    /// deadlines.
    ///
    /// # Panics
    /// Panics if another saga has the same source: both would close the deadline of its
    /// cancellation.
    #[must_use]
    pub fn saga<D: Triggered>(mut self) -> Self {
        let saga = AnySaga::new::<D>();
        for category in self.sagas.iter().flat_map(|saga| saga.categories) {
            assert!(
                !saga.categories.contains(&category),
                "two sagas have the streams `{category}`; give each saga a category and a source \
                 of its own"
            );
        }
        self.monitored.push(AnyMonitored::new::<Saga<D>>());
        self.sagas.push(saga);
        self.aggregate::<Saga<D>>()
    }

    /// Adds a process. An audit also checks its deadlines. It can share the table of deadlines with
    /// sagas and other processes.
    #[must_use]
    pub fn process<P: Process<Event: JsonSchema>>(mut self) -> Self {
        let process = AnyMonitored::new::<ProcessStream<P>>();
        self.monitored.push(process);
        self.aggregate::<ProcessStream<P>>()
    }

    /// Adds a read model with a row per aggregate.
    #[must_use]
    pub fn rows<M: ReadModel>(mut self) -> Self {
        let model = AnyReadModel::Rows(RowModel::new::<M>());
        self.read_models.push(model);
        self
    }

    /// Adds a read model of counters.
    #[must_use]
    pub fn counters<T: CounterProjection>(mut self) -> Self {
        let model = AnyReadModel::Counters(CounterModel::new::<T>());
        self.read_models.push(model);
        self
    }

    /// Returns the name of the application.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the aggregates and sagas in the order of their registration.
    pub fn aggregates(&self) -> &[AnyAggregate] {
        &self.aggregates
    }

    /// Returns the sagas and processes, whose deadlines an audit checks, in the order of their
    /// registration.
    pub fn monitored(&self) -> &[AnyMonitored] {
        &self.monitored
    }

    /// Returns the sagas in the order of their registration.
    pub fn sagas(&self) -> &[AnySaga] {
        &self.sagas
    }

    /// Returns the read models in the order of their registration.
    pub fn read_models(&self) -> &[AnyReadModel] {
        &self.read_models
    }

    /// Returns the event types of all aggregates and sagas.
    pub fn event_types(&self) -> Vec<EventType> {
        let types = self.aggregates.iter().map(AnyAggregate::event_types);
        types.flatten().collect()
    }

    /// Returns the aggregate or saga with streams of a category.
    ///
    /// # Errors
    /// Returns an error that lists the categories.
    pub fn find_aggregate(&self, category: &str) -> Result<&AnyAggregate, UnknownName> {
        let aggregates = self.aggregates.iter();
        find("category", category, aggregates, |known| known.category)
    }

    /// Returns the read model with a name.
    ///
    /// # Errors
    /// Returns an error that lists the read models.
    pub fn find_read_model(&self, name: &str) -> Result<&AnyReadModel, UnknownName> {
        let read_models = self.read_models.iter();
        find("read model", name, read_models, AnyReadModel::name)
    }
}

/// The system has no part with this name.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{name}`; use {known}")]
pub struct UnknownName {
    kind: &'static str,
    name: String,
    known: String,
}

fn find<'a, T>(
    kind: &'static str,
    name: &str,
    mut parts: impl Iterator<Item = &'a T> + Clone,
    name_of: impl Fn(&'a T) -> &'static str,
) -> Result<&'a T, UnknownName> {
    let names = parts.clone().map(&name_of);
    let known = one_of(&names.collect::<Vec<_>>());
    let found = parts.find(|part| name_of(part) == name);
    found.ok_or_else(|| UnknownName {
        kind,
        name: name.to_owned(),
        known,
    })
}

/// Joins names, such as `orders, stock or sales`.
fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing: none is registered".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The items of an [`Aggregate`] or of a saga.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct AnyAggregate {
    /// See [`Aggregate::CATEGORY`].
    pub category: &'static str,
    /// See [`Aggregate::SNAPSHOT_EVERY`].
    pub snapshot_every: u32,
    event_types: fn() -> Vec<EventType>,
    state_fingerprint: fn() -> String,
    state: fn(&[Commit]) -> Result<Value, CodecError>,
}

impl AnyAggregate {
    /// Creates the value of a type.
    pub const fn new<A: Aggregate<Event: JsonSchema>>() -> Self {
        Self {
            category: A::CATEGORY,
            snapshot_every: A::SNAPSHOT_EVERY,
            event_types: || EventType::list::<A::Event>(A::CATEGORY),
            state_fingerprint: || state_fingerprint::<A::State>(A::REVISION),
            state: state::<A>,
        }
    }

    /// Returns the event types in the order of their declaration.
    pub fn event_types(&self) -> Vec<EventType> {
        (self.event_types)()
    }

    /// Returns the fingerprint of usable snapshots. See [`state_fingerprint()`].
    pub fn state_fingerprint(&self) -> String {
        (self.state_fingerprint)()
    }

    /// Folds commits into a state. They must begin with version 1 or with a usable snapshot.
    ///
    /// # Errors
    /// Returns an error if an event or the snapshot cannot be decoded.
    pub fn state(&self, commits: &[Commit]) -> Result<Value, CodecError> {
        (self.state)(commits)
    }
}

fn state<A: Aggregate>(commits: &[Commit]) -> Result<Value, CodecError> {
    let (mut state, later) = match commits.split_first() {
        Some((first, later)) if first.version > 1 => (restored::<A>(first)?, later),
        Some(_) | None => (A::initial(), commits),
    };
    for stored in later.iter().flat_map(|commit| &commit.events) {
        state = A::evolve(state, &A::Event::decode(stored)?);
    }
    serde_json::to_value(state).map_err(CodecError::Encode)
}

fn restored<A: Aggregate>(commit: &Commit) -> Result<A::State, CodecError> {
    let snapshot = commit.snapshot.as_ref();
    let state = snapshot.map_or("", |snapshot| &snapshot.state);
    serde_json::from_str(state).map_err(|source| CodecError::Snapshot {
        state_fingerprint: state_fingerprint::<A::State>(A::REVISION),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commit::RecordedEvent,
        read_model::{Change, CounterChange, RowKey},
        stream::StreamId,
    };

    struct OpenLoans;

    impl ReadModel for OpenLoans {
        const NAME: &'static str = "open-loans";
        const TABLE: &'static str = "OPEN_LOANS_TABLE";
        const KEY: &'static str = "book";

        fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
            let (key, gate) = (stream.key(), "version");
            Some(RowKey { key, gate })
        }

        fn streams(_: &str) -> Vec<StreamId> {
            vec![]
        }

        fn changes(_: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
            Ok(vec![])
        }
    }

    struct Visits;

    impl CounterProjection for Visits {
        const NAME: &'static str = "visits";
        const TABLE: &'static str = "VISITS_TABLE";

        fn shard(_: &StreamId) -> Option<u32> {
            Some(0)
        }

        fn counts(_: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError> {
            Ok(vec![])
        }
    }

    #[test]
    fn a_read_model_is_found_by_its_name_and_knows_its_table_and_function() {
        let system = System::new("library")
            .rows::<OpenLoans>()
            .counters::<Visits>();
        let loans = system.find_read_model("open-loans").unwrap();
        assert_eq!(loans.table(), "OPEN_LOANS_TABLE");
        assert_eq!(loans.function(), "ProjectOpenLoansFunction");
        assert!(matches!(
            system.find_read_model("visits"),
            Ok(AnyReadModel::Counters(_))
        ));
    }

    #[test]
    fn the_error_of_an_unknown_name_lists_the_known_names() {
        let empty = System::new("library");
        let error = empty.find_aggregate("book").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown category `book`; use nothing: none is registered"
        );
        let system = empty.rows::<OpenLoans>().counters::<Visits>();
        let error = system.find_read_model("books").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown read model `books`; use open-loans or visits"
        );
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
    }
}
