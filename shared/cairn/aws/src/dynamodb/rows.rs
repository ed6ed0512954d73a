//! The rows of a read model, each behind the version gates of its streams.

use std::{borrow::Cow, collections::HashMap, marker::PhantomData};

use aws_sdk_dynamodb::{
    Client,
    operation::update_item::UpdateItemError,
    types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure},
};
use serde_json::Value;

use cairn::{
    commit::RecordedEvent,
    gate::{Advance, Checkpointed, DeliveryError},
    generation::Generation,
    read_model::{ReadModel, Row, RowBatch, RowModel},
    stream::StreamId,
};

use super::{Item, MAX_BATCH, TableError, batch_get, expression::Expression, row, version};

/// The rows of one generation of a read model, behind version gates. `M` names the read model;
/// without it, they are the rows of any.
#[derive(Debug)]
pub struct Rows<M = ()> {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) generation: Generation,
    pub(super) model: RowModel,
    pub(super) named: PhantomData<fn() -> M>,
}

impl<M> Clone for Rows<M> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            table: self.table.clone(),
            ..*self
        }
    }
}

impl<M: ReadModel> Rows<M> {
    /// Creates an adapter of the first generation in this table.
    pub fn new(client: Client, table: String) -> Self {
        Self::of_model(client, table, RowModel::new::<M>())
    }
}

impl<M> Rows<M> {
    /// Creates an adapter of the first generation of any read model in this table.
    pub(super) fn of_model(client: Client, table: String, model: RowModel) -> Self {
        Self {
            client,
            table,
            generation: Generation::FIRST,
            model,
            named: PhantomData,
        }
    }

    /// Reads a row, eventually consistent.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn get(&self, key: &str) -> Result<Option<Row>, TableError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(self.model.key, AttributeValue::S(self.generation.key(key)))
            .send()
            .await?;
        let found = got.item.map(|item| self.row(item)).transpose()?;
        Ok(found.map(|(_, row)| row))
    }

    /// Splits the stored key of a row into its generation and its key.
    pub(super) fn row(&self, item: Item) -> Result<(Generation, Row), TableError> {
        let mut row = row(item)?;
        let stored = row
            .get(self.model.key)
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (generation, key) = Generation::split(stored);
        let key = Value::from(key);
        row.insert(self.model.key.to_owned(), key);
        Ok((generation, row))
    }

    /// Reads up to `limit` rows of one index partition after the position `from`, the last row
    /// first, eventually consistent.
    ///
    /// The index contains keys only, so that a change of a row does not write to it. The rows are
    /// read by key, a hundred per call. During a rebuild, the index contains the keys of both
    /// generations, and reading them costs read request units.
    ///
    /// # Errors
    /// Returns an error if a read fails or `from` is not a position.
    pub async fn latest(
        &self,
        index: &Index,
        value: &str,
        limit: u32,
        from: Option<Row>,
    ) -> Result<Page, TableError> {
        // One more key shows that there is another page.
        let mut positions = self.positions(index, value, limit + 1, from).await?;
        let more = positions.len() > limit as usize;
        positions.truncate(limit as usize);
        let key = |position: &Row| {
            position
                .get(self.model.key)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let keys: Vec<String> = positions.iter().filter_map(key).collect();
        let mut found = self.all(&keys).await?;
        // A row can be pruned between the two reads.
        let rows = keys.iter().filter_map(|key| found.remove(key)).collect();
        let next = positions.pop().filter(|_| more);
        Ok(Page { rows, next })
    }

    pub(super) async fn all(&self, keys: &[String]) -> Result<HashMap<String, Row>, TableError> {
        let mut rows = HashMap::new();
        for keys in keys.chunks(MAX_BATCH) {
            let wanted = HashMap::from([(self.table.clone(), self.wanted(keys)?)]);
            let mut found = batch_get(&self.client, wanted).await?;
            rows.extend(self.by_key(found.remove(&self.table))?);
        }
        Ok(rows)
    }

    pub(super) fn wanted(&self, keys: &[String]) -> Result<KeysAndAttributes, TableError> {
        let keys = keys.iter().map(|key| {
            let stored = AttributeValue::S(self.generation.key(key));
            Item::from([(self.model.key.to_owned(), stored)])
        });
        let wanted = KeysAndAttributes::builder().set_keys(Some(keys.collect()));
        wanted.build().map_err(TableError::from)
    }

    pub(super) fn by_key(
        &self,
        items: Option<Vec<Item>>,
    ) -> Result<HashMap<String, Row>, TableError> {
        let mut rows = HashMap::new();
        for item in items.into_iter().flatten() {
            let (_, row) = self.row(item)?;
            let key = row.get(self.model.key).and_then(Value::as_str);
            rows.insert(key.unwrap_or_default().to_owned(), row);
        }
        Ok(rows)
    }

    /// Reads the positions of up to `limit` rows of one index partition, the last row first. A
    /// position has the key attributes of the table and of the index.
    pub(super) async fn positions(
        &self,
        index: &Index,
        value: &str,
        limit: u32,
        from: Option<Row>,
    ) -> Result<Vec<Row>, TableError> {
        let mut from: Option<Item> = from
            .map(|from| serde_dynamo::to_item(from).map_err(TableError::from))
            .transpose()?;
        if let Some(AttributeValue::S(key)) =
            from.as_mut().and_then(|from| from.get_mut(self.model.key))
        {
            *key = self.generation.key(key);
        }
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(index.name)
            .key_condition_expression("#key = :key")
            .expression_attribute_names("#key", index.key)
            .expression_attribute_values(":key", AttributeValue::S(value.to_owned()))
            .scan_index_forward(false)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let mut rows = vec![];
        loop {
            let page = query.clone().set_exclusive_start_key(from).send().await?;
            for item in page.items.unwrap_or_default() {
                let (generation, row) = self.row(item)?;
                if generation == self.generation && rows.len() < limit as usize {
                    rows.push(row);
                }
            }
            from = page.last_evaluated_key;
            if from.is_none() || rows.len() >= limit as usize {
                return Ok(rows);
            }
        }
    }
}

/// A page of rows.
#[derive(Debug)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Row>,
    /// The position after which the next page begins, if there is one.
    pub next: Option<Row>,
}

/// A global secondary index, of which only keys are read.
#[derive(Clone, Copy, Debug)]
pub struct Index {
    /// The name of the index.
    pub name: &'static str,
    /// The partition key attribute of the index.
    pub key: &'static str,
}

impl<M: 'static> Checkpointed for Rows<M> {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        self.model.target(stream)
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        let (batch, taken) = RowBatch::new(&self.model, events)?;
        let row_key = events
            .first()
            .and_then(|event| (self.model.row_key)(&event.stream));
        let Some(row_key) = row_key else {
            return Ok(Advance::Applied(0));
        };
        let mut update = Expression::default();
        for (gate, (from, to)) in batch.gates {
            update.gate(gate, from, to);
        }
        for change in batch.changes {
            update.change(change)?;
        }
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(
                self.model.key,
                AttributeValue::S(self.generation.key(row_key.key)),
            )
            .update_expression(update.text())
            .condition_expression(update.condition)
            .set_expression_attribute_names(Some(update.names))
            .set_expression_attribute_values(Some(update.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Advance::Applied(taken)),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    let item = failed.item();
                    let gates = self.model.gates_of(events, |gate| version(item, gate));
                    Ok(Advance::NotNext(gates))
                }
                _ => Err(TableError::from(error).into()),
            },
        }
    }
}
