//! The events of a table as they are committed, from its DynamoDB Stream.
//!
//! A DynamoDB Stream consists of shards. A shard ends after some hours, and its children continue
//! it. A child is read only after the end of its parent, so that the commits of a stream arrive in
//! order.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html>

use std::collections::BTreeSet;

use aws_sdk_dynamodbstreams::{
    Client,
    types::{OperationType, Record, Shard, ShardIteratorType},
};

use crate::dynamodb::TableError;
use cairn::{commit::Commit, store::StoreError};

/// The position at which a tail starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// At the commits from now on.
    Now,
    /// At the oldest record, which is at most 24 hours old.
    Oldest,
}

/// A continuous read of a DynamoDB Stream.
#[derive(Debug)]
pub struct Tail {
    client: Client,
    stream: String,
    /// All shards that were listed so far.
    known: BTreeSet<String>,
    /// Shards that wait for the end of their parents.
    waiting: Vec<Shard>,
    /// Shards that are read, with their iterators.
    reading: Vec<(String, String)>,
    /// Ended shards without listed children.
    ended: Vec<String>,
}

/// A record that is not a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the stream cannot be read: {0}")]
pub struct Unreadable(String);

impl Tail {
    pub(super) async fn begin(
        client: Client,
        stream: String,
        position: StartPosition,
    ) -> Result<Self, StoreError> {
        let mut tail = Self {
            client,
            stream,
            known: BTreeSet::new(),
            waiting: vec![],
            reading: vec![],
            ended: vec![],
        };
        tail.look().await?;
        if position == StartPosition::Now {
            // New records go to the shards without children.
            let shards = std::mem::take(&mut tail.waiting);
            let parents = shards
                .iter()
                .filter_map(|shard| shard.parent_shard_id.clone());
            let parents: BTreeSet<_> = parents.collect();
            for shard in shards {
                if !shard.shard_id().is_some_and(|id| parents.contains(id)) {
                    tail.open(shard, ShardIteratorType::Latest).await?;
                }
            }
        }
        Ok(tail)
    }

    /// Returns the commits since the last call, in order within each stream; none if no commit is
    /// new.
    pub async fn next(&mut self) -> Result<Vec<Result<Commit, Unreadable>>, StoreError> {
        if !self.ended.is_empty() {
            self.look().await?;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let parents: BTreeSet<_> = waiting
            .iter()
            .filter_map(|shard| shard.shard_id.clone())
            .chain(self.reading.iter().map(|(id, _)| id.clone()))
            .collect();
        for shard in waiting {
            if shard
                .parent_shard_id()
                .is_some_and(|parent| parents.contains(parent))
            {
                self.waiting.push(shard);
            } else {
                self.open(shard, ShardIteratorType::TrimHorizon).await?;
            }
        }
        let mut commits = vec![];
        for (shard, iterator) in std::mem::take(&mut self.reading) {
            let records = self.client.get_records().shard_iterator(iterator).send();
            let page = records.await.map_err(TableError::from)?;
            commits.extend(
                page.records
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(commit),
            );
            match page.next_shard_iterator {
                Some(next) => self.reading.push((shard, next)),
                None => self.ended.push(shard),
            }
        }
        Ok(commits)
    }

    /// Lists new shards.
    async fn look(&mut self) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let describe = self.client.describe_stream().stream_arn(&self.stream);
            let described = describe.set_exclusive_start_shard_id(from).send().await;
            let described = described.map_err(TableError::from)?;
            let description = described.stream_description;
            let Some(description) = description else {
                return Ok(());
            };
            for shard in description.shards.unwrap_or_default() {
                let id = shard.shard_id.clone().unwrap_or_default();
                if self.known.insert(id) {
                    let parent = shard.parent_shard_id.as_ref();
                    self.ended.retain(|ended| Some(ended) != parent);
                    self.waiting.push(shard);
                }
            }
            from = description.last_evaluated_shard_id;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    async fn open(&mut self, shard: Shard, at: ShardIteratorType) -> Result<(), StoreError> {
        let id = shard.shard_id.unwrap_or_default();
        let open = self.client.get_shard_iterator().stream_arn(&self.stream);
        let opened = open.shard_id(&id).shard_iterator_type(at).send().await;
        let opened = opened.map_err(TableError::from)?;
        if let Some(iterator) = opened.shard_iterator {
            self.reading.push((id, iterator));
        }
        Ok(())
    }
}

/// Returns the commit of a record; `None` if the record removes one.
fn commit(record: Record) -> Option<Result<Commit, Unreadable>> {
    if record.event_name == Some(OperationType::Remove) {
        return None;
    }
    let image = record.dynamodb?.new_image?;
    let commit = serde_dynamo::from_item(image);
    Some(commit.map_err(|error: serde_dynamo::Error| Unreadable(error.to_string())))
}
