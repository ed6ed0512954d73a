//! The state of a stream at an earlier version or time.

use serde_json::Value;

use crate::{
    commit::Commit,
    moments::{at_time, at_version},
    store::{Consistency, EventStore, ReadRange, Snapshots, StoreError},
    stream::StreamId,
    system::AnyAggregate,
    timestamp::Timestamp,
};

/// A moment in the history of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After the last event.
    Latest,
    /// At this time.
    Time(Timestamp),
    /// After the event with this version.
    Version(u64),
}

/// The state of a stream at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct PastState {
    /// The version of the last event until then; 0 before the first.
    pub version: u64,
    /// The commit time of that event.
    pub at: Option<Timestamp>,
    /// The state as JSON.
    pub state: Value,
}

impl AnyAggregate {
    /// Returns the state of a stream at a moment, from the nearest earlier snapshot.
    ///
    /// # Errors
    /// Returns an error if the store fails, or if an event or a snapshot cannot be decoded.
    pub async fn past(
        &self,
        store: &impl EventStore,
        stream: &StreamId,
        moment: Moment,
    ) -> Result<PastState, StoreError> {
        let state_fingerprint = self.state_fingerprint();
        let latest = ReadRange {
            snapshots: Some(Snapshots {
                state_fingerprint: &state_fingerprint,
                every: self.snapshot_every.max(1),
            }),
            consistency: Consistency::Strong,
            ..ReadRange::all()
        };
        let commits = match moment {
            Moment::Latest => at_version(store, stream, u64::MAX, latest).await?,
            Moment::Time(time) => at_time(store, stream, time, latest).await?,
            Moment::Version(version) => at_version(store, stream, version, latest).await?,
        };
        let last = commits.last();
        Ok(PastState {
            version: last.map_or(0, Commit::last_version),
            at: last.map(|commit| commit.at),
            state: self.state(&commits)?,
        })
    }
}
