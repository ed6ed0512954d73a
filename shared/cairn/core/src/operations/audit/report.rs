//! The result of an audit: counts, findings, and the data that was not examined.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{Finding, Part, Window};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

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
        report.add(Finding::NoEvents {
            projection: "stock".to_owned(),
            key: "TEA-01".to_owned(),
        });
        assert_eq!(report.clean(), None);
    }
}
