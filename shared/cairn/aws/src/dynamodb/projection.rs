//! The table of a read model, as a rebuild and an audit use it: rows of all generations.

use std::future::Future;

use aws_sdk_dynamodb::{Client, types::AttributeValue};

use super::{Counters, DynamoStore, Item, Rows, TableError, audit, history::part, row};
use cairn::{
    audit::{Report, Scope},
    gate::Checkpointed,
    generation::Generation,
    hash::fnv1a,
    read_model::{CounterChange, CounterProjection, ReadModel, Row},
    store::StoreError,
    stream::StreamId,
};

/// The rows of one generation of a read model, behind their version gates.
pub trait Projection: Checkpointed + Clone + Send + Sync + 'static {
    /// The name of the read model.
    const NAME: &'static str;

    /// Returns the rows of another generation in the same table.
    #[must_use]
    fn with_generation(&self, generation: Generation) -> Self;

    /// Returns the shard of a stream, one of a few. Streams that write to the same row have the
    /// same shard, and a rebuild applies the events of a shard in sequence. `None`: the read model
    /// ignores the stream.
    fn shard(stream: &StreamId) -> Option<u32>;

    /// Returns the item and the attribute with the version gate of a stream. `None`: the read model
    /// ignores the stream.
    fn gate(stream: &StreamId) -> Option<(Key, &'static str)>;

    /// Returns the version of the last applied event of a stream; 0 before the first. The read is
    /// strongly consistent.
    fn reached(&self, stream: &StreamId) -> impl Future<Output = Result<u64, TableError>> + Send {
        async move {
            match Self::gate(stream) {
                Some((key, gate)) => self.table().number(&key, gate).await,
                None => Ok(0),
            }
        }
    }

    /// Returns the table, which holds the rows of every generation.
    fn table(&self) -> Table<'_>;

    /// Compares the rows of this generation in a scope with the rows that their events produce.
    fn audit(
        &self,
        store: &DynamoStore,
        scope: &Scope,
        report: &mut Report,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
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

impl<M: ReadModel> Projection for Rows<M> {
    const NAME: &'static str = M::NAME;

    fn with_generation(&self, generation: Generation) -> Self {
        Self {
            generation,
            ..self.clone()
        }
    }

    fn shard(stream: &StreamId) -> Option<u32> {
        M::row_key(stream).map(|row_key| fnv1a(row_key.key) % 16)
    }

    fn gate(stream: &StreamId) -> Option<(Key, &'static str)> {
        let row_key = M::row_key(stream)?;
        Some((Key::new([(M::KEY, row_key.key)]), row_key.gate))
    }

    fn table(&self) -> Table<'_> {
        Table {
            client: &self.client,
            name: &self.table,
            generation: self.generation,
            keys: &[M::KEY],
        }
    }

    async fn audit(
        &self,
        store: &DynamoStore,
        scope: &Scope,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        audit::rows::<M>(self.table(), store, scope, report).await
    }
}

impl<T: CounterProjection> Projection for Counters<T> {
    const NAME: &'static str = T::NAME;

    fn with_generation(&self, generation: Generation) -> Self {
        Self {
            generation,
            ..self.clone()
        }
    }

    fn shard(stream: &StreamId) -> Option<u32> {
        T::shard(stream)
    }

    fn gate(stream: &StreamId) -> Option<(Key, &'static str)> {
        T::shard(stream)?;
        Some((Self::gate_of(stream), Self::GATE))
    }

    fn table(&self) -> Table<'_> {
        Table {
            client: &self.client,
            name: &self.table,
            generation: self.generation,
            keys: &["partition", "row"],
        }
    }

    async fn audit(
        &self,
        store: &DynamoStore,
        scope: &Scope,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        audit::counters(self, store, scope, report).await
    }
}

/// A table with the rows of every generation: each partition key begins with its generation.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    pub(super) client: &'a Client,
    name: &'a str,
    generation: Generation,
    keys: &'static [&'static str],
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
        row.retain(|name, _| !self.keys.contains(&name.as_str()));
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
        let parts = self.keys.iter().zip(values);
        Key(parts.map(|(name, value)| (*name, value.clone())).collect())
    }

    /// The key as stored, with its generation.
    fn key(&self, item: &Item) -> Key {
        let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let parts = self.keys.iter();
        Key(parts
            .map(|name| (*name, text(name).unwrap_or_default()))
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
