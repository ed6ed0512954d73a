//! The check of each stream's versions in one pass over a table.

use std::collections::BTreeMap;

use super::{Finding, Report};
use crate::commit::{Commit, RecordedEvent};

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
    use crate::{event::StoredEvent, stream::StreamId, timestamp::Timestamp};

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
}
