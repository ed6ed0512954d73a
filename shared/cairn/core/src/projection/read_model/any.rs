//! Read models as values, for code that handles all read models of an application alike.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    commit::RecordedEvent,
    event::CodecError,
    read_model::{Change, CounterChange, CounterProjection, ReadModel, RowKey},
    stream::StreamId,
};

/// The items of a [`ReadModel`].
#[derive(Clone, Copy, Debug)]
pub struct RowModel {
    /// See [`ReadModel::NAME`].
    pub name: &'static str,
    /// See [`ReadModel::TABLE`].
    pub table: &'static str,
    /// See [`ReadModel::KEY`].
    pub key: &'static str,
    /// See [`ReadModel::row_key`].
    pub row_key: fn(&StreamId) -> Option<RowKey<'_>>,
    /// See [`ReadModel::streams`].
    pub streams: fn(&str) -> Vec<StreamId>,
    /// See [`ReadModel::changes`].
    pub changes: fn(&RecordedEvent) -> Result<Vec<Change>, CodecError>,
}

impl RowModel {
    /// Creates the value of a type.
    pub const fn new<M: ReadModel>() -> Self {
        Self {
            name: M::NAME,
            table: M::TABLE,
            key: M::KEY,
            row_key: M::row_key,
            streams: M::streams,
            changes: M::changes,
        }
    }

    /// Returns the key of the row that a stream changes. See `gate::Checkpointed::target`.
    pub fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        (self.row_key)(stream).map(|row_key| Cow::Borrowed(row_key.key))
    }

    /// Returns the versions of the gates of events, by the version of a gate's attribute.
    pub fn gates_of(
        &self,
        events: &[&RecordedEvent],
        at: impl Fn(&str) -> u64,
    ) -> BTreeMap<StreamId, u64> {
        let gates = events.iter().filter_map(|event| {
            let row_key = (self.row_key)(&event.stream)?;
            Some((event.stream.clone(), at(row_key.gate)))
        });
        gates.collect()
    }
}

/// The items of a [`CounterProjection`].
#[derive(Clone, Copy, Debug)]
pub struct CounterModel {
    /// See [`CounterProjection::NAME`].
    pub name: &'static str,
    /// See [`CounterProjection::TABLE`].
    pub table: &'static str,
    /// See [`CounterProjection::shard`].
    pub shard: fn(&StreamId) -> Option<u32>,
    /// See [`CounterProjection::counts`].
    pub counts: fn(&RecordedEvent) -> Result<Vec<CounterChange>, CodecError>,
}

impl CounterModel {
    /// Creates the value of a type.
    pub const fn new<T: CounterProjection>() -> Self {
        Self {
            name: T::NAME,
            table: T::TABLE,
            shard: T::shard,
            counts: T::counts,
        }
    }

    /// Returns the name of the shard of a stream. See `gate::Checkpointed::target`.
    pub fn target(&self, stream: &StreamId) -> Option<Cow<'static, str>> {
        (self.shard)(stream).map(|shard| Cow::Owned(shard.to_string()))
    }
}

/// A read model of rows or of counters.
#[derive(Clone, Copy, Debug)]
pub enum AnyReadModel {
    /// A row per aggregate.
    Rows(RowModel),
    /// Sums over many streams.
    Counters(CounterModel),
}

impl AnyReadModel {
    /// Returns the name of the read model.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rows(model) => model.name,
            Self::Counters(model) => model.name,
        }
    }

    /// Returns the environment variable with the name of its table.
    pub const fn table(&self) -> &'static str {
        match self {
            Self::Rows(model) => model.table,
            Self::Counters(model) => model.table,
        }
    }

    /// Returns the logical id of the function that applies events to the read model, by
    /// convention: `ProjectOrdersFunction` for `orders`.
    pub fn function(&self) -> String {
        let words = self.name().split('-');
        let words = words.map(|word| match word.split_at_checked(1) {
            Some((first, rest)) => format!("{}{rest}", first.to_ascii_uppercase()),
            None => String::new(),
        });
        format!("Project{}Function", words.collect::<String>())
    }
}
