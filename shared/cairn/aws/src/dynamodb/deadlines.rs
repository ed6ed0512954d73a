//! The deadlines of processes, in a DynamoDB table.

use aws_sdk_dynamodb::{
    Client, operation::update_item::builders::UpdateItemFluentBuilder, types::AttributeValue,
};
use futures_util::{
    Stream, StreamExt as _,
    stream::{select_all, unfold},
};

use crate::{
    context::{AppContext, ConfigError},
    dynamodb::{Item, TableError, error::is_applied},
};
use cairn::{
    deadlines::{Deadline, DeadlineChange, DeadlineUpdate, StoredDeadline},
    hash::fnv1a,
    stream::StreamId,
    timestamp::Timestamp,
};

/// A table of deadlines with the key `stream` (S). Its index `byTime` has the keys `watch` (S) and
/// `at` (S), and includes `version`.
#[derive(Clone, Debug)]
pub struct Deadlines {
    client: Client,
    table: String,
}

const OPEN: &str = "open";
const STUCK: &str = "parked";

impl AppContext {
    /// Returns the deadlines in the table of an environment variable.
    pub fn deadlines(&self, variable: &str) -> Result<Deadlines, ConfigError> {
        Ok(Deadlines::new(self.dynamodb(), self.variable(variable)?))
    }
}

impl Deadlines {
    const INDEX: &str = "byTime";
    /// The number of partitions of the index for each value of `watch`. One partition takes 1,000
    /// writes a second.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html>
    const SHARDS: u32 = 4;
    /// The maximum number of rows that one call returns.
    const PAGE: i32 = 100;

    /// Creates a handle to the table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Applies an update. A repeated or older update changes nothing.
    pub async fn apply(&self, update: &DeadlineUpdate) -> Result<(), TableError> {
        match update.change {
            DeadlineChange::Open(at) => self.put(update, OPEN, at).await,
            DeadlineChange::Stuck(since) => self.put(update, STUCK, since).await,
            DeadlineChange::Closed => {
                self.delete(&update.stream, "version < :version", update.version)
                    .await
            }
        }
    }

    async fn put(
        &self,
        update: &DeadlineUpdate,
        watch: &str,
        at: Timestamp,
    ) -> Result<(), TableError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("stream", text(&update.stream))
            .item("version", number(update.version))
            .item("at", text(&at))
            .item("watch", text(&partition(watch, shard(&update.stream))))
            .condition_expression("attribute_not_exists(version) OR version < :version")
            .expression_attribute_values(":version", number(update.version));
        is_applied(put.send().await).map(|_| ())
    }

    /// Deletes a deadline unless it has changed since it was read.
    pub async fn close(&self, deadline: &Deadline) -> Result<(), TableError> {
        self.delete(&deadline.stream, "version = :version", deadline.version)
            .await
    }

    async fn delete(
        &self,
        stream: &StreamId,
        condition: &str,
        version: u64,
    ) -> Result<(), TableError> {
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key("stream", text(stream))
            .condition_expression(condition)
            .expression_attribute_values(":version", number(version));
        is_applied(delete.send().await).map(|_| ())
    }

    /// Postpones a deadline to a time, unless it has changed since it was read.
    pub async fn postpone(&self, deadline: &Deadline, until: Timestamp) -> Result<(), TableError> {
        self.reschedule(deadline, OPEN, until).await
    }

    /// Marks a deadline as stuck, to be checked again at a time, unless it has changed since it was
    /// read.
    pub(crate) async fn mark_stuck(
        &self,
        deadline: &Deadline,
        again: Timestamp,
    ) -> Result<(), TableError> {
        self.reschedule(deadline, STUCK, again).await
    }

    /// Records that a provider throttled the step that is due at this version, and the time of the
    /// next attempt. Creates the deadline if it does not exist.
    pub(crate) async fn ask_again(
        &self,
        stream: &StreamId,
        version: u64,
        at: Timestamp,
    ) -> Result<(), TableError> {
        self.update(stream, OPEN, at)
            .update_expression(
                "SET #at = :at, #watch = :watch, throttled = :throttled, \
                 version = if_not_exists(version, :none)",
            )
            .expression_attribute_values(":throttled", number(version))
            .expression_attribute_values(":none", number(0))
            .send()
            .await?;
        Ok(())
    }

    async fn reschedule(
        &self,
        deadline: &Deadline,
        watch: &str,
        at: Timestamp,
    ) -> Result<(), TableError> {
        let update = self
            .update(&deadline.stream, watch, at)
            .update_expression("SET #at = :at, #watch = :watch")
            .condition_expression("version = :version")
            .expression_attribute_values(":version", number(deadline.version));
        is_applied(update.send().await).map(|_| ())
    }

    /// Returns an update of the attributes `#at` and `#watch`.
    fn update(&self, stream: &StreamId, watch: &str, at: Timestamp) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .key("stream", text(stream))
            .expression_attribute_names("#at", "at")
            .expression_attribute_names("#watch", "watch")
            .expression_attribute_values(":at", text(&at))
            .expression_attribute_values(":watch", text(&partition(watch, shard(stream))))
    }

    /// Returns all due deadlines, oldest first within each partition. The next page of a partition
    /// is read when the stream is polled for it. The read is eventually consistent: a missing
    /// deadline appears in a later call.
    pub fn due(&self, now: Timestamp) -> impl Stream<Item = Result<Deadline, TableError>> + use<> {
        self.watched(OPEN, now)
    }

    /// Returns all stuck deadlines, whenever their next check is, as [`due`](Self::due) does.
    pub fn stuck(&self) -> impl Stream<Item = Result<Deadline, TableError>> + use<> {
        self.watched(STUCK, Timestamp::from_millis(i64::MAX))
    }

    /// Returns the deadline of a stream. The read is strongly consistent.
    pub async fn get(&self, stream: &StreamId) -> Result<Option<StoredDeadline>, TableError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("stream", text(stream))
            .consistent_read(true)
            .send()
            .await?;
        got.item.map(kept).transpose()
    }

    /// Returns a page of all deadlines, and the stream after which the next page begins.
    pub async fn all(
        &self,
        after: Option<&StreamId>,
    ) -> Result<(Vec<StoredDeadline>, Option<StreamId>), TableError> {
        let after = after.map(|stream| Item::from([("stream".to_owned(), text(stream))]));
        let page = self
            .client
            .scan()
            .table_name(&self.table)
            .set_exclusive_start_key(after)
            .send()
            .await?;
        let rows = page.items.unwrap_or_default().into_iter().map(kept);
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let next = page
            .last_evaluated_key
            .and_then(|_| rows.last().map(|row| row.deadline.stream.clone()));
        Ok((rows, next))
    }

    fn watched(
        &self,
        watch: &str,
        until: Timestamp,
    ) -> impl Stream<Item = Result<Deadline, TableError>> + use<> {
        let shards = (0..Self::SHARDS).map(|shard| {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(Self::INDEX)
                .key_condition_expression("#watch = :watch AND #at <= :until")
                .expression_attribute_names("#watch", "watch")
                .expression_attribute_names("#at", "at")
                .expression_attribute_values(":watch", text(&partition(watch, shard)))
                .expression_attribute_values(":until", text(&until))
                .limit(Self::PAGE);
            let rows = query.into_paginator().items().send();
            let rows = unfold(rows, async |mut rows| Some((rows.next().await?, rows)));
            rows.boxed()
        });
        select_all(shards).map(|row| {
            let row = row?;
            serde_dynamo::from_item(row).map_err(TableError::from)
        })
    }
}

fn kept(item: Item) -> Result<StoredDeadline, TableError> {
    let watch = item.get("watch").and_then(|watch| watch.as_s().ok());
    let is_stuck = watch.is_some_and(|watch| watch.starts_with(STUCK));
    let deadline = serde_dynamo::from_item(item)?;
    Ok(StoredDeadline { deadline, is_stuck })
}

fn partition(watch: &str, shard: u32) -> String {
    format!("{watch}#{shard}")
}

/// The shard is stored, so the hash must never change.
fn shard(stream: &StreamId) -> u32 {
    fnv1a(stream.as_str()) % Deadlines::SHARDS
}

fn text(value: &impl ToString) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}
