//! The event store's port: append commits, read a stream back.
//!
//! Two adapters pass one [`contract`] suite: [`memory::MemoryStore`] and, with the feature `aws`,
//! `dynamodb::DynamoStore`.

use std::{future::Future, sync::Arc};

use futures_util::future::try_join_all;
use serde::Serialize;

use crate::{
    causality::{History, consistent},
    commit::Commit,
    event::CodecError,
    stream::StreamId,
    timestamp::Timestamp,
};

pub mod contract;
pub mod memory;

/// The most streams that one append may write to.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
pub const MAX_STREAMS_PER_APPEND: usize = 100;

/// The most bytes that one commit may take, as DynamoDB counts an item.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
pub const MAX_COMMIT_BYTES: usize = 400 * 1024;

/// An append-only store of commits.
pub trait EventStore: Send + Sync {
    /// Appends one commit to each of one or more different streams: all of them, or none.
    ///
    /// A commit is appended when nothing in its stream has its version. Its own version must
    /// follow what the caller has read; there can then be no gap. The very same commits again are
    /// a success and change nothing: the answer to the first append may have been lost.
    ///
    /// # Errors
    /// [`AppendError::Conflict`] when another commit got there first; nothing was written then.
    /// After a [`StoreError::Unavailable`] the commits may have been written or not: append again
    /// with the same ids and see.
    fn append(&self, commits: &[Commit]) -> impl Future<Output = Result<(), AppendError>> + Send;

    /// Reads a range of a stream's commits, oldest first and without a gap.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when versions are missing in between.
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

/// A store that appends on the condition that other streams have not changed.
pub trait ConditionalStore: EventStore {
    /// Appends commits as [`EventStore::append`] does, if each of the `unchanged` streams, none of
    /// which is written to, still ends at its version.
    ///
    /// # Errors
    /// As [`EventStore::append`]. A stream that has changed is among the conflicts, with the commit
    /// that follows the version. Nothing was written then.
    fn append_if(
        &self,
        commits: &[Commit],
        unchanged: &[StreamVersion],
    ) -> impl Future<Output = Result<(), AppendError>> + Send;
}

/// A stream and its last version, as a decision has read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamVersion {
    /// The stream.
    pub stream: StreamId,
    /// The version of its last event; 0 before the first.
    pub version: u64,
}

/// Which commits of a stream to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRange<'a> {
    /// The version before the first event of the range. The first commit may begin at or before it,
    /// if the commit reaches beyond it.
    pub from: u64,
    /// The version at or before which the last commit begins.
    pub to: u64,
    /// Nothing before the latest of them that carries such a snapshot.
    pub snapshots: Option<Snapshots<'a>>,
    /// How late the answer may be.
    pub consistency: Consistency,
}

impl ReadRange<'static> {
    /// Every commit, strongly consistent.
    pub fn all() -> Self {
        Self {
            from: 0,
            to: u64::MAX,
            snapshots: None,
            consistency: Consistency::Strong,
        }
    }

    /// The commits that hold events after a version, strongly consistent.
    pub fn after(version: u64) -> Self {
        Self {
            from: version,
            ..Self::all()
        }
    }
}

/// Which snapshots can be used, and how often there is one.
#[derive(Clone, Copy, Debug)]
pub struct Snapshots<'a> {
    /// Their [fingerprint](crate::snapshot::state_fingerprint()).
    pub state_fingerprint: &'a str,
    /// How many commits there are from one to the next, as a rule: so many are read at a time.
    pub every: u32,
}

/// How late an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It may lack the latest commits. Half the cost.
    Eventual,
    /// What was appended before the call is there.
    Strong,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Other commits hold the place of some of these.
    #[error("another commit was first on {}", .0.iter().map(|lost| lost.stream.as_str()).collect::<Vec<_>>().join(", "))]
    Conflict(Vec<Conflict>),
    /// Anything else.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One lost race.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The stream.
    pub stream: StreamId,
    /// The commit that holds the place; `None` when another transaction is only about to.
    pub winner: Option<Commit>,
}

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Throttled, timed out or not reachable. Trying again later helps.
    #[error("the event store is not available: {0}")]
    Unavailable(String),
    /// A commit is larger than an item can be.
    #[error(
        "a commit of {bytes} bytes on {stream} is over the limit of {MAX_COMMIT_BYTES}: split the command"
    )]
    TooLarge {
        /// The stream.
        stream: StreamId,
        /// The item's size.
        bytes: usize,
    },
    /// A commit without events.
    #[error("a commit on {0} has no events: there is nothing to append")]
    NoEvents(StreamId),
    /// More streams than one transaction can write to.
    #[error(
        "one append takes at most {MAX_STREAMS_PER_APPEND} streams, not {0}: split the command"
    )]
    TooManyStreams(usize),
    /// What is stored does not hold together.
    #[error("the stream {stream} is corrupt: {reason}")]
    Corrupt {
        /// The stream.
        stream: StreamId,
        /// The fault.
        reason: String,
    },
    /// The store rejects the request permanently: a missing table, a missing permission.
    #[error("the event store rejected the request: {0}")]
    Permanent(String),
    /// An event cannot be read or written.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl StoreError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// The commits of a stream by a time, oldest first, strongly consistent.
///
/// They are read from the beginning, in ranges each twice as long as the one before: so of what came after that time
/// no more is read than of what came before it, and a short stream takes one call.
///
/// # Errors
/// As [`EventStore::read`].
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

/// The histories of a saga and of the streams that its steps write to, as they were together at one
/// moment: now, or by a time. The saga's comes first. Strongly consistent.
///
/// # Errors
/// As [`EventStore::read`].
pub async fn read_together(
    store: &impl EventStore,
    saga: &StreamId,
    others: &[StreamId],
    by: Option<Timestamp>,
) -> Result<Vec<History>, StoreError> {
    // Before the others: what its commits were appended with is there when they are read.
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
) -> Result<History, StoreError> {
    match by {
        Some(time) => read_by(store, stream, time).await,
        None => store.read(stream, &ReadRange::all()).await,
    }
}

/// Checks the parts of an append.
///
/// # Errors
/// When there are too many streams, or a commit without events, which would take a version that no
/// event has.
pub(crate) fn check_append(
    commits: &[Commit],
    unchanged: &[StreamVersion],
) -> Result<(), StoreError> {
    let streams = commits.len() + unchanged.len();
    if streams > MAX_STREAMS_PER_APPEND {
        return Err(StoreError::TooManyStreams(streams));
    }
    match commits.iter().find(|commit| commit.events.is_empty()) {
        Some(empty) => Err(StoreError::NoEvents(empty.stream.clone())),
        None => Ok(()),
    }
}

/// True if an append has lost to itself: every one of its commits is there, as it is.
pub(crate) fn is_own(lost: &[Conflict], commits: &[Commit]) -> bool {
    let winners = lost.iter().filter_map(|lost| lost.winner.as_ref());
    !commits.is_empty() && winners.take(commits.len()).eq(commits)
}

/// The latest commits only, where one of them carries a snapshot that can be used.
pub(crate) fn from_snapshot(commits: &mut Vec<Commit>, range: &ReadRange<'_>) {
    let usable = |commit: &Commit| range.can_begin_with(commit);
    if let Some(index) = commits.iter().rposition(usable) {
        commits.drain(..index);
    }
}

impl ReadRange<'_> {
    /// Whether nothing before this commit is asked for, because of the snapshot that it carries.
    pub(crate) fn can_begin_with(&self, commit: &Commit) -> bool {
        matches!(
            (&self.snapshots, &commit.snapshot),
            (Some(wanted), Some(snapshot)) if snapshot.state_fingerprint == wanted.state_fingerprint
        )
    }

    /// Checks that commits follow the version that was asked for, or begin with a snapshot, and that
    /// each follows the one before.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first that does not.
    pub(crate) fn check(&self, stream: &StreamId, commits: &[Commit]) -> Result<(), StoreError> {
        let Some(first) = commits.first() else {
            return Ok(());
        };
        let before = first.version.saturating_sub(1);
        let mut reached = if self.can_begin_with(first) {
            before
        } else {
            // It may begin at or before `from`, and reach beyond it.
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
