//! The event store: one item per commit.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    operation::{put_item::PutItemError, transact_write_items::TransactWriteItemsError},
    types::{
        AttributeValue, ConditionCheck, KeysAndAttributes, Put,
        ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
    },
};
use futures_util::future::try_join_all;
use uuid::Uuid;

use cairn::{
    commit::Commit,
    decider::Aggregate,
    guard::{Guard, holds},
    store::{
        AppendError, ConditionalStore, Conditions, Conflict, Consistency, EventStore,
        MAX_COMMIT_BYTES, Quota, ReadRange, StoreError, StreamVersion, check_append, is_own,
    },
    stream::StreamId,
};

use super::{Item, MAX_BATCH, TableError, batch_get};
use crate::context::{AppContext, ConfigError};

/// The event store: one item per commit, in a table with the keys `stream` (S) and `version` (N).
#[derive(Clone, Debug)]
pub struct DynamoStore {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) quotas: Option<String>,
    pub(super) conflicts: Arc<AtomicU64>,
}

/// A repository of an aggregate on DynamoDB.
pub type Repository<A> = cairn::repository::Repository<A, DynamoStore>;

impl AppContext {
    /// Returns the event store in the table of `EVENTS_TABLE`.
    pub fn event_store(&self) -> Result<DynamoStore, ConfigError> {
        let table = self.variable("EVENTS_TABLE")?;
        Ok(DynamoStore::new(self.dynamodb(), table).with_conflict_counter(self.conflicts.clone()))
    }

    /// Returns the streams of an aggregate in the table of `EVENTS_TABLE`. Its cache lives as long
    /// as the execution environment.
    pub fn repository<A: Aggregate>(&self) -> Result<Repository<A>, ConfigError> {
        Ok(Repository::new(self.event_store()?))
    }
}

impl DynamoStore {
    /// The maximum size of the first page when a read needs the last commits only. The following
    /// pages have no limit.
    pub(super) const TAIL_PAGE: i32 = 8;

    /// Creates a store on this table.
    pub fn new(client: Client, table: String) -> Self {
        Self {
            client,
            table,
            quotas: None,
            conflicts: Arc::default(),
        }
    }

    /// Counts commits with a quota in a table with the key `counter` (S). An item also has `count`
    /// and `expiresAt`, the time to live of DynamoDB, a day after the end of the period.
    #[must_use]
    pub fn with_quotas(self, table: String) -> Self {
        let quotas = Some(table);
        Self { quotas, ..self }
    }

    /// Counts the appends that end in a conflict.
    #[must_use]
    pub(crate) fn with_conflict_counter(self, conflicts: Arc<AtomicU64>) -> Self {
        Self { conflicts, ..self }
    }

    /// Reads from the end of the stream backwards, so the cost does not depend on its length.
    pub(super) async fn query(
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
    pub(super) async fn items(
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

    pub(super) async fn batch(
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

    pub(super) async fn put(&self, commit: &Commit) -> Result<(), AppendError> {
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

    pub(super) async fn transact(
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
            let count = self.count(quota, commits.len())?;
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

    pub(super) fn check(&self, unchanged: &StreamVersion) -> Result<ConditionCheck, StoreError> {
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

    /// Returns the update that counts commits against a quota.
    pub(super) fn count(&self, quota: &Quota, commits: usize) -> Result<Update, StoreError> {
        const DAY: Duration = Duration::from_hours(24);
        let table = self.quotas.as_ref();
        let table = table
            .ok_or_else(|| StoreError::Permanent("the store has no table of quotas".into()))?;
        let expires = quota.until.after(DAY).as_millis() / 1000;
        let before = i64::from(quota.limit) - i64::try_from(commits).unwrap_or(i64::MAX);
        let condition = if before < 0 {
            "#count <= :before"
        } else {
            "attribute_not_exists(#count) OR #count <= :before"
        };
        Update::builder()
            .table_name(table)
            .key("counter", AttributeValue::S(quota.counter.clone()))
            .update_expression("ADD #count :commits SET expiresAt = :expires")
            .condition_expression(condition)
            .expression_attribute_names("#count", "count")
            .expression_attribute_values(":commits", AttributeValue::N(commits.to_string()))
            .expression_attribute_values(":expires", AttributeValue::N(expires.to_string()))
            .expression_attribute_values(":before", AttributeValue::N(before.to_string()))
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

pub(super) fn decode(stream: &StreamId, item: Item) -> Result<Commit, StoreError> {
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
