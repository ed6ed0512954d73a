//! The commits from which the state of a stream at an earlier version or time follows.

use crate::{
    commit::Commit,
    store::{EventStore, ReadRange, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};

/// Reads the commits from the nearest earlier snapshot to event `version`, or to the last event. It
/// takes one store call, or two if the commit that contains `version` has the snapshot.
pub(crate) async fn at_version(
    store: &impl EventStore,
    stream: &StreamId,
    version: u64,
    latest: ReadRange<'_>,
) -> Result<Vec<Commit>, StoreError> {
    let range = ReadRange {
        to: version,
        ..latest
    };
    let mut commits = store.read(stream, &range).await?;
    if let Some(last) = commits.pop_if(|last| last.last_version() > version) {
        if commits.is_empty() {
            let before = ReadRange {
                to: last.version - 1,
                ..range
            };
            commits = store.read(stream, &before).await?;
        }
        commits.push(last.until(version));
    }
    Ok(commits)
}

/// Reads the commits from the nearest earlier snapshot to a time.
///
/// It takes one store call if the time is not before the latest snapshot. Otherwise it takes a
/// binary search of O(log version) calls.
pub(crate) async fn at_time(
    store: &impl EventStore,
    stream: &StreamId,
    time: Timestamp,
    latest: ReadRange<'_>,
) -> Result<Vec<Commit>, StoreError> {
    let mut commits = store.read(stream, &latest).await?;
    match commits.first() {
        // A read that includes the first commit is complete.
        Some(first) if first.at > time && first.version > 1 => {
            let version = version_by(store, stream, time, first.version).await?;
            at_version(store, stream, version, latest).await
        }
        Some(_) | None => {
            commits.retain(|commit| commit.at <= time);
            Ok(commits)
        }
    }
}

/// Finds the last version at a time by binary search, because times never decrease within a stream.
/// `later` is a version after that time.
async fn version_by(
    store: &impl EventStore,
    stream: &StreamId,
    time: Timestamp,
    later: u64,
) -> Result<u64, StoreError> {
    let (mut by_then, mut later) = (0, later);
    while by_then + 1 < later {
        let middle = by_then + (later - by_then) / 2;
        let one = ReadRange {
            to: middle,
            ..ReadRange::after(middle - 1)
        };
        let commits = store.read(stream, &one).await?;
        let commit = commits.last().ok_or_else(|| StoreError::Corrupt {
            stream: stream.clone(),
            reason: format!("version {middle} is missing"),
        })?;
        if commit.at <= time {
            by_then = commit.last_version();
        } else {
            later = commit.version;
        }
    }
    Ok(by_then)
}
