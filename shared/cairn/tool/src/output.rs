//! The output of a command: text for a terminal, JSON for programs.

use std::{
    fmt::Display,
    io::{self, Stdout, Write},
};

use console::{measure_text_width, style, truncate_str};
use serde::Serialize;

use crate::failure::Failure;

#[derive(Debug)]
pub(crate) struct Output {
    out: Stdout,
    pub(crate) is_json: bool,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Self {
        Self {
            out: io::stdout(),
            is_json,
        }
    }

    /// Prints a JSON document on one line.
    pub(crate) fn document(&mut self, document: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(document)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        Ok(self.out.flush()?)
    }

    /// Prints a line of text.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{line}")?)
    }

    /// Prints a table. The width of the terminal limits the last column.
    pub(crate) fn table<const N: usize>(
        &mut self,
        head: [&str; N],
        rows: &[[String; N]],
    ) -> Result<(), Failure> {
        let mut widths = head.map(measure_text_width);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = measure_text_width(cell).max(*width);
            }
        }
        let line = |cells: [&str; N]| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                let padding = width - measure_text_width(cell);
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', padding + 2));
            }
            let line = line.trim_end();
            match console::Term::stdout().size_checked() {
                Some((_, columns)) => truncate_str(line, columns.into(), "…").into_owned(),
                None => line.to_owned(),
            }
        };
        writeln!(self.out, "{}", style(line(head)).bold())?;
        for row in rows {
            writeln!(self.out, "{}", line(row.each_ref().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// Formats a number of things: `1 row`, `2 rows`.
pub(crate) fn count(number: impl Display, thing: &str) -> String {
    let number = number.to_string();
    let end = if number == "1" { "" } else { "s" };
    format!("{number} {thing}{end}")
}

/// Formats a duration in its largest whole unit, for example `3 min`.
pub(crate) fn duration(millis: i64) -> String {
    const UNITS: [(i64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "min"),
        (1_000, "s"),
    ];
    let millis = millis.max(0);
    for (unit, name) in UNITS {
        if millis >= unit {
            return format!("{} {name}", millis / unit);
        }
    }
    format!("{millis} ms")
}
