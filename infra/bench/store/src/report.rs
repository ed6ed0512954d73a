//! The results, and their limits.

use serde::Serialize;

/// The results of a scenario for one system, per command.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub scenario: String,
    pub system: String,
    /// Calls to AWS services.
    pub calls: Option<f64>,
    pub read_units: Option<f64>,
    pub write_units: Option<f64>,
    /// US dollars per million commands.
    pub usd_per_million: Option<f64>,
    /// The growth of the tables, per event.
    pub bytes_per_event: Option<f64>,
    /// The median, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
    /// The client's processor time, in microseconds.
    pub cpu_us: Option<f64>,
    pub note: Option<String>,
}

impl Row {
    /// Returns a row of a scenario that failed.
    pub fn failed(scenario: &str, system: &str, note: String) -> Self {
        Self {
            scenario: scenario.to_owned(),
            system: system.to_owned(),
            calls: None,
            read_units: None,
            write_units: None,
            usd_per_million: None,
            bytes_per_event: None,
            p50_ms: None,
            p99_ms: None,
            cpu_us: None,
            note: Some(note),
        }
    }

    #[must_use]
    pub fn note(self, note: &str) -> Self {
        Self {
            note: Some(note.to_owned()),
            ..self
        }
    }

    /// Removes the processor time, for scenarios in which it includes other work.
    #[must_use]
    pub fn without_cpu(self) -> Self {
        Self {
            cpu_us: None,
            ..self
        }
    }
}

/// Returns a sentence for each limit that a row of Cairn exceeds. Limits apply to counts, never to
/// times.
pub fn broken_limits(rows: &[Row]) -> Vec<String> {
    let mut broken = vec![];
    let mut must = |holds: bool, sentence: String| {
        if !holds {
            broken.push(sentence);
        }
    };
    let of_commands = |row: &&Row| row.system == "cairn" && row.scenario != "rebuild";
    for ours in rows.iter().filter(of_commands) {
        let (Some(calls), Some(usd)) = (ours.calls, ours.usd_per_million) else {
            must(false, format!("{}: cairn has no counts", ours.scenario));
            continue;
        };
        let scenario = ours.scenario.as_str();
        if let Some((_, most)) = CALLS.iter().find(|(name, _)| scenario.starts_with(name)) {
            must(
                calls <= *most,
                format!("{scenario}: {calls:.2} calls, the limit is {most}"),
            );
        }
        if let Some((_, most)) = DOLLARS.iter().find(|(name, _)| scenario == *name) {
            must(
                usd <= *most,
                format!("{scenario}: ${usd:.3}, the limit is ${most}"),
            );
        }
        let peers = rows
            .iter()
            .filter(|row| row.scenario == scenario && row.system != "cairn");
        let cheapest = peers.filter_map(|row| row.usd_per_million).reduce(f64::min);
        let is_left_out = FLOOR.iter().chain(&CHANCE).any(|name| {
            let kind = scenario.split_once('-').map(|(kind, _)| kind);
            scenario == *name || kind == Some(*name)
        });
        if let Some(cheapest) = cheapest.filter(|_| !is_left_out) {
            let text = format!(
                "{scenario}: ${usd:.3}, more than half of the cheapest alternative's ${cheapest:.3}"
            );
            must(usd <= cheapest / 2.0, text);
        }
    }
    broken
}

/// The maximum number of calls of a command.
const CALLS: [(&str, f64); 9] = [
    ("create", 1.0),
    ("warm", 1.0),
    ("cold", 2.0),
    ("load", 1.0),
    ("five-events", 2.0),
    ("lost-answer", 2.0),
    ("sent-again", 1.0),
    ("conflict", 3.0),
    ("relay", 0.11),
];

/// The maximum cost of a million commands.
const DOLLARS: [(&str, f64); 2] = [("cold-1000", 0.95), ("warm-1000", 0.70)];

/// Scenarios in which Cairn needs the minimum of calls, and an alternative costs less than twice as
/// much. See the README of this crate.
const FLOOR: [&str; 4] = ["cold-10", "lost-answer", "conflict", "load"];

/// Scenarios whose counts depend on the order of concurrent writes. Only lost events are an error
/// there, and they end the run.
const CHANCE: [&str; 1] = ["32-writers"];
