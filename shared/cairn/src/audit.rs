//! An audit: does what is stored hold together?
//!
//! It reads all of it and changes nothing, while the system runs. What it says is exact: what can change between two
//! reads is never compared, only what cannot. A row carries the versions it has come to, and events are never changed;
//! so a row that was read once can be compared with the events up to just there, whatever happens meanwhile.
//!
//! Whether an event was published is not written down anywhere, as it would cost a second write for each commit. It is
//! seen by its readers: a gate that is at an event, or after it, was moved by the bus. So *unpublished* is what no
//! reader has seen although it is old enough, and of a stream that nobody keeps a gate of nothing can be said.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    commit::{Commit, RecordedEvent},
    event::CodecError,
    stream::StreamId,
    timestamp::Timestamp,
};

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Finding {
    /// Versions of a stream are missing.
    Gap {
        /// The stream.
        stream: StreamId,
        /// The last version before the gap; 0 at the beginning.
        after: u64,
        /// The first one after it.
        before: u64,
    },
    /// A commit holds a version that is held already.
    Overlap {
        /// The stream.
        stream: StreamId,
        /// Where the commit begins.
        version: u64,
        /// How far goes what holds it already.
        last: u64,
    },
    /// What is stored is no commit, or no event that this code knows.
    Unreadable {
        /// The stream, as it is stored.
        stream: String,
        /// The version.
        version: u64,
        /// Why.
        reason: String,
    },
    /// No reader of the bus has seen the last events of a stream.
    Unpublished {
        /// The stream.
        stream: StreamId,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
        /// When the first was committed.
        since: Timestamp,
    },
    /// A read model has not taken in events that another reader of the bus has.
    Behind {
        /// The read model.
        projection: String,
        /// The row.
        key: String,
        /// The stream.
        stream: StreamId,
        /// How far the row is.
        at: u64,
        /// How far the stream is.
        head: u64,
        /// When the first of the missing events was committed.
        since: Timestamp,
    },
    /// There is no row for a stream. It was lost; or, where no other read model has seen the stream, nothing of it was
    /// published.
    RowMissing {
        /// The read model.
        projection: String,
        /// The row.
        key: String,
        /// The stream.
        stream: StreamId,
        /// How far the stream is.
        head: u64,
    },
    /// A row is not what its events add up to.
    RowDiffers {
        /// The read model.
        projection: String,
        /// The row.
        key: String,
        /// What of it differs.
        attributes: BTreeSet<String>,
    },
    /// A row has taken in events that are not there.
    RowAhead {
        /// The read model.
        projection: String,
        /// The row.
        key: String,
        /// The stream.
        stream: StreamId,
        /// How far the row is.
        at: u64,
        /// How far the stream is.
        head: u64,
    },
    /// No event leads to a row.
    NoEvents {
        /// The read model.
        projection: String,
        /// The row.
        key: String,
    },
    /// A deadline is overdue, and the watchdog has not handled it.
    Overdue {
        /// The stream that is watched.
        stream: StreamId,
        /// The version of the stream when the deadline was set.
        version: u64,
        /// The deadline.
        at: Timestamp,
    },
    /// A process has to go on, and no deadline says that it is to be looked after.
    Unwatched {
        /// How far each of its streams is; 0 where one has not begun.
        streams: BTreeMap<StreamId, u64>,
        /// When something last happened in it.
        since: Timestamp,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap {
                stream,
                after,
                before,
            } => {
                let (first, last) = (after + 1, before.saturating_sub(1));
                write!(f, "{stream}: versions {first} to {last} are missing")
            }
            Self::Overlap {
                stream,
                version,
                last,
            } => write!(
                f,
                "{stream}: overlapping commits: one starts at version {version}, another ends at {last}"
            ),
            Self::Unreadable {
                stream,
                version,
                reason,
            } => write!(f, "{stream}@{version}: cannot be read: {reason}"),
            Self::Unpublished {
                stream,
                from,
                to,
                since,
            } => write!(
                f,
                "{stream}: versions {from} to {to} reached no event consumer (since {since})"
            ),
            Self::Behind {
                projection,
                key,
                stream,
                at,
                head,
                since,
            } => write!(
                f,
                "{projection} {key}: lagging: at version {at} of {stream}, stream is at {head} (since {since})"
            ),
            Self::RowMissing {
                projection,
                key,
                stream,
                head,
            } => write!(
                f,
                "{projection} {key}: row missing; {stream} is at version {head}"
            ),
            Self::RowDiffers {
                projection,
                key,
                attributes,
            } => {
                let names: Vec<_> = attributes.iter().map(String::as_str).collect();
                let names = names.join(", ");
                write!(f, "{projection} {key}: differs from its events in: {names}")
            }
            Self::RowAhead {
                projection,
                key,
                stream,
                at,
                head,
            } => write!(
                f,
                "{projection} {key}: ahead: at version {at} of {stream}, stream ends at {head}"
            ),
            Self::NoEvents { projection, key } => {
                write!(f, "{projection} {key}: orphan row: no event leads to it")
            }
            Self::Overdue {
                stream,
                version,
                at,
            } => write!(
                f,
                "{stream}@{version}: overdue since {at}; not handled by the watchdog"
            ),
            Self::Unwatched { streams, since } => {
                let streams: Vec<_> = streams
                    .iter()
                    .map(|(stream, version)| format!("{stream}@{version}"))
                    .collect();
                let streams = streams.join(", ");
                write!(
                    f,
                    "{streams}: no progress since {since}, and no deadline exists"
                )
            }
        }
    }
}

/// What an audit came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many streams there are.
    pub streams: u64,
    /// How many commits are in them.
    pub commits: u64,
    /// How many events.
    pub events: u64,
    /// Streams that no read model has a gate of: whether they were published cannot be seen.
    pub streams_without_gate: u64,
    /// The read models' rows, by read model.
    pub rows: BTreeMap<String, Rows>,
    /// Processes that have a deadline and go on.
    pub open: u64,
    /// Processes that are stuck.
    pub stuck: u64,
    /// How many findings there are.
    pub found: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

/// The rows of a read model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// How many were compared.
    pub compared: u64,
    /// How many could not be: they changed meanwhile, or there is a gap in their events.
    pub skipped: u64,
}

impl Report {
    /// How many findings are named. All are counted.
    pub const NAMED: usize = 1_000;

    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < Self::NAMED {
            self.findings.push(finding);
        }
    }

    /// Adds what another part of the audit came to.
    pub fn join(&mut self, other: Self) {
        self.streams += other.streams;
        self.commits += other.commits;
        self.events += other.events;
        self.streams_without_gate += other.streams_without_gate;
        self.open += other.open;
        self.stuck += other.stuck;
        self.found += other.found;
        for (name, rows) in other.rows {
            let ours = self.rows.entry(name).or_default();
            ours.compared += rows.compared;
            ours.skipped += rows.skipped;
        }
        let room = Self::NAMED.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.into_iter().take(room));
    }
}

/// A process over several streams that deadlines watch over, such as a saga.
pub trait Process: Send + Sync + 'static {
    /// The streams that tell how the process stands, which are also the names that its deadlines may have. None where a
    /// stream that ends with this event leaves nothing to be done.
    ///
    /// # Errors
    /// When the event cannot be decoded.
    fn streams(last: &RecordedEvent) -> Result<Vec<StreamId>, CodecError>;

    /// Returns whether something has to make progress, or is stuck, after all events of those streams.
    ///
    /// # Errors
    /// When an event cannot be decoded.
    fn goes_on(events: &[RecordedEvent]) -> Result<bool, CodecError>;
}

/// How old something has to be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What was committed at least so long ago has to be everywhere.
    pub settle: Duration,
    /// A deadline that was past so long ago has to be looked after.
    pub overdue: Duration,
}

impl Default for Limits {
    /// A minute, and five: the watchdog runs every minute.
    fn default() -> Self {
        Self {
            settle: Duration::from_mins(1),
            overdue: Duration::from_mins(5),
        }
    }
}

/// A walk over commits as a scan brings them: those of one stream one after the other, though not always in the order of
/// their versions, which `DynamoDB` keeps and does not promise. It holds the end of one stream, and where it has gaps.
#[derive(Debug, Default)]
pub struct StreamScan {
    current: Option<ScannedStream>,
}

/// What was seen of a stream.
#[derive(Debug)]
struct ScannedStream {
    head: RecordedEvent,
    /// The versions, as the first and the last of each run without a gap.
    runs: BTreeMap<u64, u64>,
}

impl StreamScan {
    /// Goes on to the next commit. Returns the last event of a stream that has ended with this.
    pub fn step(&mut self, commit: &Commit, report: &mut Report) -> Option<RecordedEvent> {
        report.commits += 1;
        report.events += commit.events.len() as u64;
        let Some(last) = commit.recorded().last() else {
            report.add(Finding::Unreadable {
                stream: commit.stream.to_string(),
                version: commit.version,
                reason: "it has no events".to_owned(),
            });
            return None;
        };
        let is_over = |scanned: &mut ScannedStream| scanned.head.stream != commit.stream;
        let ended = self.current.take_if(is_over);
        let ended = ended.map(|scanned| scanned.end(report));
        let (first, last_version) = (commit.version, last.version);
        if let Some(scanned) = &mut self.current {
            if let Some(held) = scanned.hold(first, last_version) {
                report.add(Finding::Overlap {
                    stream: commit.stream.clone(),
                    version: first,
                    last: held,
                });
            }
            if scanned.head.version < last_version {
                scanned.head = last;
            }
        } else {
            report.streams += 1;
            let runs = BTreeMap::from([(first, last_version)]);
            self.current = Some(ScannedStream { head: last, runs });
        }
        ended
    }

    /// The last event of the last stream.
    pub fn end(self, report: &mut Report) -> Option<RecordedEvent> {
        self.current.map(|scanned| scanned.end(report))
    }
}

impl ScannedStream {
    /// Takes in the versions of a commit. Returns how far one goes that holds some of them already.
    fn hold(&mut self, first: u64, last: u64) -> Option<u64> {
        let (mut held, mut run) = (None, (first, last));
        while let Some((&from, &to)) = self.runs.range(..=run.1.saturating_add(1)).next_back()
            && to.saturating_add(1) >= run.0
        {
            if from <= last && to >= first {
                held = held.max(Some(to));
            }
            self.runs.remove(&from);
            run = (run.0.min(from), run.1.max(to));
        }
        self.runs.insert(run.0, run.1);
        held
    }

    /// The last event, when all was seen.
    fn end(self, report: &mut Report) -> RecordedEvent {
        let mut after = 0;
        for (from, to) in self.runs {
            if from > after + 1 {
                report.add(Finding::Gap {
                    stream: self.head.stream.clone(),
                    after,
                    before: from,
                });
            }
            after = to;
        }
        self.head
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use crate::commit::StoredEvent;

    fn commit(stream: &str, version: u64, events: usize) -> Commit {
        let event = StoredEvent {
            name: "Happened".to_owned(),
            schema: 1,
            data: to_raw_value(&json!({})).unwrap(),
        };
        Commit {
            stream: stream.parse().unwrap(),
            version,
            id: format!("{stream}@{version}"),
            fingerprint: None,
            at: Timestamp::from_millis(7),
            correlation: "c".to_owned(),
            causation: None,
            actor: None,
            traceparent: None,
            enlisted: false,
            events: vec![event; events],
            snapshot: None,
        }
    }

    fn scanned(commits: &[Commit]) -> (Vec<String>, Report) {
        let (mut scan, mut report, mut ends) = (StreamScan::default(), Report::default(), vec![]);
        for commit in commits {
            ends.extend(scan.step(commit, &mut report));
        }
        ends.extend(scan.end(&mut report));
        (ends.iter().map(RecordedEvent::id).collect(), report)
    }

    #[test]
    fn a_walk_tells_where_each_stream_ends() {
        let (ends, report) = scanned(&[
            commit("order-a", 1, 1),
            commit("order-a", 2, 3),
            commit("stock-b", 1, 2),
        ]);
        assert_eq!(ends, ["order-a@4", "stock-b@2"]);
        assert_eq!((report.streams, report.commits, report.events), (2, 3, 6));
        assert_eq!(report.findings, []);
    }

    #[test]
    fn a_gap_is_found_at_the_beginning_and_in_the_middle() {
        let (ends, report) = scanned(&[
            commit("order-a", 2, 1),
            commit("stock-b", 1, 1),
            commit("stock-b", 5, 1),
        ]);
        let gap = |stream: &str, after, before| Finding::Gap {
            stream: stream.parse().unwrap(),
            after,
            before,
        };
        assert_eq!(
            report.findings,
            [gap("order-a", 0, 2), gap("stock-b", 1, 5)]
        );
        assert_eq!(ends, ["order-a@2", "stock-b@5"]);
        assert_eq!(
            report.findings[1].to_string(),
            "stock-b: versions 2 to 4 are missing"
        );
    }

    #[test]
    fn two_commits_that_hold_the_same_version_are_found() {
        let (_, report) = scanned(&[commit("order-a", 1, 3), commit("order-a", 3, 1)]);
        let expected = Finding::Overlap {
            stream: "order-a".parse().unwrap(),
            version: 3,
            last: 3,
        };
        assert_eq!(report.findings, [expected]);
    }

    #[test]
    fn the_order_in_which_a_stream_is_scanned_makes_no_gap_of_none() {
        // As text, 10 comes before 2.
        let versions = [1, 10, 11, 2, 4, 3];
        let mut commits: Vec<_> = versions.map(|first| commit("order-a", first, 1)).into();
        commits.push(commit("order-a", 5, 5));
        let (ends, report) = scanned(&commits);
        assert_eq!(ends, ["order-a@11"]);
        assert_eq!(report.findings, []);
        assert_eq!((report.streams, report.commits, report.events), (1, 7, 11));

        commits.retain(|commit| commit.version != 4);
        commits.push(commit("order-a", 7, 1));
        let (_, report) = scanned(&commits);
        let stream: StreamId = "order-a".parse().unwrap();
        let gap = Finding::Gap {
            stream: stream.clone(),
            after: 3,
            before: 5,
        };
        let overlap = Finding::Overlap {
            stream,
            version: 7,
            last: 11,
        };
        assert_eq!(report.findings, [overlap, gap]);
    }

    #[test]
    fn a_commit_without_events_is_found() {
        let (_, report) = scanned(&[commit("order-a", 1, 0)]);
        assert_eq!(report.found, 1);
    }

    #[test]
    fn all_findings_are_counted_and_so_many_are_named() {
        let commits: Vec<_> = (0..Report::NAMED + 5)
            .map(|n| commit(&format!("order-{n}"), 2, 1))
            .collect();
        let (_, mut report) = scanned(&commits);
        let found = Report::NAMED as u64 + 5;
        assert_eq!(
            (report.found, report.findings.len()),
            (found, Report::NAMED)
        );
        report.join(report.clone());
        assert_eq!(
            (report.found, report.findings.len()),
            (2 * found, Report::NAMED)
        );
    }

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
