//! `cairn tail`: shows events as they are committed.

use std::time::Duration;

use cairn::{Commit, cloudevent::CloudEvent};
use cairn_aws::operator::{Stack, StartPosition};
use clap::{Args, ValueEnum};
use console::style;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// The interval between reads. A shard allows five reads a second, and its two stream consumers use
/// four.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html>
const PAUSE: Duration = Duration::from_secs(1);

/// Show events as they are committed, until Ctrl-C or a limit
///
/// The events come from the event table's DynamoDB Stream, which keeps them for 24 hours, whether
/// or not they were published. With `--json`, each is a CloudEvent on a line of its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn tail
  cairn tail --stream {stream}
  cairn tail --from start --limit 100 --json | jq -r .type

Exit status: 0 success; 1 fewer events than --limit within --timeout; 2 usage error or system unreachable")]
pub(crate) struct Tail {
    /// Start position: `now`, or `start` for the oldest retained event (24 h)
    #[arg(long, value_enum, default_value_t = From::Now)]
    from: From,
    /// Show only events of streams with this prefix, for example `order-`
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    stream: String,
    /// Stop after N events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Stop after SECONDS
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=MAX_TIMEOUT))]
    timeout: Option<u64>,
}

/// The maximum timeout: one year.
const MAX_TIMEOUT: u64 = 365 * 24 * 60 * 60;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    Now,
    Start,
}

impl Tail {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let source = stack.app().variable("EVENT_SOURCE")?;
        let mut tail = stack
            .tail(match self.from {
                From::Now => StartPosition::Now,
                From::Start => StartPosition::Oldest,
            })
            .await?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        let end = tokio::signal::ctrl_c();
        tokio::pin!(end);
        let limit = Duration::from_secs(self.timeout.unwrap_or(MAX_TIMEOUT));
        let late = sleep_until(Instant::now() + limit);
        tokio::pin!(late);
        loop {
            let commits = tokio::select! {
                biased;
                _ = &mut end => break,
                () = &mut late => return self.stop(left),
                commits = tail.next() => commits?,
            };
            for commit in commits {
                match commit {
                    Ok(commit) => self.show(&commit, &source, &mut left, out)?,
                    Err(unreadable) => warn(&unreadable),
                }
            }
            if left == 0 {
                break;
            }
            tokio::select! {
                biased;
                _ = &mut end => break,
                () = &mut late => return self.stop(left),
                () = sleep(PAUSE) => {}
            }
        }
        Ok(Verdict::Well)
    }

    /// Ends at the timeout: successfully, unless fewer events than `--limit` arrived.
    fn stop(&self, left: u64) -> Result<Verdict, Failure> {
        let (Some(limit), Some(timeout)) = (self.limit, self.timeout) else {
            return Ok(Verdict::Well);
        };
        Err(Failure::found(format!(
            "tail failed: {} of {limit} events arrived within {timeout} s; use a longer --timeout",
            limit - left
        )))
    }

    fn show(
        &self,
        commit: &Commit,
        source: &str,
        left: &mut u64,
        out: &mut Output,
    ) -> Result<(), Failure> {
        if !commit.stream.as_str().starts_with(&self.stream) {
            return Ok(());
        }
        for event in commit.recorded() {
            if *left == 0 {
                return Ok(());
            }
            *left -= 1;
            if out.is_json {
                out.document(&CloudEvent::new(source, &event))?;
                continue;
            }
            let at = event.at.to_string();
            out.line(&format!(
                "{}  {:<28} {}",
                style(at).dim(),
                event.event.name,
                event.id()
            ))?;
        }
        Ok(())
    }
}

/// Reports an unreadable record on stderr, so that stdout stays valid JSON.
fn warn(problem: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "cairn: {problem}");
}
