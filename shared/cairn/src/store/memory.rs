//! An event store in memory, for tests and examples.
//!
//! It keeps the same [`contract`](super::contract) as the one on `DynamoDB`, and every read of it is strongly consistent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    commit::Commit,
    store::{AppendError, Conflict, EventStore, Part, StoreError, check_append, from_snapshot},
    stream::StreamId,
};

/// An event store that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    streams: Mutex<BTreeMap<StreamId, BTreeMap<u64, Commit>>>,
}

impl EventStore for MemoryStore {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        check_append(commits)?;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let lost: Vec<_> = commits
            .iter()
            .filter_map(|commit| {
                let winner = streams.get(&commit.stream)?.get(&commit.version)?;
                Some(Conflict {
                    stream: commit.stream.clone(),
                    winner: Some(winner.clone()),
                })
            })
            .collect();
        let winners = lost.iter().filter_map(|lost| lost.winner.as_ref());
        if !lost.is_empty() && winners.eq(commits) {
            return Ok(());
        }
        if !lost.is_empty() {
            return Err(AppendError::Conflict(lost));
        }
        for commit in commits {
            streams
                .entry(commit.stream.clone())
                .or_default()
                .insert(commit.version, commit.clone());
        }
        Ok(())
    }

    async fn read(&self, stream: &StreamId, part: &Part<'_>) -> Result<Vec<Commit>, StoreError> {
        let mut commits: Vec<_> = {
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams
                .get(stream)
                .into_iter()
                .flat_map(BTreeMap::values)
                .filter(|commit| commit.last_version() > part.after)
                .filter(|commit| commit.version <= part.until)
                .cloned()
                .collect()
        };
        from_snapshot(&mut commits, part);
        part.check(stream, &commits)?;
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
