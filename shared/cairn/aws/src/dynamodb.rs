//! The adapters for Amazon DynamoDB: the event store, read models, deadlines, rebuilds, restores and
//! audits.
//!
//! An append is one `PutItem`, or one `TransactWriteItems` for several streams. A load is one
//! `Query` from the end of the stream backwards. An event costs one `UpdateItem` on a row, and one
//! transaction on counters. Each write has a condition that proves its position in the stream; a
//! failed condition [returns the stored
//! item](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html). Every
//! read follows its [pages of 1
//! MB](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Query.Pagination.html).

use std::{
    collections::{BTreeMap, HashMap},
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    operation::{
        put_item::PutItemError, transact_write_items::TransactWriteItemsError,
        update_item::UpdateItemError,
    },
    types::{
        AttributeValue, ConditionCheck, KeysAndAttributes, Put,
        ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
    },
};
use futures_util::future::try_join_all;
use serde_json::Value;
use uuid::Uuid;

use cairn::{
    commit::{Commit, RecordedEvent},
    gate::{Advance, Checkpointed, DeliveryError},
    generation::Generation,
    guard::{Guard, holds},
    read_model::{
        Change, CounterChange, CounterModel, CounterProjection, ReadModel, Row, RowModel,
    },
    retry::Backoff,
    store::{
        AppendError, ConditionalStore, Conditions, Conflict, Consistency, EventStore,
        MAX_COMMIT_BYTES, Quota, ReadRange, StoreError, StreamVersion, check_append, is_own,
    },
    stream::StreamId,
    timestamp::Timestamp,
};

mod answers;
mod audit;
mod deadlines;
mod error;
mod generations;
mod history;
mod keys;
mod live_rows;
mod mail_gate;
mod projection;
mod rebuild;
mod restore;

pub use answers::Answers;
pub use audit::{Audit, AuditError, AuditMark, MarkError};
pub use deadlines::Deadlines;
pub use error::TableError;
pub use generations::{ChangeError, Contended, Generations};
pub use history::Scanned;
pub use keys::{Erasure, Forgotten, KeyError, KeyTable, Keyring, SubjectKey};
pub use mail_gate::{MailGate, WaitingMail};
pub use projection::{AnyProjection, Key, Projection, ScannedRow, Table};
pub use rebuild::{
    BackfillProgress, Comparison, ComparisonProgress, Pruned, Rebuild, RebuildError, Started,
};
pub use restore::{Restore, Restored};

type Item = HashMap<String, AttributeValue>;

/// The event store: one item per commit, in a table with the keys `stream` (S) and `version` (N).
#[derive(Clone, Debug)]
pub struct DynamoStore {
    client: Client,
    table: String,
    quotas: Option<String>,
    conflicts: Arc<AtomicU64>,
}

impl DynamoStore {
    /// The maximum size of the first page when a read needs the last commits only. The following
    /// pages have no limit.
    const TAIL_PAGE: i32 = 8;

    /// Creates a store on this table.
    pub fn new(client: Client, table: String) -> Self {
        Self {
            client,
            table,
            quotas: None,
            conflicts: Arc::default(),
        }
    }

    /// Counts appends with a quota in a table with the key `counter` (S). An item also has `count`
    /// and `expiresAt`, the time to live of DynamoDB, a day after the end of the period.
    #[must_use]
    pub fn with_quotas(self, table: String) -> Self {
        let quotas = Some(table);
        Self { quotas, ..self }
    }

    /// Counts the appends that end in a conflict.
    #[must_use]
    pub fn with_conflict_counter(self, conflicts: Arc<AtomicU64>) -> Self {
        Self { conflicts, ..self }
    }

    /// Reads from the end of the stream backwards, so the cost does not depend on its length.
    async fn query(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        let mut page_size = match range.snapshots {
            _ if range.from > 0 => {
                let wanted = range.to.saturating_sub(range.from);
                Some(
                    i32::try_from(wanted)
                        .map_or(Self::TAIL_PAGE, |most| most.clamp(1, Self::TAIL_PAGE)),
                )
            }
            Some(snapshots) => Some(i32::try_from(snapshots.every).unwrap_or(i32::MAX)),
            None => None,
        };
        let until = (range.to < u64::MAX).then(|| AttributeValue::N(range.to.to_string()));
        let condition = match until {
            Some(_) => "#stream = :stream AND #version <= :until",
            None => "#stream = :stream",
        };
        let mut query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression(condition)
            .expression_attribute_names("#stream", "stream")
            .expression_attribute_values(":stream", AttributeValue::S(stream.to_string()))
            .consistent_read(range.consistency == Consistency::Strong)
            .scan_index_forward(false);
        if let Some(until) = until {
            query = query
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":until", until);
        }
        let mut commits: Vec<Commit> = vec![];
        let mut from = None;
        'pages: loop {
            let page = query
                .clone()
                .set_limit(page_size.take())
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(TableError::from)?;
            for item in page.items.unwrap_or_default() {
                let commit = decode(stream, item)?;
                if commit.last_version() <= range.from {
                    break 'pages;
                }
                let is_first = commit.version <= range.from + 1 || range.can_begin_with(&commit);
                commits.push(commit);
                if is_first {
                    break 'pages;
                }
            }
            from = page.last_evaluated_key;
            if from.is_none() {
                break;
            }
        }
        commits.reverse();
        range.check(stream, &commits)?;
        Ok(commits)
    }

    /// Reads items by their keys, and skips missing ones.
    async fn items(
        &self,
        keys: &[Item],
        consistency: Consistency,
    ) -> Result<Vec<Item>, StoreError> {
        let mut batches = vec![];
        for keys in keys.chunks(MAX_BATCH) {
            batches.push(self.batch(keys, consistency));
        }
        Ok(try_join_all(batches).await?.concat())
    }

    async fn batch(
        &self,
        keys: &[Item],
        consistency: Consistency,
    ) -> Result<Vec<Item>, StoreError> {
        let wanted = KeysAndAttributes::builder()
            .set_keys(Some(keys.to_vec()))
            .consistent_read(consistency == Consistency::Strong)
            .build()
            .map_err(TableError::from)?;
        let wanted = HashMap::from([(self.table.clone(), wanted)]);
        let mut found = batch_get(&self.client, wanted).await?;
        Ok(found.remove(&self.table).unwrap_or_default())
    }

    async fn put(&self, commit: &Commit) -> Result<(), AppendError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item(commit)?))
            .condition_expression("attribute_not_exists(version)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = put else { return Ok(()) };
        let winner = match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failed)) => failed
                .item()
                .map(|item| decode(&commit.stream, item.clone()))
                .transpose()?,
            Some(PutItemError::TransactionConflictException(_)) => None,
            _ => return Err(TableError::from(error).into()),
        };
        // The SDK retries after a lost response, and then meets the commit of its first attempt.
        if winner.as_ref() == Some(commit) && holds(Guard::CommitId) {
            return Ok(());
        }
        Err(AppendError::Conflict(vec![Conflict {
            stream: commit.stream.clone(),
            winner,
        }]))
    }

    async fn transact(
        &self,
        commits: &[Commit],
        conditions: Conditions<'_>,
    ) -> Result<(), AppendError> {
        let Conditions { unchanged, quota } = conditions;
        let mut writes = Vec::with_capacity(commits.len() + unchanged.len() + 1);
        for commit in commits {
            let put = Put::builder()
                .table_name(&self.table)
                .set_item(Some(item(commit)?))
                .condition_expression("attribute_not_exists(version)")
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
                .build()
                .map_err(TableError::from)?;
            writes.push(TransactWriteItem::builder().put(put).build());
        }
        for unchanged in unchanged {
            let check = self.check(unchanged)?;
            writes.push(TransactWriteItem::builder().condition_check(check).build());
        }
        if let Some(quota) = quota {
            let count = self.count(quota)?;
            writes.push(TransactWriteItem::builder().update(count).build());
        }
        let sent = self
            .client
            .transact_write_items()
            .set_transact_items(Some(writes))
            .client_request_token(token(commits, conditions)?)
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        else {
            return Err(TableError::from(error).into());
        };
        let mut lost = vec![];
        let reasons = cancelled.cancellation_reasons();
        let written = commits.iter().map(|commit| &commit.stream);
        let streams = written.chain(unchanged.iter().map(|unchanged| &unchanged.stream));
        for (stream, reason) in streams.zip(reasons) {
            match reason.code() {
                Some("ConditionalCheckFailed") => lost.push(Conflict {
                    stream: stream.clone(),
                    winner: reason
                        .item()
                        .map(|item| decode(stream, item.clone()))
                        .transpose()?,
                }),
                Some("TransactionConflict") => lost.push(Conflict {
                    stream: stream.clone(),
                    winner: None,
                }),
                _ => {}
            }
        }
        if let (Some(quota), Some(reason), true) = (quota, reasons.last(), lost.is_empty()) {
            match reason.code() {
                Some("ConditionalCheckFailed") => return Err(StoreError::from(quota).into()),
                // Another append counts at the same time.
                Some("TransactionConflict") => {
                    lost.extend(commits.first().map(|commit| Conflict {
                        stream: commit.stream.clone(),
                        winner: None,
                    }));
                }
                _ => {}
            }
        }
        if lost.is_empty() {
            return Err(TableError::cancelled(reasons).into());
        }
        // As for a single commit, when DynamoDB no longer knows the token.
        if is_own(&lost, commits) && holds(Guard::CommitId) {
            return Ok(());
        }
        Err(AppendError::Conflict(lost))
    }

    fn check(&self, unchanged: &StreamVersion) -> Result<ConditionCheck, StoreError> {
        let next = unchanged.version + 1;
        ConditionCheck::builder()
            .table_name(&self.table)
            .key("stream", AttributeValue::S(unchanged.stream.to_string()))
            .key("version", AttributeValue::N(next.to_string()))
            .condition_expression("attribute_not_exists(version)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| TableError::from(error).into())
    }

    fn count(&self, quota: &Quota) -> Result<Update, StoreError> {
        const DAY: Duration = Duration::from_hours(24);
        let table = self.quotas.as_ref();
        let table = table
            .ok_or_else(|| StoreError::Permanent("the store has no table of quotas".into()))?;
        let expires = quota.until.after(DAY).as_millis() / 1000;
        Update::builder()
            .table_name(table)
            .key("counter", AttributeValue::S(quota.counter.clone()))
            .update_expression("ADD #count :one SET expiresAt = :expires")
            .condition_expression("attribute_not_exists(#count) OR #count < :limit")
            .expression_attribute_names("#count", "count")
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .expression_attribute_values(":expires", AttributeValue::N(expires.to_string()))
            .expression_attribute_values(":limit", AttributeValue::N(quota.limit.to_string()))
            .build()
            .map_err(|error| TableError::from(error).into())
    }
}

impl ConditionalStore for DynamoStore {
    async fn append_if(
        &self,
        commits: &[Commit],
        conditions: Conditions<'_>,
    ) -> Result<(), AppendError> {
        check_append(commits, conditions)?;
        let is_unconditional = conditions == Conditions::default();
        let appended = match commits {
            [] => Ok(()),
            [commit] if is_unconditional => self.put(commit).await,
            several if is_unconditional && !holds(Guard::AtomicStep) => {
                for commit in several {
                    self.put(commit).await?;
                }
                Ok(())
            }
            commits => self.transact(commits, conditions).await,
        };
        if matches!(appended, Err(AppendError::Conflict(_))) {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        appended
    }
}

impl EventStore for DynamoStore {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        self.append_if(commits, Conditions::default()).await
    }

    /// Reads again with strong consistency if an eventually consistent read has a gap, because a
    /// replica can lag.
    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        let read = self.query(stream, range).await;
        if matches!(read, Err(StoreError::Corrupt { .. }))
            && range.consistency == Consistency::Eventual
        {
            let consistency = Consistency::Strong;
            return self
                .query(
                    stream,
                    &ReadRange {
                        consistency,
                        ..*range
                    },
                )
                .await;
        }
        read
    }
}

/// The maximum number of keys per `BatchGetItem`.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>
const MAX_BATCH: usize = 100;
/// The time budget for retries of throttled reads.
const READ_BUDGET: Duration = Duration::from_secs(2);

/// Reads items by their keys and skips missing ones. Makes one call, and one more each time
/// that DynamoDB throttles some keys or the response exceeds 16 MB.
async fn batch_get(
    client: &Client,
    wanted: HashMap<String, KeysAndAttributes>,
) -> Result<HashMap<String, Vec<Item>>, TableError> {
    let mut found = HashMap::<_, Vec<_>>::new();
    let mut rest = Some(wanted);
    let mut backoff = Backoff::new(READ_BUDGET);
    while let Some(wanted) = rest {
        let got = client.batch_get_item().set_request_items(Some(wanted));
        let got = got.send().await?;
        for (table, items) in got.responses.into_iter().flatten() {
            found.entry(table).or_default().extend(items);
        }
        rest = got.unprocessed_keys.filter(|rest| !rest.is_empty());
        if rest.is_some() && backoff.wait().await.is_err() {
            let problem = "cannot read all items: throttled";
            return Err(TableError::Unavailable(problem.into()));
        }
    }
    Ok(found)
}

fn item(commit: &Commit) -> Result<Item, StoreError> {
    let item: Item = serde_dynamo::to_item(commit).map_err(|error| StoreError::Corrupt {
        stream: commit.stream.clone(),
        reason: error.to_string(),
    })?;
    let bytes = item
        .iter()
        .map(|(name, value)| name.len() + size(value))
        .sum();
    if bytes > MAX_COMMIT_BYTES {
        return Err(StoreError::TooLarge {
            stream: commit.stream.clone(),
            bytes,
        });
    }
    Ok(item)
}

fn decode(stream: &StreamId, item: Item) -> Result<Commit, StoreError> {
    serde_dynamo::from_item(item).map_err(|error| StoreError::Corrupt {
        stream: stream.clone(),
        reason: error.to_string(),
    })
}

/// Returns the size of a value in bytes, as DynamoDB counts it.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>
fn size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        // An upper bound: two digits per byte, and one more byte.
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        AttributeValue::L(values) => 3 + values.iter().map(|value| 1 + size(value)).sum::<usize>(),
        AttributeValue::M(values) => {
            let members = values
                .iter()
                .map(|(name, value)| 1 + name.len() + size(value));
            3 + members.sum::<usize>()
        }
        AttributeValue::B(blob) => blob.as_ref().len(),
        _ => 1,
    }
}

/// Returns the idempotency token of a transaction. The SDK's retry after a lost response has the
/// same token, which DynamoDB keeps for ten minutes. A retry by another invocation has another
/// commit time and so another token; the write conditions recognize it.
fn token(commits: &[Commit], conditions: Conditions<'_>) -> Result<String, StoreError> {
    let text = serde_json::to_vec(&(commits, conditions));
    let text = text.map_err(|error| StoreError::Permanent(error.into()))?;
    Ok(Uuid::new_v5(&Uuid::NAMESPACE_OID, &text).to_string())
}

/// A repository of an aggregate on DynamoDB.
pub type Repository<A> = cairn::repository::Repository<A, DynamoStore>;

/// The rows of one generation of a read model, behind version gates. `M` names the read model;
/// without it, they are the rows of any.
#[derive(Debug)]
pub struct Rows<M = ()> {
    client: Client,
    table: String,
    generation: Generation,
    model: RowModel,
    named: PhantomData<fn() -> M>,
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

impl Rows {
    /// Creates an adapter of the first generation of any read model in this table.
    pub fn with_model(client: Client, table: String, model: RowModel) -> Self {
        Self::of_model(client, table, model)
    }
}

impl<M> Rows<M> {
    fn of_model(client: Client, table: String, model: RowModel) -> Self {
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
    fn row(&self, item: Item) -> Result<(Generation, Row), TableError> {
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

    async fn all(&self, keys: &[String]) -> Result<HashMap<String, Row>, TableError> {
        let mut rows = HashMap::new();
        for keys in keys.chunks(MAX_BATCH) {
            let wanted = HashMap::from([(self.table.clone(), self.wanted(keys)?)]);
            let mut found = batch_get(&self.client, wanted).await?;
            rows.extend(self.by_key(found.remove(&self.table))?);
        }
        Ok(rows)
    }

    fn wanted(&self, keys: &[String]) -> Result<KeysAndAttributes, TableError> {
        let keys = keys.iter().map(|key| {
            let stored = AttributeValue::S(self.generation.key(key));
            Item::from([(self.model.key.to_owned(), stored)])
        });
        let wanted = KeysAndAttributes::builder().set_keys(Some(keys.collect()));
        wanted.build().map_err(TableError::from)
    }

    fn by_key(&self, items: Option<Vec<Item>>) -> Result<HashMap<String, Row>, TableError> {
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
    async fn positions(
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
    async fn advance(&self, event: &RecordedEvent) -> Result<Advance, DeliveryError> {
        let Some(row_key) = (self.model.row_key)(&event.stream) else {
            return Ok(Advance::Duplicate);
        };
        let before = event.version.saturating_sub(1);
        let mut update = Expression::gate(row_key.gate, before, event.version);
        for change in (self.model.changes)(event)? {
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
            Ok(_) => Ok(Advance::Applied),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(not_applied(failed.item(), row_key.gate, event.version))
                }
                _ => Err(TableError::from(error).into()),
            },
        }
    }
}

/// The counters of one generation, in a table with the keys `partition` (S) and `row` (S), with one
/// version gate per stream. `T` names the read model; without it, they are the counters of any.
#[derive(Debug)]
pub struct Counters<T = ()> {
    client: Client,
    table: String,
    generation: Generation,
    model: CounterModel,
    named: PhantomData<fn() -> T>,
}

impl<T> Clone for Counters<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            table: self.table.clone(),
            ..*self
        }
    }
}

impl<T: CounterProjection> Counters<T> {
    /// Creates an adapter of the first generation in this table.
    pub fn new(client: Client, table: String) -> Self {
        Self::of_model(client, table, CounterModel::new::<T>())
    }
}

impl Counters {
    /// Creates an adapter of the first generation of any counters in this table.
    pub fn with_model(client: Client, table: String, model: CounterModel) -> Self {
        Self::of_model(client, table, model)
    }
}

impl<T> Counters<T> {
    const GATE: &'static str = "version";
    const GATES: &'static str = "gate#";
    /// The time budget for retries after conflicts with other writers of the counters.
    const TIME_BUDGET: Duration = Duration::from_secs(2);

    fn of_model(client: Client, table: String, model: CounterModel) -> Self {
        Self {
            client,
            table,
            generation: Generation::FIRST,
            model,
            named: PhantomData,
        }
    }

    /// Reads the rows of one partition between two sort keys, both included.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn between(
        &self,
        partition: &str,
        from: &str,
        to: &str,
    ) -> Result<Vec<(Timestamp, Row)>, TableError> {
        let mut rows = vec![];
        let mut start = None;
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("#partition = :partition AND #row BETWEEN :from AND :to")
                .expression_attribute_names("#partition", "partition")
                .expression_attribute_names("#row", "row")
                .expression_attribute_values(
                    ":partition",
                    AttributeValue::S(self.generation.key(partition)),
                )
                .expression_attribute_values(":from", AttributeValue::S(from.to_owned()))
                .expression_attribute_values(":to", AttributeValue::S(to.to_owned()))
                .set_exclusive_start_key(start)
                .send()
                .await?;
            for item in page.items.unwrap_or_default() {
                let row = row(item)?;
                let start = row.get("row").and_then(Value::as_str).unwrap_or_default();
                let start = start.parse().map_err(TableError::malformed)?;
                rows.push((start, row));
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(rows);
            }
        }
    }

    fn gate_of(stream: &StreamId) -> Key {
        let partition = format!("{}{stream}", Self::GATES);
        Key::new([("partition", &partition), ("row", "gate")])
    }

    fn stored(&self, key: &Key) -> Item {
        projection::stored(key, Some(self.generation))
    }

    /// Returns the updates of a batch, the gates first, and the number of gates.
    fn updates(&self, batch: &Batch<'_>) -> Result<(usize, Vec<TransactWriteItem>), TableError> {
        let gates = batch.gates.iter().map(|(stream, (from, to))| {
            let gate = Expression::gate(Self::GATE, *from, *to);
            Update::builder()
                .set_key(Some(self.stored(&Self::gate_of(stream))))
                .update_expression(gate.text())
                .condition_expression(gate.condition)
                .set_expression_attribute_names(Some(gate.names))
                .set_expression_attribute_values(Some(gate.values))
                .return_values_on_condition_check_failure(
                    ReturnValuesOnConditionCheckFailure::AllOld,
                )
        });
        let counters = batch.counters.iter().map(|(key, counters)| {
            let mut update = Expression::default();
            for (name, by) in counters {
                update.add(name, *by);
            }
            Update::builder()
                .set_key(Some(self.stored(key)))
                .update_expression(update.text())
                .set_expression_attribute_names(Some(update.names))
                .set_expression_attribute_values(Some(update.values))
        });
        let updates = gates.chain(counters).map(|update| {
            let update = update.table_name(&self.table).build()?;
            Ok(TransactWriteItem::builder().update(update).build())
        });
        Ok((
            batch.gates.len(),
            updates.collect::<Result<_, TableError>>()?,
        ))
    }

    /// Writes a batch. The inner error is the first gate whose condition failed.
    async fn write(&self, batch: &Batch<'_>) -> Result<Result<(), ConditionFailed>, TableError> {
        let (gates, writes) = self.updates(batch)?;
        let mut backoff = Backoff::new(Self::TIME_BUDGET);
        loop {
            let sent = self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes.clone()))
                .send()
                .await;
            let Err(error) = sent else {
                return Ok(Ok(()));
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
                error.as_service_error()
            else {
                return Err(error.into());
            };
            let reasons = cancelled.cancellation_reasons();
            let mut of_gates = reasons.iter().take(gates);
            let refused = of_gates.find(|gate| gate.code() == Some("ConditionalCheckFailed"));
            if let Some(gate) = refused {
                return Ok(Err(ConditionFailed(gate.item().cloned())));
            }
            let error = TableError::cancelled(reasons);
            if !error.is_transient() || backoff.wait().await.is_err() {
                return Err(error);
            }
        }
    }
}

/// The stored item of a gate whose condition failed.
struct ConditionFailed(Option<Item>);

impl<T: 'static> Checkpointed for Counters<T> {
    async fn advance(&self, event: &RecordedEvent) -> Result<Advance, DeliveryError> {
        if (self.model.shard)(&event.stream).is_none() {
            return Ok(Advance::Duplicate);
        }
        let (batch, _) = Batch::new(&self.model, std::slice::from_ref(event))?;
        Ok(match self.write(&batch).await? {
            Ok(()) => Advance::Applied,
            Err(ConditionFailed(item)) => not_applied(item.as_ref(), Self::GATE, event.version),
        })
    }

    fn fitting(&self, events: &[RecordedEvent]) -> usize {
        Batch::new(&self.model, events).map_or(1, |(_, events)| events)
    }

    async fn advance_all(&self, events: &[RecordedEvent]) -> Result<bool, DeliveryError> {
        let (batch, taken) = Batch::new(&self.model, events)?;
        Ok(taken == events.len() && self.write(&batch).await?.is_ok())
    }
}

/// The changes of several events in one transaction: each gate and each row of counters once.
#[derive(Default)]
struct Batch<'a> {
    /// The versions before and after the batch.
    gates: BTreeMap<&'a StreamId, (u64, u64)>,
    counters: BTreeMap<Key, BTreeMap<String, i64>>,
}

impl<'a> Batch<'a> {
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
    const MOST_ITEMS: usize = 100;
    /// The maximum number of counters per row, because an expression is limited to 4 KB.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
    const MOST_COUNTERS: usize = 200;

    /// Takes the first events that fit into one transaction, at least one, and returns their
    /// number. The events of each stream must be consecutive.
    fn new(model: &CounterModel, events: &'a [RecordedEvent]) -> Result<(Self, usize), TableError> {
        let mut batch = Self::default();
        let mut taken = 0;
        for event in events {
            let counts = (model.counts)(event)?;
            if taken > 0 && !batch.has_room(event, &counts) {
                break;
            }
            batch.add(event, counts);
            taken += 1;
        }
        Ok((batch, taken))
    }

    fn has_room(&self, event: &RecordedEvent, counts: &[CounterChange]) -> bool {
        let gate = self.gates.get(&event.stream);
        let follows = gate.is_none_or(|(_, to)| to + 1 == event.version);
        let mut items = self.gates.len() + self.counters.len() + usize::from(gate.is_none());
        let mut is_short = true;
        for count in counts {
            match self.counters.get(&Key::from(count)) {
                Some(counters) => {
                    is_short &= counters.len() + count.add.len() <= Self::MOST_COUNTERS;
                }
                None => items += 1,
            }
        }
        follows && is_short && items <= Self::MOST_ITEMS
    }

    fn add(&mut self, event: &'a RecordedEvent, counts: Vec<CounterChange>) {
        let before = event.version.saturating_sub(1);
        let gate = self.gates.entry(&event.stream).or_insert((before, before));
        gate.1 = event.version;
        for count in counts {
            let counters = self.counters.entry(Key::from(&count)).or_default();
            for (name, by) in count.add {
                *counters.entry(name).or_default() += by;
            }
        }
    }
}

#[derive(Default)]
struct Expression {
    set: Vec<String>,
    add: Vec<String>,
    condition: String,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// Moves a gate from one version to another. `from` is 0 before the first event.
    fn gate(gate: &str, from: u64, to: u64) -> Self {
        let mut update = Self::default();
        let name = update.name(gate);
        let to = update.value(AttributeValue::N(to.to_string()));
        update.set.push(format!("{name} = {to}"));
        update.condition = if from == 0 {
            format!("attribute_not_exists({name})")
        } else {
            let from = update.value(AttributeValue::N(from.to_string()));
            format!("{name} = {from}")
        };
        if !holds(Guard::VersionGate) {
            let either = format!("attribute_exists({name}) OR attribute_not_exists({name})");
            update.condition = format!("{} OR {either}", update.condition);
        }
        update
    }

    fn change(&mut self, change: Change) -> Result<(), TableError> {
        match change {
            Change::Set(path, value) => {
                let path = self.path(&path);
                let value = serde_dynamo::to_attribute_value(value)?;
                let value = self.value(value);
                self.set.push(format!("{path} = {value}"));
            }
            Change::Add(path, by) => {
                let path = self.path(&path);
                let zero = self.value(AttributeValue::N("0".to_owned()));
                let by = self.value(AttributeValue::N(by.to_string()));
                self.set
                    .push(format!("{path} = if_not_exists({path}, {zero}) + {by}"));
            }
        }
        Ok(())
    }

    /// Adds to a top-level counter. Its name can contain any characters.
    fn add(&mut self, counter: &str, by: i64) {
        let name = self.name(counter);
        let by = self.value(AttributeValue::N(by.to_string()));
        self.add.push(format!("{name} {by}"));
    }

    fn path(&mut self, path: &str) -> String {
        let names: Vec<_> = path.split('.').map(|name| self.name(name)).collect();
        names.join(".")
    }

    fn name(&mut self, name: &str) -> String {
        let known = self.names.iter().find(|(_, known)| *known == name);
        if let Some((alias, _)) = known {
            return alias.clone();
        }
        let alias = format!("#n{}", self.names.len());
        self.names.insert(alias.clone(), name.to_owned());
        alias
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let alias = format!(":v{}", self.values.len());
        self.values.insert(alias.clone(), value);
        alias
    }

    fn text(&self) -> String {
        let section = |keyword: &str, parts: &[String]| {
            (!parts.is_empty()).then(|| format!("{keyword} {}", parts.join(", ")))
        };
        let sections = [section("SET", &self.set), section("ADD", &self.add)];
        sections.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

fn not_applied(item: Option<&Item>, gate: &str, version: u64) -> Advance {
    let at = item
        .and_then(|item| item.get(gate))
        .and_then(|gate| gate.as_n().ok())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0);
    if at >= version {
        Advance::Duplicate
    } else {
        Advance::Gap { at }
    }
}

fn row(item: Item) -> Result<Row, TableError> {
    Ok(serde_dynamo::from_item(item)?)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use cairn::{
        event::{CodecError, StoredEvent},
        metadata::Metadata,
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
                data: to_raw_value(&json!({})).unwrap(),
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
        let (batch, taken) = Batch::new(&NAMES, &events).unwrap();
        assert_eq!(taken, 3);
        let gates: Vec<_> = batch.gates.into_iter().collect();
        assert_eq!(
            gates,
            [(&events[0].stream, (2, 4)), (&events[2].stream, (0, 1))]
        );
        let counters: Vec<_> = batch.counters.into_values().collect();
        assert_eq!(counters, [BTreeMap::from([("Placed".to_owned(), 3)])]);
    }

    #[test]
    fn a_transaction_takes_no_more_than_there_is_room_for_and_no_gap() {
        let fitting = |events: &[RecordedEvent]| Batch::new(&NAMES, events).unwrap().1;
        let streams: Vec<_> = (0..150)
            .map(|number| event(&format!("order-{number}"), 1, "Placed"))
            .collect();
        assert_eq!(fitting(&streams), 99, "one item holds the counters");
        let names: Vec<_> = (1..=300)
            .map(|version| event("order-a", version, &format!("Event{version}")))
            .collect();
        assert_eq!(fitting(&names), 200);
        let gap = [event("order-a", 1, "Placed"), event("order-a", 3, "Placed")];
        assert_eq!(fitting(&gap), 1);
    }
}
