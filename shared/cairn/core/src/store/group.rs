//! Group commit: the commits of several commands in one append.
//!
//! A stream accepts one append per round trip. Commands that are decided one after the other on a
//! [`GroupCommit`] share that round trip. Each command keeps its own commit, so its id, its
//! metadata and the stored form are those of a command that is handled alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    commit::Commit,
    store::{
        AppendError, Conditions, Conflict, Consistency, EventStore, MAX_COMMITS_PER_APPEND,
        ReadRange, StoreError, check_append, from_snapshot, is_own,
    },
    stream::StreamId,
};

/// A store that keeps appends back until [`commit`](Self::commit) appends all of them, or
/// none. Its reads include them.
///
/// It reads a stream once, strongly consistent. A successful commit therefore proves every decision
/// that was based on the reads and on earlier appends of the group. If the commit fails, all
/// decisions are void. Clones share the group.
#[derive(Clone, Debug)]
pub struct GroupCommit<S> {
    store: S,
    group: Arc<Mutex<Group>>,
}

#[derive(Debug, Default)]
struct Group {
    /// The commits to append, in the order of their commands.
    pending: Vec<Commit>,
    /// The streams that were read to their end.
    read: HashMap<StreamId, ReadStream>,
    /// A conflict that a read found: the group cannot be committed any more.
    lost: Option<Conflict>,
}

/// The end of a stream, from its latest usable snapshot on.
#[derive(Clone, Debug)]
struct ReadStream {
    state_fingerprint: String,
    commits: Vec<Commit>,
}

impl<S: EventStore> GroupCommit<S> {
    /// Creates an empty group.
    pub fn new(store: S) -> Self {
        Self {
            store,
            group: Arc::default(),
        }
    }

    /// Returns true if another writer has taken the version of a commit of the group.
    pub(crate) fn is_lost(&self) -> bool {
        self.group().lost.is_some()
    }

    /// Returns true if the group accepts this number of further commits.
    pub fn has_room(&self, commits: usize) -> bool {
        self.group().pending.len() + commits <= MAX_COMMITS_PER_APPEND
    }

    /// Appends all commits of the group, or none.
    ///
    /// # Errors
    /// See [`EventStore::append`]. After a conflict, decide the commands again in a new group.
    pub async fn commit(&self) -> Result<(), AppendError> {
        let (pending, lost) = {
            let mut group = self.group();
            (std::mem::take(&mut group.pending), group.lost.take())
        };
        if let Some(lost) = lost {
            return Err(AppendError::Conflict(vec![lost]));
        }
        if pending.is_empty() {
            return Ok(());
        }
        self.store.append(&pending).await
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the commits that were read for this range. They begin at a snapshot or at the
    /// beginning of the stream, and end with its last commit.
    fn known(&self, stream: &StreamId, range: &ReadRange<'_>) -> Option<Vec<Commit>> {
        let wanted = range.snapshots.filter(|_| range.to == u64::MAX)?;
        let group = self.group();
        let read = group.read.get(stream)?;
        (read.state_fingerprint == wanted.state_fingerprint).then(|| read.commits.clone())
    }

    async fn stored(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        if let Some(known) = self.known(stream, range) {
            return Ok(known);
        }
        let range = ReadRange {
            consistency: Consistency::Strong,
            ..*range
        };
        let commits = self.store.read(stream, &range).await?;
        if let (Some(snapshots), 0, u64::MAX) = (range.snapshots, range.from, range.to) {
            let read = ReadStream {
                state_fingerprint: snapshots.state_fingerprint.to_owned(),
                commits: commits.clone(),
            };
            self.group().read.insert(stream.clone(), read);
        }
        Ok(commits)
    }
}

impl<S: EventStore> EventStore for GroupCommit<S> {
    /// Adds commits to the group: all of them, or none. A commit of the group has the winner's role
    /// in a conflict.
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        check_append(commits, Conditions::default())?;
        if !self.has_room(commits.len()) {
            return Err(StoreError::TooManyCommits(MAX_COMMITS_PER_APPEND + 1).into());
        }
        let mut group = self.group();
        let lost: Vec<_> = commits
            .iter()
            .filter_map(|commit| {
                let read = group.read.get(&commit.stream);
                let read = read.into_iter().flat_map(|read| &read.commits);
                let mut taken = read.chain(&group.pending);
                let winner = taken.find(|other| other.key() == commit.key())?;
                Some(Conflict {
                    stream: commit.stream.clone(),
                    winner: Some(winner.clone()),
                })
            })
            .collect();
        if is_own(&lost, commits) {
            return Ok(());
        }
        if !lost.is_empty() {
            return Err(AppendError::Conflict(lost));
        }
        group.pending.extend_from_slice(commits);
        Ok(())
    }

    /// Reads the stored commits, and those of the group.
    ///
    /// # Errors
    /// Returns [`StoreError::Unavailable`] if another writer has taken the version of a commit of
    /// the group. The commit of the group is then a conflict.
    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        let mut commits = self.stored(stream, range).await?;
        let last = commits.last().map_or(0, Commit::last_version);
        let mut group = self.group();
        let pending: Vec<_> = group
            .pending
            .iter()
            .filter(|commit| commit.stream == *stream)
            .collect();
        if pending.first().is_some_and(|first| first.version <= last) {
            group.lost = Some(Conflict {
                stream: stream.clone(),
                winner: None,
            });
            let reason = format!("another writer appended to {stream} before the group");
            return Err(StoreError::Unavailable(reason.into()));
        }
        commits.extend(pending.into_iter().cloned());
        commits.retain(|commit| commit.last_version() > range.from && commit.version <= range.to);
        from_snapshot(&mut commits, range);
        range.check(stream, &commits)?;
        Ok(commits)
    }
}
