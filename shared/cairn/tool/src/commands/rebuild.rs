//! `cairn rebuild`: rebuilds a read model while the system runs.

use std::time::Duration;

use cairn::generation::{GenerationSet, Secondary};
use cairn_aws::{
    dynamodb::{BackfillProgress, Comparison, ComparisonProgress, Pruned, Started},
    operator::Stack,
};
use clap::{Args, Command, builder::PossibleValuesParser};
use futures_util::{StreamExt, future::try_join_all, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::change_arg;
use crate::{
    failure::{Failure, Verdict},
    output::{Output, count},
    tool::Tool,
};

const REBUILD: &str = "RebuildProjectionFunction";

/// The interval between updates of the progress bar.
const LOOK: Duration = Duration::from_millis(500);

/// Rebuild a read model from events, without downtime
///
/// A secondary generation of its rows takes new events while past events are backfilled into it.
/// Then the two are compared, the new generation is promoted, and the old one is pruned. If the
/// command is stopped, run it again to resume. If the live generation has orphan rows, which no
/// event leads to, the command stops before it promotes the new one, and lists some of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn rebuild {read model}
  cairn rebuild {read model} --segments 32
  cairn rebuild {read model} --drop-orphans
  cairn rebuild {read model} --cancel

Exit status: 0 success; 1 orphan rows found, or the rebuild did not end in time; 2 usage error or system unreachable")]
pub(crate) struct Rebuild {
    /// Read model
    projection: String,
    /// Number of parallel backfill segments; ignored when a rebuild is resumed
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    segments: u32,
    /// Drop orphan rows, which no event leads to
    #[arg(long)]
    drop_orphans: bool,
    /// Cancel the running rebuild and keep the current rows
    #[arg(long, conflicts_with_all = ["drop_orphans", "segments"])]
    cancel: bool,
    /// Stop after SECONDS; run the command again to resume
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

#[derive(Debug, Deserialize)]
struct Progress {
    generations: GenerationSet,
    segments: Vec<BackfillProgress>,
}

#[derive(Debug, Serialize)]
struct Done<'a> {
    projection: &'a str,
    /// `rebuilt`, `pruned` where only the retired rows of an earlier rebuild were left, or
    /// `cancelled`.
    did: &'static str,
    /// The number of events that this run and earlier ones backfilled.
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
    dropped: u64,
}

impl Rebuild {
    /// Accepts the read models of the system.
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        let read_models = PossibleValuesParser::new(tool.read_models());
        change_arg(command, "projection", |argument| {
            argument.value_parser(read_models.clone())
        })
    }

    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let limit = Duration::from_secs(self.timeout);
        match timeout(limit, self.rebuild(stack, out)).await {
            Ok(ended) => ended,
            Err(_) => Err(Failure::found(format!(
                "rebuild failed: it did not end within {} s (--timeout); run the same command again to continue, or \
                 with --cancel to keep the current rows",
                self.timeout
            ))),
        }
    }

    async fn rebuild(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let steps = Steps {
            stack,
            projection: &self.projection,
        };
        let Progress { generations, .. } = steps.take("progress").await?;
        let is_building = matches!(generations.secondary, Some(Secondary::Building { .. }));
        if self.cancel {
            if !is_building {
                return Err(Failure::found("no rebuild is running"));
            }
            let _: Value = steps.take("cancel").await?;
            return self.end(&steps, "cancelled", 0, None, out).await;
        }
        if matches!(generations.secondary, Some(Secondary::Retired { .. })) {
            // An earlier run was killed after the promotion: only the retired rows are left.
            return self.end(&steps, "pruned", 0, None, out).await;
        }
        let wish = json!({ "segments": self.segments });
        let started: Started = steps.take_with("start", wish).await?;
        let segments = started.segments;
        let events = steps.backfill(segments.clone(), is_building).await?;
        let comparison = steps.compare(segments).await?;
        if comparison.only_old > 0 && !self.drop_orphans {
            return self.orphan_rows(&comparison, out);
        }
        let _: Value = steps.take("promote").await?;
        self.end(&steps, "rebuilt", events, Some(comparison), out)
            .await
    }

    /// Prunes the obsolete rows, and reports the result.
    async fn end(
        &self,
        steps: &Steps<'_>,
        did: &'static str,
        events: u64,
        comparison: Option<Comparison>,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let mut dropped = 0;
        loop {
            let pruned: Pruned = steps.take("prune").await?;
            dropped += pruned.dropped;
            if pruned.complete {
                break;
            }
        }
        let done = Done {
            projection: &self.projection,
            did,
            events,
            comparison,
            dropped,
        };
        if out.is_json {
            out.document(&done)?;
            return Ok(Verdict::Well);
        }
        match &done.comparison {
            Some(comparison) => {
                out.line(&format!(
                    "Rebuilt from {}: {} unchanged, {} changed, {} added, {} removed.",
                    count(events, "event"),
                    count(comparison.alike, "row"),
                    comparison.differing,
                    comparison.only_new,
                    comparison.only_old,
                ))?;
                for example in &comparison.examples {
                    out.line(&format!("  {example}"))?;
                }
            }
            None if self.cancel => {
                out.line("Rebuild cancelled; the current rows are kept.")?;
            }
            None => {
                out.line(
                    "The previous rebuild was already live; cleanup finished. Run again to start a new rebuild.",
                )?;
            }
        }
        out.line(&format!("{} dropped.", count(dropped, "obsolete row")))?;
        Ok(Verdict::Well)
    }

    /// Reports orphan rows. An operator must decide.
    fn orphan_rows(&self, comparison: &Comparison, out: &mut Output) -> Result<Verdict, Failure> {
        if out.is_json {
            let stopped = json!({
                "projection": self.projection,
                "did": "stopped",
                "comparison": comparison,
            });
            out.document(&stopped)?;
            return Ok(Verdict::Wrong);
        }
        out.line(&format!(
            "{}, to which no event leads; the new rows are not promoted yet:",
            count(comparison.only_old, "orphan row")
        ))?;
        for example in &comparison.examples {
            out.line(&format!("  {example}"))?;
        }
        out.line("Run again with --drop-orphans to drop them, or with --cancel to keep the current rows.")?;
        Ok(Verdict::Wrong)
    }
}

struct Steps<'a> {
    stack: &'a Stack,
    projection: &'a str,
}

impl Steps<'_> {
    async fn take<A: DeserializeOwned>(&self, step: &str) -> Result<A, Failure> {
        self.take_with(step, json!({})).await
    }

    async fn take_with<A: DeserializeOwned>(
        &self,
        step: &str,
        mut request: Value,
    ) -> Result<A, Failure> {
        if let Value::Object(request) = &mut request {
            request.insert("projection".to_owned(), self.projection.into());
            request.insert("step".to_owned(), step.into());
        }
        Ok(self.stack.operate(REBUILD, request).await?)
    }

    /// Backfills all segments, and returns the number of their events. A terminal shows a progress
    /// bar.
    async fn backfill(&self, segments: Vec<u32>, is_resumed: bool) -> Result<u64, Failure> {
        let bar = ProgressBar::new(segments.len() as u64);
        if let Ok(look) = ProgressStyle::with_template(
            "{msg} {bar:32} {pos}/{len} segments, {prefix} events, {elapsed}",
        ) {
            bar.set_style(look);
        }
        bar.set_message(if is_resumed {
            "Resuming"
        } else {
            "Backfilling"
        });
        bar.set_prefix("0");
        let at_once = segments.len().max(1);
        let backfills = stream::iter(segments).map(|segment| self.backfill_segment(segment));
        let mut backfills = std::pin::pin!(backfills.buffer_unordered(at_once));
        let mut look = tokio::time::interval(LOOK);
        let mut events = 0;
        loop {
            tokio::select! {
                part = backfills.next() => match part {
                    Some(part) => {
                        events += part?;
                        bar.inc(1);
                    }
                    None => break,
                },
                _ = look.tick() => {
                    let progress: Progress = self.take("progress").await?;
                    let so_far: u64 = progress.segments.iter().map(|part| part.events).sum();
                    bar.set_prefix(so_far.to_string());
                    let done = progress.segments.iter().filter(|part| part.done);
                    bar.set_position(done.count() as u64);
                }
            }
        }
        bar.finish_and_clear();
        Ok(events)
    }

    /// Compares the rows of all segments, each in as many invocations as it needs.
    async fn compare(&self, segments: Vec<u32>) -> Result<Comparison, Failure> {
        let compared = segments
            .into_iter()
            .map(|segment| self.compare_segment(segment));
        let compared = try_join_all(compared).await?;
        let total = json!({ "compared": compared });
        self.take_with("total", total).await
    }

    async fn compare_segment(&self, segment: u32) -> Result<ComparisonProgress, Failure> {
        let mut compared = ComparisonProgress::default();
        while !compared.done {
            let part = json!({ "segment": segment, "compared": compared });
            compared = self.take_with("compare", part).await?;
        }
        Ok(compared)
    }

    async fn backfill_segment(&self, segment: u32) -> Result<u64, Failure> {
        loop {
            let part = json!({ "segment": segment });
            let part: BackfillProgress = self.take_with("backfill", part).await?;
            if part.done {
                return Ok(part.events);
            }
        }
    }
}
