//! The inconsistencies that an audit can find, and their texts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{stream::StreamId, timestamp::Timestamp};

/// An inconsistency that the audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Finding {
    /// Versions of a stream are missing.
    #[error("{stream}: versions {} to {} are missing", .after + 1, .before.saturating_sub(1))]
    Gap {
        /// The stream.
        stream: StreamId,
        /// The last version before the gap; 0 if the stream begins with it.
        after: u64,
        /// The first version after the gap.
        before: u64,
    },
    /// A commit contains a version that an earlier commit contains.
    #[error(
        "{stream}: overlapping commits: one starts at version {version}, another ends at {last}"
    )]
    Overlap {
        /// The stream.
        stream: StreamId,
        /// The first version of the commit.
        version: u64,
        /// The last version of the commits that it overlaps.
        last: u64,
    },
    /// A commit of an append to several streams is missing, or another commit has its version. The
    /// append stored all of them or none.
    #[error("{stream}@{version}: was appended together with {missing}, which is missing")]
    PartMissing {
        /// The stream of a commit of the same append that exists.
        stream: StreamId,
        /// The version of that commit.
        version: u64,
        /// The missing commit, such as `stock-TEA-01@5`.
        missing: String,
    },
    /// A stored item is not a commit, or contains an event that this code cannot decode.
    #[error("{stream}@{version}: cannot be read: {reason}")]
    Unreadable {
        /// The stream, as stored.
        stream: String,
        /// The version.
        version: u64,
        /// The decoding error.
        reason: String,
    },
    /// No event consumer has received the last events of a stream.
    #[error("{stream}: versions {from} to {to} reached no event consumer (since {since})")]
    Unpublished {
        /// The stream.
        stream: StreamId,
        /// The first version that is unpublished.
        from: u64,
        /// The last version that is unpublished.
        to: u64,
        /// The commit time of the first one.
        since: Timestamp,
    },
    /// A read model lags: another event consumer has received later events.
    #[error(
        "{projection} {key}: lagging: at version {at} of {stream}, stream is at {head} \
         (since {since})"
    )]
    Behind {
        /// The read model.
        projection: String,
        /// The key of the row.
        key: String,
        /// The stream.
        stream: StreamId,
        /// The version that the row has applied.
        at: u64,
        /// The last version of the stream.
        head: u64,
        /// The commit time of the first missing event.
        since: Timestamp,
    },
    /// A stream has no row. The row was lost or, if no other read model has received the stream,
    /// its events were not published.
    #[error("{projection} {key}: row missing; {stream} is at version {head}")]
    RowMissing {
        /// The read model.
        projection: String,
        /// The key of the row.
        key: String,
        /// The stream.
        stream: StreamId,
        /// The last version of the stream.
        head: u64,
    },
    /// A row differs from the fold of its events.
    #[error("{projection} {key}: differs from its events in: {}", names(.attributes))]
    RowDiffers {
        /// The read model.
        projection: String,
        /// The key of the row.
        key: String,
        /// The attributes that differ.
        attributes: BTreeSet<String>,
    },
    /// A row has applied events that the stream does not have.
    #[error("{projection} {key}: ahead: at version {at} of {stream}, stream ends at {head}")]
    RowAhead {
        /// The read model.
        projection: String,
        /// The key of the row.
        key: String,
        /// The stream.
        stream: StreamId,
        /// The version that the row has applied.
        at: u64,
        /// The last version of the stream.
        head: u64,
    },
    /// An orphan row: no event leads to it.
    #[error("{projection} {key}: orphan row: no event leads to it")]
    NoEvents {
        /// The read model.
        projection: String,
        /// The key of the row.
        key: String,
    },
    /// A deadline is overdue, and the watchdog has not handled it.
    #[error("{stream}@{version}: overdue since {at}; not handled by the watchdog")]
    Overdue {
        /// The monitored stream.
        stream: StreamId,
        /// The version of the stream when the deadline was set.
        version: u64,
        /// The deadline.
        at: Timestamp,
    },
    /// A process is unfinished and has no deadline, so the watchdog does not check it.
    #[error("{}: no progress since {since}, and no deadline exists", versions(.streams))]
    Unwatched {
        /// The last version of each stream of the process; 0 for a stream without events.
        streams: BTreeMap<StreamId, u64>,
        /// The time of its last event.
        since: Timestamp,
    },
}

fn names(attributes: &BTreeSet<String>) -> String {
    let names: Vec<_> = attributes.iter().map(String::as_str).collect();
    names.join(", ")
}

fn versions(streams: &BTreeMap<StreamId, u64>) -> String {
    let streams = streams.iter();
    let streams: Vec<_> = streams
        .map(|(stream, version)| format!("{stream}@{version}"))
        .collect();
    streams.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_is_told_apart_by_its_kind() {
        let finding = Finding::RowAhead {
            projection: "stock".to_owned(),
            key: "TEA-01".to_owned(),
            stream: "stock-TEA-01".parse().unwrap(),
            at: 3,
            head: 2,
        };
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(
            (&json["kind"], &json["projection"]),
            (&json!("row-ahead"), &json!("stock"))
        );
    }
}
