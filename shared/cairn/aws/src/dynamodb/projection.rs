//! The table of a read model, as a rebuild and an audit use it: rows of all generations.

use std::{borrow::Cow, future::Future};

use aws_sdk_dynamodb::{Client, types::AttributeValue};

use super::{Counters, Item, Rows, TableError, history::part, row};
use cairn::{
    commit::RecordedEvent,
    gate::{Advance, Checkpointed, DeliveryError},
    generation::Generation,
    read_model::{AnyReadModel, CounterChange, CounterKey, Row},
    stream::StreamId,
};

/// The rows of one generation of a read model, behind their version gates.
pub trait Projection: Checkpointed + Clone + Send + Sync + 'static {
    /// Returns the read model.
    fn model(&self) -> AnyReadModel;

    /// Returns the table, which holds the rows of every generation.
    fn table(&self) -> Table<'_>;

    /// Returns the rows of another generation in the same table.
    #[must_use]
    fn with_generation(&self, generation: Generation) -> Self;

    /// Returns the name of the read model.
    fn name(&self) -> &'static str {
        self.model().name()
    }

    /// Returns the item and the attribute with the version gate of a stream. `None`: the read model
    /// ignores the stream.
    fn gate(&self, stream: &StreamId) -> Option<(Key, &'static str)> {
        match self.model() {
            AnyReadModel::Rows(model) => {
                let row_key = (model.row_key)(stream)?;
                Some((Key::new([(model.key, row_key.key)]), row_key.gate))
            }
            AnyReadModel::Counters(model) => {
                (model.shard)(stream)?;
                Some((<Counters>::gate_of(stream), <Counters>::GATE))
            }
        }
    }

    /// Returns the version of the last applied event of a stream; 0 before the first. The read is
    /// strongly consistent.
    fn reached(&self, stream: &StreamId) -> impl Future<Output = Result<u64, TableError>> + Send {
        async move {
            match self.gate(stream) {
                Some((key, gate)) => self.table().number(&key, gate).await,
                None => Ok(0),
            }
        }
    }
}

/// The key of an item without its generation: the partition key, and the sort key if the table has
/// one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<(&'static str, String)>);

impl Key {
    pub(super) fn new<const N: usize>(parts: [(&'static str, &str); N]) -> Self {
        Self(parts.map(|(name, value)| (name, value.to_owned())).into())
    }

    pub(super) fn values(&self) -> Vec<String> {
        self.0.iter().map(|(_, value)| value.clone()).collect()
    }

    pub(super) fn partition(&self) -> &str {
        self.0.first().map_or("", |(_, value)| value.as_str())
    }
}

impl From<&CounterChange> for Key {
    fn from(count: &CounterChange) -> Self {
        Self::new([("partition", &count.partition), ("row", &count.row)])
    }
}

impl From<&CounterKey> for Key {
    fn from(key: &CounterKey) -> Self {
        Self::new([("partition", &key.partition), ("row", &key.row)])
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values: Vec<_> = self.0.iter().map(|(_, value)| value.as_str()).collect();
        f.write_str(&values.join(" "))
    }
}

/// A row that a scan returned.
#[derive(Clone, Debug)]
pub struct ScannedRow {
    /// The generation of the row.
    pub generation: Generation,
    /// The key without the generation.
    pub key: Key,
    /// The attributes that are not part of the key.
    pub row: Row,
}

impl<M: 'static> Projection for Rows<M> {
    fn model(&self) -> AnyReadModel {
        AnyReadModel::Rows(self.model)
    }

    fn table(&self) -> Table<'_> {
        Table {
            client: &self.client,
            name: &self.table,
            generation: self.generation,
            partition: self.model.key,
            sort: None,
        }
    }

    fn with_generation(&self, generation: Generation) -> Self {
        Self {
            generation,
            ..self.clone()
        }
    }
}

impl<T: 'static> Projection for Counters<T> {
    fn model(&self) -> AnyReadModel {
        AnyReadModel::Counters(self.model)
    }

    fn table(&self) -> Table<'_> {
        Table {
            client: &self.client,
            name: &self.table,
            generation: self.generation,
            partition: "partition",
            sort: Some("row"),
        }
    }

    fn with_generation(&self, generation: Generation) -> Self {
        Self {
            generation,
            ..self.clone()
        }
    }
}

/// The rows or counters of any read model.
#[derive(Clone, Debug)]
pub enum AnyProjection {
    /// A row per aggregate.
    Rows(Rows),
    /// Sums over many streams.
    Counters(Counters),
}

impl AnyProjection {
    /// Creates an adapter of the first generation of a read model in this table.
    pub fn new(client: Client, table: String, model: AnyReadModel) -> Self {
        match model {
            AnyReadModel::Rows(model) => Self::Rows(Rows::of_model(client, table, model)),
            AnyReadModel::Counters(model) => {
                Self::Counters(Counters::of_model(client, table, model))
            }
        }
    }
}

impl Projection for AnyProjection {
    fn model(&self) -> AnyReadModel {
        match self {
            Self::Rows(rows) => rows.model(),
            Self::Counters(counters) => counters.model(),
        }
    }

    fn table(&self) -> Table<'_> {
        match self {
            Self::Rows(rows) => rows.table(),
            Self::Counters(counters) => counters.table(),
        }
    }

    fn with_generation(&self, generation: Generation) -> Self {
        match self {
            Self::Rows(rows) => Self::Rows(rows.with_generation(generation)),
            Self::Counters(counters) => Self::Counters(counters.with_generation(generation)),
        }
    }
}

impl Checkpointed for AnyProjection {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        match self {
            Self::Rows(rows) => rows.target(stream),
            Self::Counters(counters) => counters.target(stream),
        }
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        match self {
            Self::Rows(rows) => rows.advance(events).await,
            Self::Counters(counters) => counters.advance(events).await,
        }
    }
}

/// A table with the rows of every generation: each partition key begins with its generation.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    pub(super) client: &'a Client,
    name: &'a str,
    generation: Generation,
    partition: &'static str,
    sort: Option<&'static str>,
}

impl Table<'_> {
    /// Returns the generation that reads and deletes by key use.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns a page of items of all generations, and the key after which the next page begins.
    pub async fn items(
        &self,
        from: Option<Key>,
    ) -> Result<(Vec<ScannedRow>, Option<Key>), TableError> {
        self.part(0, 1, from).await
    }

    /// Returns a page of items of one segment of the table.
    pub async fn part(
        &self,
        segment: u32,
        segments: u32,
        from: Option<Key>,
    ) -> Result<(Vec<ScannedRow>, Option<Key>), TableError> {
        let (segment, segments) = part(segment, segments);
        let page = self
            .client
            .scan()
            .table_name(self.name)
            .set_segment(segment)
            .set_total_segments(segments)
            .set_exclusive_start_key(from.map(|from| stored(&from, None)))
            .send()
            .await?;
        let items = page.items.unwrap_or_default().into_iter();
        let found: Vec<_> = items
            .map(|item| self.found(item))
            .collect::<Result<_, _>>()?;
        let next = page.last_evaluated_key.map(|item| self.key(&item));
        Ok((found, next))
    }

    /// Returns the attributes of an item of this generation without its key. The read is strongly
    /// consistent.
    pub async fn item(&self, key: &Key) -> Result<Option<Row>, TableError> {
        let got = self
            .client
            .get_item()
            .table_name(self.name)
            .set_key(Some(stored(key, Some(self.generation))))
            .consistent_read(true)
            .send()
            .await?;
        let found = got.item.map(|item| self.found(item)).transpose()?;
        Ok(found.map(|found| found.row))
    }

    /// Returns a number of an item of this generation, or 0. The read is strongly consistent.
    async fn number(&self, key: &Key, name: &str) -> Result<u64, TableError> {
        let got = self
            .client
            .get_item()
            .table_name(self.name)
            .set_key(Some(stored(key, Some(self.generation))))
            .projection_expression("#number")
            .expression_attribute_names("#number", name)
            .consistent_read(true)
            .send()
            .await?;
        let item = got.item.unwrap_or_default();
        let digits = item.get(name).and_then(|number| number.as_n().ok());
        Ok(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
    }

    /// Deletes an item of this generation.
    pub async fn remove(&self, key: &Key) -> Result<(), TableError> {
        self.client
            .delete_item()
            .table_name(self.name)
            .set_key(Some(stored(key, Some(self.generation))))
            .send()
            .await?;
        Ok(())
    }

    fn found(&self, item: Item) -> Result<ScannedRow, TableError> {
        let Key(mut parts) = self.key(&item);
        let mut row = row(item)?;
        row.retain(|name, _| self.keys().all(|key| key != name));
        let mut generation = Generation::FIRST;
        if let Some((_, partition)) = parts.first_mut() {
            let (of, key) = Generation::split(partition);
            (generation, *partition) = (of, key.to_owned());
        }
        let key = Key(parts);
        Ok(ScannedRow {
            generation,
            key,
            row,
        })
    }

    pub(super) fn key_of(&self, values: &[String]) -> Key {
        let parts = self.keys().zip(values);
        Key(parts.map(|(name, value)| (name, value.clone())).collect())
    }

    fn keys(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.partition).chain(self.sort)
    }

    /// The key as stored, with its generation.
    fn key(&self, item: &Item) -> Key {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let parts = self.keys();
        Key(parts
            .map(|name| (name, text(name).unwrap_or_default()))
            .collect())
    }
}

/// Returns the stored form of a key: with the generation, or unchanged without one.
pub(super) fn stored(key: &Key, generation: Option<Generation>) -> Item {
    let parts = key.0.iter().enumerate();
    parts
        .map(|(place, (name, value))| {
            let value = match generation.filter(|_| place == 0) {
                Some(generation) => generation.key(value),
                None => value.clone(),
            };
            ((*name).to_owned(), AttributeValue::S(value))
        })
        .collect()
}
