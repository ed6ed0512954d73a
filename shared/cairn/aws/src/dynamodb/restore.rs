//! Restores commits from a copy of the event table.
//!
//! The copy is a table that DynamoDB made from a backup. The restore reads it in parallel segments.
//! It puts each commit that the event table lacks, on condition that the table has no commit with
//! this key. It never changes a stored commit, so a repeated restore continues one that was stopped.
//!
//! A restored commit has the mark [`Commit::restored`](cairn::Commit::restored). The relay passes
//! the mark on with each event: projections apply it, and all other consumers skip it.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    operation::{put_item::PutItemError, scan::builders::ScanFluentBuilder},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{DynamoStore, Item, TableError};
use cairn::{
    retry::Backoff,
    store::{Consistency, StoreError},
    timestamp::Timestamp,
};

/// The restore of an event table from a copy.
#[derive(Clone, Debug)]
pub struct Restore {
    store: DynamoStore,
    copy: DynamoStore,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    is_dry_run: bool,
}

/// The result of a restore, or its progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The number of commits of the copy that were read, including those outside the period.
    pub read: u64,
    /// The number of commits that the event table lacked. A dry run does not put them.
    pub missing: u64,
    /// The number of commits that the event table had.
    pub present: u64,
    /// The number of commits that differ from the commit with the same key in the event table, and
    /// of those that the event table lacks after such a commit in their stream.
    pub conflicts: u64,
    /// The first conflicts, such as `order-<uuid>@3`, at most [`Restored::NAMED`].
    pub conflicting: Vec<String>,
}

impl Restored {
    /// The number of conflicts that a result names. It counts all of them.
    pub const NAMED: usize = 1_000;

    /// Counts a commit of the copy that has a commit with the same key in the event table.
    fn compare(&mut self, commit: &Item, mut stored: Item) {
        stored.remove(MARK);
        if *commit == stored {
            self.present += 1;
            return;
        }
        self.conflicts += 1;
        if self.conflicting.len() < Self::NAMED {
            let (stream, version) = key(commit);
            self.conflicting.push(format!("{stream}@{version}"));
        }
    }

    fn join(&mut self, other: Self) {
        self.read += other.read;
        self.missing += other.missing;
        self.present += other.present;
        self.conflicts += other.conflicts;
        let room = Self::NAMED.saturating_sub(self.conflicting.len());
        self.conflicting
            .extend(other.conflicting.into_iter().take(room));
    }
}

/// The attribute of a restored commit.
const MARK: &str = "restored";
/// The number of streams of a segment that are written concurrently.
const AT_ONCE: usize = 25;
/// The time limit of retries after transient errors, for example throttling.
const TIME_BUDGET: Duration = Duration::from_mins(1);

impl Restore {
    /// Creates the restore of a store's table from the table `copy`, in the same account and
    /// Region.
    pub fn new(store: DynamoStore, copy: String) -> Self {
        let copy = DynamoStore::new(store.client.clone(), copy);
        Self {
            store,
            copy,
            since: None,
            until: None,
            is_dry_run: false,
        }
    }

    /// Restores only commits with a commit time in this period. Both ends are included.
    ///
    /// The commits of one append can differ by milliseconds in their times. A limit can therefore
    /// separate them, which an [audit](cairn::audit) reports.
    #[must_use]
    pub fn between(self, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        Self {
            since,
            until,
            ..self
        }
    }

    /// Only compares the tables, and writes nothing.
    #[must_use]
    pub fn dry_run(self) -> Self {
        Self {
            is_dry_run: true,
            ..self
        }
    }

    /// Returns the number of commits of the copy. DynamoDB updates it about every six hours.
    ///
    /// # Errors
    /// Returns an error if the copy does not exist.
    pub async fn estimate(&self) -> Result<u64, StoreError> {
        let described = self.copy.client.describe_table();
        let described = described.table_name(&self.copy.table).send().await;
        let described = described.map_err(TableError::from)?;
        let count = described.table.and_then(|table| table.item_count);
        Ok(count.and_then(|count| count.try_into().ok()).unwrap_or(0))
    }

    /// Restores all segments concurrently. Commits of one stream are put in the order of the copy.
    /// `progress` receives the sum after each page.
    ///
    /// # Errors
    /// Returns an error if a call fails permanently, or transiently for longer than a minute.
    /// Commits that were put before stay.
    pub async fn run(
        &self,
        segments: u32,
        progress: impl Fn(&Restored),
    ) -> Result<Restored, StoreError> {
        let parts = (0..segments).map(|segment| Box::pin(self.segment(segment, segments)));
        let mut pages = stream::select_all(parts);
        let mut all = Restored::default();
        while let Some(page) = pages.try_next().await? {
            all.join(page);
            progress(&all);
        }
        Ok(all)
    }

    /// Restores one segment page by page.
    fn segment(
        &self,
        segment: u32,
        segments: u32,
    ) -> impl Stream<Item = Result<Restored, StoreError>> {
        // The start of the next page, and the stream of the last conflict.
        let first = (Some(None), None);
        stream::try_unfold(first, move |state: (Option<Option<Item>>, _)| async move {
            let (Some(start), conflicting) = state else {
                return Ok(None);
            };
            let page = with_retries(async || {
                let page = self.period(segment, segments, start.clone()).send().await;
                page.map_err(|error| TableError::from(error).into())
            });
            let page = page.await?;
            let commits = page.items.unwrap_or_default();
            let (mut restored, conflicting) = self.page(commits, conflicting).await?;
            restored.read = page.scanned_count.try_into().unwrap_or(0);
            let next = page.last_evaluated_key.map(Some);
            Ok(Some((restored, (next, conflicting))))
        })
    }

    /// Returns the request for a page of the copy that selects the period.
    fn period(&self, segment: u32, segments: u32, start: Option<Item>) -> ScanFluentBuilder {
        let mut scan = self.copy.scan_from(segment, segments, start);
        let limits = [
            (self.since, ":since", "#at >= :since"),
            (self.until, ":until", "#at <= :until"),
        ];
        let mut conditions = vec![];
        for (limit, name, condition) in limits {
            if let Some(limit) = limit {
                let limit = AttributeValue::S(limit.to_string());
                scan = scan.expression_attribute_values(name, limit);
                conditions.push(condition);
            }
        }
        if conditions.is_empty() {
            return scan;
        }
        scan.filter_expression(conditions.join(" AND "))
            .expression_attribute_names("#at", "at")
    }

    /// Compares a page of the copy with the event table, and puts what is missing. A conflict ends
    /// the restore of its stream: the later commits were decided on another history. `conflicting`
    /// is a stream that begins on an earlier page, and the result is one that can continue on the
    /// next page.
    async fn page(
        &self,
        mut commits: Vec<Item>,
        conflicting: Option<String>,
    ) -> Result<(Restored, Option<String>), StoreError> {
        for commit in &mut commits {
            commit.remove(MARK);
        }
        let keys: Vec<_> = commits.iter().map(key_item).collect();
        let stored =
            with_retries(async || self.store.items(&keys, Consistency::Strong).await).await?;
        let stored: HashMap<_, _> = stored.into_iter().map(|item| (key(&item), item)).collect();
        let last = commits.last().map(|commit| key(commit).0);
        let streams = commits.chunk_by(|one, other| one.get(STREAM) == other.get(STREAM));
        let parts = streams.map(|commits| self.in_order(commits, &stored, conflicting.as_ref()));
        let mut parts = stream::iter(parts).buffer_unordered(AT_ONCE);
        let (mut restored, mut conflicting) = (Restored::default(), None);
        while let Some((one, conflict)) = parts.try_next().await? {
            restored.join(one);
            if conflict.is_some() && conflict == last {
                conflicting = conflict;
            }
        }
        Ok((restored, conflicting))
    }

    /// Restores the commits of one stream. Returns the stream if it has a conflict.
    async fn in_order(
        &self,
        commits: &[Item],
        stored: &HashMap<(String, String), Item>,
        conflicting: Option<&String>,
    ) -> Result<(Restored, Option<String>), StoreError> {
        let mut restored = Restored::default();
        let stream = commits.first().map(|commit| key(commit).0);
        let mut is_conflicting = conflicting.is_some() && conflicting == stream.as_ref();
        for commit in commits {
            let stored = match stored.get(&key(commit)) {
                Some(stored) => Some(stored.clone()),
                None if is_conflicting => Some(Item::new()),
                None if self.is_dry_run => None,
                None => with_retries(async || self.put(commit).await).await?,
            };
            match stored {
                None => restored.missing += 1,
                Some(stored) => restored.compare(commit, stored),
            }
            is_conflicting |= restored.conflicts > 0;
        }
        Ok((restored, stream.filter(|_| is_conflicting)))
    }

    /// Puts a commit with the mark. Returns the stored commit if the table has one with this key.
    async fn put(&self, commit: &Item) -> Result<Option<Item>, StoreError> {
        let put = self
            .store
            .client
            .put_item()
            .table_name(&self.store.table)
            .set_item(Some(commit.clone()))
            .item(MARK, AttributeValue::Bool(true))
            .condition_expression("attribute_not_exists(version)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match put {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(Some(failed.item().cloned().unwrap_or_default()))
                }
                _ => Err(TableError::from(error).into()),
            },
        }
    }
}

/// Repeats a call after transient errors.
async fn with_retries<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut backoff = Backoff::new(TIME_BUDGET);
    loop {
        match call().await {
            Err(error) if error.is_transient() && backoff.wait().await.is_ok() => {}
            result => return result,
        }
    }
}

const STREAM: &str = "stream";
const VERSION: &str = "version";

/// Returns the stream and the version of an item, as stored.
fn key(item: &Item) -> (String, String) {
    let stream = item.get(STREAM).and_then(|stream| stream.as_s().ok());
    let version = item.get(VERSION).and_then(|version| version.as_n().ok());
    (
        stream.cloned().unwrap_or_default(),
        version.cloned().unwrap_or_default(),
    )
}

fn key_item(item: &Item) -> Item {
    let (stream, version) = key(item);
    Item::from([
        (STREAM.to_owned(), AttributeValue::S(stream)),
        (VERSION.to_owned(), AttributeValue::N(version)),
    ])
}
