//! The table of results.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use store_bench::report::Row;

pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "scenario",
            "system",
            "calls",
            "RRU",
            "WRU",
            "$ per million",
            "bytes per event",
            "p50 ms",
            "p99 ms",
            "CPU us",
            "note",
        ]);
    for row in rows {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(String::new, |value| format!("{value:.digits$}"))
        };
        table.add_row([
            row.scenario.clone(),
            row.system.clone(),
            number(row.calls, 2),
            number(row.read_units, 2),
            number(row.write_units, 2),
            number(row.usd_per_million, 3),
            number(row.bytes_per_event, 0),
            number(row.p50_ms, 1),
            number(row.p99_ms, 1),
            number(row.cpu_us, 0),
            row.note.clone().unwrap_or_default(),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
