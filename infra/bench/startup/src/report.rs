//! The table of results, and its limits.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::{
    programs::{HELLO_WORLD, PLACE_ORDER, Program},
    start::Start,
};

/// The limit of `place-order`'s start time, relative to hello-world.
const TIMES_THE_TIME: f64 = 1.5;
/// The limit of `place-order`'s memory, relative to hello-world.
const TIMES_THE_MEMORY: f64 = 2.0;
/// The limit of a function's zip archive.
const ZIP_BYTES: usize = 3_500_000;

/// The results of a program.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    zip: usize,
    /// True for a function of the system.
    is_ours: bool,
    metrics: Option<Metrics>,
}

/// Medians of all starts.
#[derive(Clone, Copy, Debug)]
struct Metrics {
    ms: f64,
    processor_ms: f64,
    million_instructions: Option<f64>,
    peak_kib: f64,
}

impl Row {
    pub(crate) fn started(
        program: &Program,
        starts: &[Start],
        instructions: Option<f64>,
        zip: usize,
    ) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            name: program.name.clone(),
            zip,
            is_ours: program.is_ours,
            metrics: Some(Metrics {
                ms: median(starts, |start| ms(start.time)),
                processor_ms: median(starts, |start| ms(start.processor)),
                million_instructions: instructions,
                peak_kib: median(starts, |start| f64::from(start.peak_kib)),
            }),
        }
    }

    /// Returns the row of a binary that was not started.
    pub(crate) fn packed(name: &str, zip: usize) -> Self {
        Self {
            name: name.to_owned(),
            zip,
            is_ours: true,
            metrics: None,
        }
    }

    fn metric(&self, value: fn(&Metrics) -> Option<f64>) -> Option<f64> {
        self.metrics.as_ref().and_then(value)
    }
}

/// Returns the median; of an even number of values the upper one.
fn median(starts: &[Start], value: impl Fn(&Start) -> f64) -> f64 {
    let mut values: Vec<_> = starts.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A column: its name, its value, and the number of significant digits.
type Column = (&'static str, fn(&Metrics) -> Option<f64>, usize);

const COLUMNS: [Column; 4] = [
    ("start ms", |metrics| Some(metrics.ms), 2),
    ("CPU ms", |metrics| Some(metrics.processor_ms), 2),
    ("M instructions", |metrics| metrics.million_instructions, 2),
    ("peak MiB", |metrics| Some(metrics.peak_kib / 1024.0), 2),
];

pub(crate) fn table(rows: &[Row]) -> Table {
    let is_there = |(_, value, _): &&Column| rows.iter().any(|row| row.metric(*value).is_some());
    let columns: Vec<_> = COLUMNS.iter().filter(is_there).collect();
    let hello = rows.iter().find(|row| row.name == HELLO_WORLD);
    let mut header = vec!["program"];
    for (name, ..) in &columns {
        header.extend([*name, "x hello-world"]);
    }
    header.extend(["zip MB", "at most 3.5"]);
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        let mut cells = vec![row.name.clone()];
        for (_, value, digits) in &columns {
            let here = row.metric(*value);
            let ratio = here.zip(hello.and_then(|hello| hello.metric(*value)));
            cells.push(here.map_or_else(String::new, |here| format!("{here:.digits$}")));
            cells.push(
                ratio.map_or_else(String::new, |(here, hello)| format!("{:.2}", here / hello)),
            );
        }
        cells.push(format!("{:.2}", megabytes(row.zip)));
        cells.push(if row.zip <= ZIP_BYTES { "yes" } else { "no" }.to_owned());
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns a sentence for each exceeded limit.
pub(crate) fn broken_promises(rows: &[Row]) -> Vec<String> {
    let metrics = |name: &str| rows.iter().find(|row| row.name == name)?.metrics;
    let mut broken = vec![];
    match (metrics(HELLO_WORLD), metrics(PLACE_ORDER)) {
        (Some(hello), Some(ours)) => {
            let mut must = |what: &str, times: f64, most: f64| {
                if times > most {
                    let text = format!(
                        "{PLACE_ORDER} takes {times:.2} times hello-world's {what}; the limit is {most}"
                    );
                    broken.push(text);
                }
            };
            must("time to start", ours.ms / hello.ms, TIMES_THE_TIME);
            must("memory", ours.peak_kib / hello.peak_kib, TIMES_THE_MEMORY);
        }
        _ => broken.push(format!("{HELLO_WORLD} and {PLACE_ORDER} were not measured")),
    }
    let too_large = rows.iter().filter(|row| row.is_ours && row.zip > ZIP_BYTES);
    broken.extend(too_large.map(|row| {
        format!(
            "the zip of {} has {:.2} MB; the limit is {:.2}",
            row.name,
            megabytes(row.zip),
            megabytes(ZIP_BYTES)
        )
    }));
    broken
}

/// Millions of bytes.
#[expect(clippy::cast_precision_loss, reason = "printed with two digits")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, ms: f64, peak_kib: f64, zip: usize) -> Row {
        let metrics = Metrics {
            ms,
            processor_ms: ms,
            million_instructions: None,
            peak_kib,
        };
        Row {
            name: name.to_owned(),
            zip,
            is_ours: true,
            metrics: Some(metrics),
        }
    }

    fn start(ms: u64) -> Start {
        Start {
            time: Duration::from_millis(ms),
            processor: Duration::ZERO,
            peak_kib: 1,
        }
    }

    #[test]
    fn one_slow_start_does_not_move_the_median() {
        let starts = [3, 900, 2, 4, 3].map(start);
        let ms = median(&starts, |start| start.time.as_secs_f64() * 1e3);
        assert!((ms - 3.0).abs() < 1e-9, "{ms}");
    }

    #[test]
    fn what_is_at_its_limit_is_as_promised() {
        let rows = [
            row(HELLO_WORLD, 2.0, 4000.0, 900_000),
            row(PLACE_ORDER, 3.0, 8000.0, 3_500_000),
        ];
        assert_eq!(broken_promises(&rows), Vec::<String>::new());
    }

    #[test]
    fn each_exceeded_limit_is_reported() {
        let rows = [
            row(HELLO_WORLD, 2.0, 4000.0, 900_000),
            row(PLACE_ORDER, 3.1, 8100.0, 3_400_000),
            Row::packed("get-order", 3_500_001),
        ];
        assert_eq!(broken_promises(&rows).len(), 3);
    }

    #[test]
    fn a_table_without_hello_world_promises_nothing() {
        assert_eq!(broken_promises(&[]).len(), 1);
    }

    #[test]
    fn columns_without_values_are_omitted() {
        let text = table(&[row(HELLO_WORLD, 2.0, 4000.0, 900_000)]).to_string();
        assert!(
            text.contains("start ms") && !text.contains("instructions"),
            "{text}"
        );
    }
}
