//! An event store in memory, for tests and examples.
//!
//! It passes the same [`contract`](super::contract) as the store on DynamoDB. Every read is
//! strongly consistent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    commit::Commit,
    store::{
        AppendError, ConditionalStore, Conditions, Conflict, EventStore, ReadRange, StoreError,
        check_append, from_snapshot, is_own,
    },
    stream::StreamId,
};

/// An event store in memory. Dropping it deletes its commits.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Stored>);

#[derive(Debug, Default)]
struct Stored {
    streams: BTreeMap<StreamId, BTreeMap<u64, Commit>>,
    /// The number of commits by the counter of their quota.
    counted: BTreeMap<String, u32>,
}

impl ConditionalStore for MemoryStore {
    async fn append_if(
        &self,
        commits: &[Commit],
        conditions: Conditions<'_>,
    ) -> Result<(), AppendError> {
        check_append(commits, conditions)?;
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Stored { streams, counted } = &mut *stored;
        let next = commits
            .iter()
            .map(|commit| (&commit.stream, commit.version));
        let after = conditions
            .unchanged
            .iter()
            .map(|unchanged| (&unchanged.stream, unchanged.version + 1));
        let lost: Vec<_> = next
            .chain(after)
            .filter_map(|(stream, version)| {
                let winner = streams.get(stream)?.get(&version)?;
                Some(Conflict {
                    stream: stream.clone(),
                    winner: Some(winner.clone()),
                })
            })
            .collect();
        // These same commits were appended before.
        if is_own(&lost, commits) {
            return Ok(());
        }
        if !lost.is_empty() {
            return Err(AppendError::Conflict(lost));
        }
        if let Some(quota) = conditions.quota {
            let count = counted.entry(quota.counter.clone()).or_default();
            let added = u32::try_from(commits.len()).unwrap_or(u32::MAX);
            let sum = count.saturating_add(added);
            if sum > quota.limit {
                return Err(StoreError::from(quota).into());
            }
            *count = sum;
        }
        for commit in commits {
            streams
                .entry(commit.stream.clone())
                .or_default()
                .insert(commit.version, commit.clone());
        }
        Ok(())
    }
}

impl EventStore for MemoryStore {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        self.append_if(commits, Conditions::default()).await
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        let mut commits: Vec<_> = {
            let stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            stored
                .streams
                .get(stream)
                .into_iter()
                .flat_map(BTreeMap::values)
                .filter(|commit| commit.last_version() > range.from)
                .filter(|commit| commit.version <= range.to)
                .cloned()
                .collect()
        };
        from_snapshot(&mut commits, range);
        range.check(stream, &commits)?;
        Ok(commits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_store_in_memory_keeps_the_contract() {
        crate::store::contract::check(&MemoryStore::default()).await;
    }
}
