//! The audit: the inconsistencies of stored data.
//!
//! An audit writes nothing, and can run on a live system. Its [`Scope`] is everything, a part of
//! everything, or the streams that changed. It compares only data that cannot change between two
//! reads. A row stores the versions that it has applied, and events
//! never change. A row that was read once is therefore compared with the events up to exactly these
//! versions.
//!
//! Publication is not recorded, because that would cost a second write per commit. The audit infers
//! it from the version gates: a gate at or after an event proves that the bus delivered to its
//! stream. An event is *unpublished* if it is old enough and no gate has reached it. The audit
//! cannot check the publication of a stream that no gate follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    commit::{Commit, RecordedEvent},
    event::CodecError,
    stream::StreamId,
    timestamp::Timestamp,
};

/// An inconsistency that the audit found.
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
        /// The last version before the gap; 0 if the stream begins with it.
        after: u64,
        /// The first version after the gap.
        before: u64,
    },
    /// A commit contains a version that an earlier commit contains.
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
    PartMissing {
        /// The stream of a commit of the same append that exists.
        stream: StreamId,
        /// The version of that commit.
        version: u64,
        /// The missing commit, such as `stock-TEA-01@5`.
        missing: String,
    },
    /// A stored item is not a commit, or contains an event that this code cannot decode.
    Unreadable {
        /// The stream, as stored.
        stream: String,
        /// The version.
        version: u64,
        /// The decoding error.
        reason: String,
    },
    /// No event consumer has received the last events of a stream.
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
    RowDiffers {
        /// The read model.
        projection: String,
        /// The key of the row.
        key: String,
        /// The attributes that differ.
        attributes: BTreeSet<String>,
    },
    /// A row has applied events that the stream does not have.
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
    NoEvents {
        /// The read model.
        projection: String,
        /// The key of the row.
        key: String,
    },
    /// A deadline is overdue, and the watchdog has not handled it.
    Overdue {
        /// The monitored stream.
        stream: StreamId,
        /// The version of the stream when the deadline was set.
        version: u64,
        /// The deadline.
        at: Timestamp,
    },
    /// A process is unfinished and has no deadline, so the watchdog does not check it.
    Unwatched {
        /// The last version of each stream of the process; 0 for a stream without events.
        streams: BTreeMap<StreamId, u64>,
        /// The time of its last event.
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
            Self::PartMissing {
                stream,
                version,
                missing,
            } => write!(
                f,
                "{stream}@{version}: was appended together with {missing}, which is missing"
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
                let name = |(stream, version): (&StreamId, &u64)| format!("{stream}@{version}");
                let streams: Vec<_> = streams.iter().map(name).collect();
                let streams = streams.join(", ");
                write!(
                    f,
                    "{streams}: no progress since {since}, and no deadline exists"
                )
            }
        }
    }
}

/// The result of an audit, or of a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The number of streams.
    pub streams: u64,
    /// The number of commits.
    pub commits: u64,
    /// The number of events.
    pub events: u64,
    /// The number of streams that no version gate follows. Their publication cannot be checked.
    pub streams_without_gate: u64,
    /// The rows of each read model.
    pub rows: BTreeMap<String, Rows>,
    /// The number of processes with an open deadline.
    pub open: u64,
    /// The number of stuck processes.
    pub stuck: u64,
    /// The data that the audit did not examine.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub omitted: BTreeSet<Omitted>,
    /// The changes that the audit examined, unless it examined only a part of their effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covers: Option<Window>,
    /// The number of findings.
    pub found: u64,
    /// The first findings, at most [`Report::NAMED`].
    pub findings: Vec<Finding>,
}

/// The rows of a read model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// The number of rows that were compared.
    pub compared: u64,
    /// The number of rows that were not: they changed during the audit, or their events have a gap.
    pub skipped: u64,
}

impl Report {
    /// The number of findings that a report lists. It counts all of them.
    pub const NAMED: usize = 1_000;

    /// Returns the window in which every change was examined and nothing was found.
    pub fn clean(&self) -> Option<Window> {
        self.covers.filter(|_| self.found == 0)
    }

    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < Self::NAMED {
            self.findings.push(finding);
        }
    }

    /// Adds the result of another part of the audit.
    pub fn join(&mut self, other: Self) {
        self.streams += other.streams;
        self.commits += other.commits;
        self.events += other.events;
        self.streams_without_gate += other.streams_without_gate;
        self.open += other.open;
        self.stuck += other.stuck;
        self.found += other.found;
        self.omitted.extend(other.omitted);
        for (name, rows) in other.rows {
            let ours = self.rows.entry(name).or_default();
            ours.compared += rows.compared;
            ours.skipped += rows.skipped;
        }
        let room = Self::NAMED.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.into_iter().take(room));
    }
}

/// The data that an audit examines. It examines all deadlines in every scope, because only the open
/// ones are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A part of the streams, and a part of the rows. The audit of every part examines everything
    /// except counters, which only [`Part::WHOLE`] includes.
    Part(Part),
    /// The streams that changed, with all their events, and the rows that they change. Orphan rows
    /// and counters are not included.
    Changed {
        /// Every stream with a commit that was written, changed or removed in the window.
        streams: BTreeSet<StreamId>,
        /// The window. Its end may be too young to judge; [`Report::covers`] then ends earlier.
        window: Window,
    },
}

impl Default for Scope {
    /// Everything.
    fn default() -> Self {
        Self::Part(Part::WHOLE)
    }
}

/// One of several parts of a table: a segment of a parallel scan. A stream or row is in the same
/// part whenever the number of parts is the same, because DynamoDB divides a table by a hash of the
/// partition key.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html#Scan.ParallelScan>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// From 1 to the number of parts.
    part: u32,
    of: u32,
}

impl Part {
    /// Everything.
    pub const WHOLE: Self = Self { part: 1, of: 1 };
    /// The maximum number of parts.
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Scan.html>
    const MOST: u32 = 1_000_000;

    /// Returns the segment of a parallel scan, from 0, and the number of segments.
    pub fn segment(self) -> (u32, u32) {
        (self.part.saturating_sub(1), self.of)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// A text is not a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part is a number and the number of parts, such as 1/30 to 30/30")]
pub struct NotAPart;

impl FromStr for Part {
    type Err = NotAPart;

    fn from_str(text: &str) -> Result<Self, NotAPart> {
        let (part, of) = text.split_once('/').ok_or(NotAPart)?;
        let number = |digits: &str| digits.parse().map_err(|_| NotAPart);
        let (part, of) = (number(part)?, number(of)?);
        if (1..=of).contains(&part) && of <= Self::MOST {
            return Ok(Self { part, of });
        }
        Err(NotAPart)
    }
}

/// A span of time, from `from` until before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The beginning; `None` includes everything before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The end, which the window does not include.
    pub to: Timestamp,
}

/// Data that an audit did not examine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Omitted {
    /// The streams and rows of all parts but this one.
    OtherParts(Part),
    /// The streams that did not change and their rows, and orphan rows.
    Unchanged,
    /// The counters of a read model, because they add up the events of all streams.
    Counters {
        /// The read model.
        projection: String,
    },
    /// The rows of a read model.
    Rows {
        /// The read model.
        projection: String,
    },
}

impl fmt::Display for Omitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherParts(part) => write!(f, "the streams and rows of parts other than {part}"),
            Self::Unchanged => {
                f.write_str("the streams that did not change and their rows, and orphan rows")
            }
            Self::Counters { projection } => write!(f, "the counters of {projection}"),
            Self::Rows { projection } => write!(f, "the rows of {projection}"),
        }
    }
}

/// A process over several streams that has deadlines, such as a saga.
pub trait Process: Send + Sync + 'static {
    /// Returns the streams that determine the state of the process. Its deadline has the id of one
    /// of them. The result is empty if `last` ends its stream with nothing left to do.
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    fn streams(last: &RecordedEvent) -> Result<Vec<StreamId>, CodecError>;

    /// Returns true if the process is unfinished or stuck after all events of those streams.
    ///
    /// # Errors
    /// Returns an error if an event cannot be decoded.
    fn goes_on(events: &[RecordedEvent]) -> Result<bool, CodecError>;
}

/// The ages at which the audit reports a delay.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The age from which a committed event must have reached every consumer.
    pub settle: Duration,
    /// The time after a deadline by which the watchdog must have handled it.
    pub overdue: Duration,
}

impl Default for Limits {
    /// One minute and five minutes: the watchdog runs every minute.
    fn default() -> Self {
        Self {
            settle: Duration::from_mins(1),
            overdue: Duration::from_mins(5),
        }
    }
}

/// A check of commits in the order of a table scan, which returns the commits of one stream
/// together. DynamoDB usually returns them in the order of their versions, but does not guarantee
/// it. The check therefore keeps the ranges of versions of the current stream, and of no other.
#[derive(Debug, Default)]
pub struct StreamScan {
    current: Option<ScannedStream>,
}

#[derive(Debug)]
struct ScannedStream {
    head: RecordedEvent,
    /// The ranges of versions without a gap, from the first to the last.
    runs: BTreeMap<u64, u64>,
}

impl StreamScan {
    /// Checks the next commit. Returns the last event of the previous stream if the commit begins
    /// another one.
    pub fn step(&mut self, commit: &Commit, report: &mut Report) -> Option<RecordedEvent> {
        report.commits += 1;
        report.events += commit.events.len() as u64;
        let Some(last) = commit.recorded().last() else {
            report.add(Finding::Unreadable {
                stream: commit.stream.to_string(),
                version: commit.version,
                reason: "the commit has no events".to_owned(),
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

    /// Returns the last event of the last stream.
    pub fn end(self, report: &mut Report) -> Option<RecordedEvent> {
        self.current.map(|scanned| scanned.end(report))
    }
}

impl ScannedStream {
    /// Adds the versions of a commit. Returns the last version of the range that overlaps them.
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

    /// Reports the gaps, and returns the last event.
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
    use crate::event::StoredEvent;

    fn commit(stream: &str, version: u64, events: usize) -> Commit {
        let event = StoredEvent {
            name: "Happened".to_owned(),
            schema: 1,
            data: to_raw_value(&json!({})).unwrap(),
        };
        let (id, at) = (format!("{stream}@{version}"), Timestamp::from_millis(7));
        let stream = stream.parse().unwrap();
        Commit::new(stream, version, id, at, vec![event; events])
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
    fn a_scan_returns_the_last_event_of_each_stream() {
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
    fn all_findings_are_counted_and_only_the_first_are_listed() {
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
    fn a_part_is_one_of_several() {
        for text in ["1/1", "1/30", "30/30", "1/1000000"] {
            assert_eq!(text.parse::<Part>().unwrap().to_string(), text);
        }
        assert_eq!("7/30".parse::<Part>().unwrap().segment(), (6, 30));
        for text in [
            "",
            "7",
            "0/30",
            "31/30",
            "-1/30",
            "1/0",
            "1/1000001",
            "1/2/3",
        ] {
            assert_eq!(text.parse::<Part>(), Err(NotAPart), "{text}");
        }
    }

    #[test]
    fn only_a_report_without_findings_is_clean_in_its_window() {
        let window = Window {
            from: None,
            to: Timestamp::from_millis(7),
        };
        let mut report = Report::default();
        assert_eq!(report.clean(), None);
        report.covers = Some(window);
        assert_eq!(report.clean(), Some(window));
        scanned(&[commit("order-a", 2, 1)])
            .1
            .findings
            .into_iter()
            .for_each(|gap| report.add(gap));
        assert_eq!(report.clean(), None);
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
