//! Pages of commits: of the whole table, or of one stream.

use aws_sdk_dynamodb::{
    operation::{query::builders::QueryFluentBuilder, scan::builders::ScanFluentBuilder},
    types::AttributeValue,
};

use super::{DynamoStore, Item, TableError, event_store::decode};
use cairn::{
    commit::{Commit, CommitKey},
    store::StoreError,
    stream::StreamId,
};

/// A page of items: commits, and items that cannot be read as commits.
#[derive(Debug)]
pub struct Scanned {
    pub(super) items: Vec<Result<Commit, Unreadable>>,
    /// The last commit of this page, if the table has more items. The next page begins after it.
    pub next: Option<CommitKey>,
}

/// An item that cannot be read as a commit.
#[derive(Debug, thiserror::Error)]
#[error("{stream}@{version} cannot be read: {reason}")]
pub(super) struct Unreadable {
    pub(super) stream: String,
    pub(super) version: u64,
    pub(super) reason: String,
}

impl From<Unreadable> for StoreError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Permanent(unreadable.into())
    }
}

impl Scanned {
    fn new(items: Option<Vec<Item>>, last: Option<Item>) -> Result<Self, StoreError> {
        let next = last.map(serde_dynamo::from_item).transpose();
        Ok(Self {
            items: items.unwrap_or_default().into_iter().map(read).collect(),
            next: next.map_err(TableError::from)?,
        })
    }

    /// Returns the commits if every item is one.
    ///
    /// # Errors
    /// Returns [`StoreError::Permanent`] for the first item that is not a commit.
    pub fn commits(self) -> Result<Vec<Commit>, StoreError> {
        let commits: Result<_, Unreadable> = self.items.into_iter().collect();
        Ok(commits?)
    }
}

fn read(item: Item) -> Result<Commit, Unreadable> {
    let text = item.get("stream").and_then(|stream| stream.as_s().ok());
    let stream = text.cloned().unwrap_or_default();
    let digits = item.get("version").and_then(|version| version.as_n().ok());
    let version = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let commit = match stream.parse::<StreamId>() {
        Ok(stream) => decode(&stream, item).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    commit.map_err(|reason| Unreadable {
        stream,
        version,
        reason,
    })
}

impl DynamoStore {
    /// The page size in commits. A function can backfill a page within its time.
    const PAGE: i32 = 256;

    /// Returns a page of commits of one segment of the table. The read is strongly consistent.
    ///
    /// All commits of a stream are consecutive in one segment. DynamoDB keeps them in the order of
    /// their versions, but does not guarantee that order for scans.
    pub async fn scan(
        &self,
        segment: u32,
        segments: u32,
        after: Option<&CommitKey>,
    ) -> Result<Scanned, StoreError> {
        let page = self
            .scan_from(segment, segments, start(after)?)
            .limit(Self::PAGE)
            .send()
            .await
            .map_err(TableError::from)?;
        Scanned::new(page.items, page.last_evaluated_key)
    }

    /// Returns the request for a page of one segment of the table, strongly consistent.
    pub(super) fn scan_from(
        &self,
        segment: u32,
        segments: u32,
        after: Option<Item>,
    ) -> ScanFluentBuilder {
        let (segment, segments) = part(segment, segments);
        self.client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .set_segment(segment)
            .set_total_segments(segments)
            .set_exclusive_start_key(after)
    }

    /// Returns a page of commits of a stream that begin at or before a version, oldest first. The
    /// read is strongly consistent.
    pub(super) async fn page(
        &self,
        stream: &StreamId,
        until: u64,
        after: Option<&CommitKey>,
    ) -> Result<Scanned, StoreError> {
        let page = self
            .of_stream(stream, until)
            .limit(Self::PAGE)
            .set_exclusive_start_key(start(after)?)
            .send()
            .await
            .map_err(TableError::from)?;
        Scanned::new(page.items, page.last_evaluated_key)
    }

    /// Returns the last commit of a stream. The read is strongly consistent.
    pub(super) async fn last(
        &self,
        stream: &StreamId,
    ) -> Result<Option<Result<Commit, Unreadable>>, StoreError> {
        let page = self
            .of_stream(stream, u64::MAX)
            .scan_index_forward(false)
            .limit(1)
            .send()
            .await
            .map_err(TableError::from)?;
        Ok(page.items.unwrap_or_default().into_iter().map(read).next())
    }

    fn of_stream(&self, stream: &StreamId, until: u64) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#stream = :stream AND #version <= :until")
            .expression_attribute_names("#stream", "stream")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":stream", AttributeValue::S(stream.to_string()))
            .expression_attribute_values(":until", AttributeValue::N(until.to_string()))
    }
}

/// Returns the parameters of a parallel scan. A scan of the whole table has none: the local
/// DynamoDB reads a table in storage order, but has to search for the items of a segment.
pub(super) fn part(segment: u32, segments: u32) -> (Option<i32>, Option<i32>) {
    let number = |number: u32| {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        (segments > 1).then_some(number)
    };
    (number(segment), number(segments))
}

fn start(after: Option<&CommitKey>) -> Result<Option<Item>, StoreError> {
    let item = after.map(serde_dynamo::to_item).transpose();
    Ok(item.map_err(TableError::from)?)
}
