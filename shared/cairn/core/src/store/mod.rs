//! The port of the event store: append commits, read a stream.
//!
//! Two adapters pass one [`contract`] suite: [`memory::MemoryStore`] and
//! `cairn_aws::dynamodb::DynamoStore`.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use serde::Serialize;

use crate::{
    causality::consistent, commit::Commit, error::BoxError, event::CodecError, stream::StreamId,
    timestamp::Timestamp,
};

// For the API of the functions.
#[doc(hidden)]
pub mod answers;
// For the adapters.
#[doc(hidden)]
pub mod contract;
#[doc(hidden)]
pub mod group;
pub mod memory;

/// The maximum number of commits of one append. A condition or a quota counts as one.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
#[doc(hidden)]
pub const MAX_COMMITS_PER_APPEND: usize = 100;

/// The maximum size of a commit in bytes, as DynamoDB measures an item.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
#[doc(hidden)]
pub const MAX_COMMIT_BYTES: usize = 400 * 1024;

/// An append-only store of commits.
pub trait EventStore: Send + Sync {
    /// Appends commits to one or more streams: all of them, or none.
    ///
    /// A commit is appended if its stream has no commit at its version. The version must follow the
    /// last version that the caller has read, or the previous commit of the same append on this
    /// stream, so that no gap is possible. Appending exactly the
    /// same commits again succeeds and changes nothing, because the answer to the first append may
    /// have been lost. Several commits should be [linked](crate::commit::link), so that an audit
    /// finds one that is lost later.
    ///
    /// # Errors
    /// Returns [`AppendError::Conflict`] if a concurrent commit took a version; nothing was
    /// written. After [`StoreError::Unavailable`] the commits may or may not have been written:
    /// append them again with the same ids.
    fn append(&self, commits: &[Commit]) -> impl Future<Output = Result<(), AppendError>> + Send;

    /// Reads a range of the commits of a stream, oldest first and without gaps.
    ///
    /// # Errors
    /// Returns [`StoreError::Corrupt`] if versions are missing.
    fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> impl Future<Output = Result<Vec<Commit>, StoreError>> + Send;
}

impl<S: EventStore> EventStore for &S {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        S::append(self, commits).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        S::read(self, stream, range).await
    }
}

impl<S: EventStore> EventStore for Arc<S> {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        S::append(self, commits).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        S::read(self, stream, range).await
    }
}

impl<S: ConditionalStore> ConditionalStore for Arc<S> {
    async fn append_if(
        &self,
        commits: &[Commit],
        conditions: Conditions<'_>,
    ) -> Result<(), AppendError> {
        S::append_if(self, commits, conditions).await
    }
}

/// A store that appends on conditions.
pub trait ConditionalStore: EventStore {
    /// Appends commits as [`EventStore::append`] does, if all conditions are true.
    ///
    /// # Errors
    /// Returns the errors of [`EventStore::append`]. The conflicts include each stream that has
    /// changed, with the commit that follows the version. Without a conflict, an exhausted quota is
    /// [`StoreError::OverQuota`]. Nothing was written then.
    fn append_if(
        &self,
        commits: &[Commit],
        conditions: Conditions<'_>,
    ) -> impl Future<Output = Result<(), AppendError>> + Send;
}

/// The conditions of an append.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Conditions<'a> {
    /// Each of these streams still ends at its version. None of them may be written to.
    pub unchanged: &'a [StreamVersion],
    /// The quota is not used up. Each commit of the append counts against it.
    pub quota: Option<&'a Quota>,
}

/// A limit on the number of commits with one key within one period.
///
/// The append and its count are one write, so the limit is exact, and an append that fails or is
/// repeated is not counted. A group of commands counts each of its commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// The key with the start of the period.
    pub counter: String,
    /// The number of commits in the period.
    pub limit: u32,
    /// The end of the period.
    pub until: Timestamp,
}

impl Quota {
    /// Returns the quota of a key in the period of a time. Periods begin at the multiples of their
    /// length since 1970, so all callers with the same length have the same periods.
    pub fn new(key: &str, limit: u32, period: Duration, now: Timestamp) -> Self {
        let length = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
        let begin = now.as_millis() - now.as_millis().rem_euclid(length);
        let begin = Timestamp::from_millis(begin);
        Self {
            counter: format!("{key}@{begin}"),
            limit,
            until: begin.after(period),
        }
    }
}

/// A store whose commits count against a quota. Without a quota, it is the store itself.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Limited<S> {
    /// The store of the streams.
    pub store: S,
    /// The quota of each commit.
    pub quota: Option<Quota>,
}

impl<S: ConditionalStore> EventStore for Limited<S> {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        self.append_if(commits, Conditions::default()).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        self.store.read(stream, range).await
    }
}

impl<S: ConditionalStore> ConditionalStore for Limited<S> {
    async fn append_if(
        &self,
        commits: &[Commit],
        conditions: Conditions<'_>,
    ) -> Result<(), AppendError> {
        let quota = self.quota.as_ref().or(conditions.quota);
        let conditions = Conditions {
            quota,
            ..conditions
        };
        self.store.append_if(commits, conditions).await
    }
}

/// A stream and its last version, as read for a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamVersion {
    /// The stream.
    pub stream: StreamId,
    /// The version of its last event; 0 before the first.
    pub version: u64,
}

/// A range of the commits of a stream.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange<'a> {
    /// The version before the first event of the range. The first commit may begin at or before it
    /// if it also has later events.
    pub from: u64,
    /// The last version at which a commit of the range may begin.
    pub to: u64,
    /// The usable snapshots. The range then begins at the latest commit with one.
    pub snapshots: Option<Snapshots<'a>>,
    /// The read consistency.
    pub consistency: Consistency,
}

impl ReadRange<'static> {
    /// Returns the range of all commits, with strong consistency.
    pub fn all() -> Self {
        Self {
            from: 0,
            to: u64::MAX,
            snapshots: None,
            consistency: Consistency::Strong,
        }
    }

    /// Returns the range of the commits with events after a version, with strong consistency.
    pub fn after(version: u64) -> Self {
        Self {
            from: version,
            ..Self::all()
        }
    }
}

/// The usable snapshots of a stream, and their usual distance.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Snapshots<'a> {
    /// The [fingerprint](crate::snapshot::state_fingerprint()) of usable snapshots.
    pub state_fingerprint: &'a str,
    /// The usual number of commits from one snapshot to the next, which is the page size of reads.
    pub every: u32,
}

/// Read consistency.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The latest commits may be missing. The read costs half.
    Eventual,
    /// All commits that were appended before the call are included.
    Strong,
}

/// The error of an append.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Concurrent commits took versions of these commits.
    #[error("concurrent write on {}", .0.iter().map(|lost| lost.stream.as_str()).collect::<Vec<_>>().join(", "))]
    Conflict(Vec<Conflict>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A conflict on one stream.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The stream.
    pub stream: StreamId,
    /// The commit that took the version. `None`: the other transaction has not committed yet.
    pub winner: Option<Commit>,
}

/// The error of an event store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is throttled, unreachable or timed out. A later retry may succeed.
    #[error("the event store is not available: {0}")]
    Unavailable(#[source] BoxError),
    /// A commit exceeds the size limit of an item.
    #[error(
        "a commit of {bytes} bytes on {stream} exceeds the limit of {MAX_COMMIT_BYTES} bytes; split the command"
    )]
    TooLarge {
        /// The stream.
        stream: StreamId,
        /// The size of the item.
        bytes: usize,
    },
    /// A commit has no events.
    #[error("a commit on {0} has no events")]
    NoEvents(StreamId),
    /// An append has more commits than one transaction can write.
    #[error(
        "an append of {0} commits exceeds the limit of {MAX_COMMITS_PER_APPEND}; split the command"
    )]
    TooManyCommits(usize),
    /// The stored commits are inconsistent.
    #[error("the stream {stream} is corrupt: {reason}")]
    Corrupt {
        /// The stream.
        stream: StreamId,
        /// The inconsistency.
        reason: String,
    },
    /// The commits of a period have reached their quota.
    #[error("{counter} has reached its quota; retry at {until}")]
    OverQuota {
        /// See [`Quota::counter`].
        counter: String,
        /// See [`Quota::until`].
        until: Timestamp,
    },
    /// The store rejects the request permanently: a missing table, a missing permission.
    #[error("the event store rejected the request: {0}")]
    Permanent(#[source] BoxError),
    /// An event cannot be read or written.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<&Quota> for StoreError {
    fn from(quota: &Quota) -> Self {
        Self::OverQuota {
            counter: quota.counter.clone(),
            until: quota.until,
        }
    }
}

impl StoreError {
    /// True if the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Reads the commits of a stream up to a time, oldest first, with strong consistency.
///
/// Reads from the beginning, in ranges that double in length. Later commits cost at most as much as
/// the commits up to that time, and a short stream takes one call.
#[doc(hidden)]
pub async fn read_by(
    store: &impl EventStore,
    stream: &StreamId,
    time: Timestamp,
) -> Result<Vec<Commit>, StoreError> {
    const FIRST: u64 = 32;
    let (mut commits, mut after, mut length) = (vec![], 0, FIRST);
    loop {
        let range = ReadRange {
            to: after + length,
            ..ReadRange::after(after)
        };
        let read = store.read(stream, &range).await?;
        let last = read.last().map(|last| (last.last_version(), last.at));
        commits.extend(read.into_iter().filter(|commit| commit.at <= time));
        match last {
            Some((reached, at)) if reached >= range.to && at <= time => {
                after = reached;
                length *= 2;
            }
            Some(_) | None => return Ok(commits),
        }
    }
}

/// Reads the histories of a saga and of the streams that its steps write to, as they were at one
/// moment: now, or at a time. The history of the saga comes first. The reads are strongly
/// consistent.
pub async fn read_together(
    store: &impl EventStore,
    saga: &StreamId,
    others: &[StreamId],
    by: Option<Timestamp>,
) -> Result<Vec<Vec<Commit>>, StoreError> {
    // The saga is read first: then the later reads include the commits that were appended together
    // with its commits.
    let first = read_until(store, saga, by).await?;
    let rest = others.iter().map(|stream| read_until(store, stream, by));
    let rest = try_join_all(rest).await?;
    let histories = [first].into_iter().chain(rest).collect();
    let streams: Vec<_> = [saga].into_iter().chain(others).cloned().collect();
    Ok(consistent(&streams, histories))
}

async fn read_until(
    store: &impl EventStore,
    stream: &StreamId,
    by: Option<Timestamp>,
) -> Result<Vec<Commit>, StoreError> {
    match by {
        Some(time) => read_by(store, stream, time).await,
        None => store.read(stream, &ReadRange::all()).await,
    }
}

/// Checks the commits and conditions of an append.
#[doc(hidden)]
pub fn check_append(commits: &[Commit], conditions: Conditions<'_>) -> Result<(), StoreError> {
    let items =
        commits.len() + conditions.unchanged.len() + usize::from(conditions.quota.is_some());
    if items > MAX_COMMITS_PER_APPEND {
        return Err(StoreError::TooManyCommits(items));
    }
    match commits.iter().find(|commit| commit.events.is_empty()) {
        Some(empty) => Err(StoreError::NoEvents(empty.stream.clone())),
        None => Ok(()),
    }
}

/// True if an append conflicts only with itself: an earlier attempt has stored the same commits.
#[doc(hidden)]
pub fn is_own(lost: &[Conflict], commits: &[Commit]) -> bool {
    let winners = lost.iter().filter_map(|lost| lost.winner.as_ref());
    !commits.is_empty() && winners.take(commits.len()).eq(commits)
}

/// Drops the commits before the latest one with a usable snapshot.
pub(crate) fn from_snapshot(commits: &mut Vec<Commit>, range: &ReadRange<'_>) {
    let usable = |commit: &Commit| range.can_begin_with(commit);
    if let Some(index) = commits.iter().rposition(usable) {
        commits.drain(..index);
    }
}

impl ReadRange<'_> {
    /// True if the snapshot of a commit makes earlier commits unnecessary.
    pub fn can_begin_with(&self, commit: &Commit) -> bool {
        matches!(
            (&self.snapshots, &commit.snapshot),
            (Some(wanted), Some(snapshot)) if snapshot.state_fingerprint == wanted.state_fingerprint
        )
    }

    /// Checks that the commits follow the requested version, or begin with a snapshot, and have no
    /// gap.
    ///
    /// # Errors
    /// Returns [`StoreError::Corrupt`] at the first gap.
    pub fn check(&self, stream: &StreamId, commits: &[Commit]) -> Result<(), StoreError> {
        let Some(first) = commits.first() else {
            return Ok(());
        };
        let before = first.version.saturating_sub(1);
        let mut reached = if self.can_begin_with(first) {
            before
        } else {
            // The first commit may begin at or before `from`.
            self.from.min(before)
        };
        for commit in commits {
            if commit.version != reached + 1 {
                return Err(StoreError::Corrupt {
                    stream: stream.clone(),
                    reason: format!("version {reached} is followed by {}", commit.version),
                });
            }
            reached = commit.last_version();
        }
        Ok(())
    }
}
