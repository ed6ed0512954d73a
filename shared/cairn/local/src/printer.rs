//! Prints lines in a thread of its own.
//!
//! A slow, stopped or closed reader never delays the system. Lines wait in a bounded queue. Lines
//! that find it full are counted, and the count is printed once the reader continues.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

const MOST_LINES: usize = 4096;

/// Prints lines without waiting for their reader. Clones print to the same output.
#[derive(Clone, Debug)]
pub struct Printer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<String>,
    skipped: u64,
    is_printing: bool,
    is_closed: bool,
}

impl Printer {
    pub fn new(name: &str, out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = shared.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || own.print(out))?;
        Ok(Self(shared))
    }

    /// Queues one or more lines. It never waits.
    pub fn line(&self, text: impl Into<String>) {
        let mut queue = self.0.queue();
        if queue.is_closed {
            return;
        }
        if queue.lines.len() < MOST_LINES {
            queue.lines.push_back(text.into());
            self.0.changed.notify_all();
        } else {
            queue.skipped += 1;
        }
    }

    /// Waits until every line is printed, but no longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let queue = self.0.queue();
        let is_left = |queue: &mut Queue| {
            !queue.is_closed && (queue.is_printing || !queue.lines.is_empty() || queue.skipped > 0)
        };
        // A timeout needs no handling: the remaining lines are lost.
        drop(self.0.changed.wait_timeout_while(queue, limit, is_left));
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self, mut out: impl Write) {
        loop {
            let (lines, skipped) = self.next();
            let printed = lines
                .iter()
                .try_for_each(|line| writeln!(out, "{line}"))
                .and_then(|()| match skipped {
                    0 => Ok(()),
                    lines => writeln!(out, "({lines} lines were not printed)"),
                })
                .and_then(|()| out.flush());
            let mut queue = self.queue();
            queue.is_printing = false;
            queue.is_closed = printed.is_err();
            let is_closed = queue.is_closed;
            drop(queue);
            self.changed.notify_all();
            if is_closed {
                return;
            }
        }
    }

    /// Waits for lines, and takes all of them with the count of lines skipped after them.
    fn next(&self) -> (VecDeque<String>, u64) {
        let queue = self.queue();
        let is_idle = |queue: &mut Queue| queue.lines.is_empty() && queue.skipped == 0;
        let queue = self.changed.wait_while(queue, is_idle);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.is_printing = true;
        (mem::take(&mut queue.lines), mem::take(&mut queue.skipped))
    }
}

/// The log writes each line in one call.
impl Write for &Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.line(text.trim_end_matches('\n'));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Printer {
    type Writer = &'a Printer;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn lines_that_a_stopped_reader_misses_are_counted_and_the_others_are_printed_in_order() {
        let (reader, writer) = io::pipe().unwrap();
        let printer = Printer::new("test", writer).unwrap();
        // More than the pipe and the queue hold together. Reading starts after all lines are
        // queued.
        let all = 4 * MOST_LINES;
        for n in 0..all {
            printer.line(format!("{n} {}", "x".repeat(100)));
        }
        printer.flush(Duration::ZERO);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let (mut shown, mut skipped) = (0, 0);
        while shown + skipped < all {
            let line = lines.next().unwrap();
            let (first, rest) = line.split_once(' ').unwrap();
            if rest == "lines were not printed)" {
                skipped += first.trim_start_matches('(').parse::<usize>().unwrap();
            } else {
                assert_eq!(first, (shown + skipped).to_string());
                shown += 1;
            }
        }
        assert!(shown >= MOST_LINES && skipped > 0, "{shown} {skipped}");
        printer.line("the next");
        assert_eq!(lines.next().unwrap(), "the next");
    }

    #[test]
    fn an_output_that_is_closed_takes_nothing_and_delays_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let printer = Printer::new("test", writer).unwrap();
        printer.line("the first");
        printer.flush(Duration::MAX);
        for _ in 0..2 * MOST_LINES {
            printer.line("another");
        }
        printer.flush(Duration::MAX);
        assert!(printer.0.queue().is_closed);
    }
}
