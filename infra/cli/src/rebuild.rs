//! `cairn rebuild`: a read model made anew while the system runs.

use std::time::Duration;

use cairn::{
    dynamodb::{Begun, Comparison, Poured, Swept},
    generation::{Beside, Standing},
    operator::Stack,
};
use clap::{Args, ValueEnum};
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// The function that takes the steps.
const REBUILD: &str = "RebuildProjectionFunction";

/// How often the bar asks how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// Makes a read model anew from the events, while the system takes orders.
///
/// A second generation of its rows takes the events of the present while those of the past are poured into it; then
/// the two are compared, the new one is shown, and the old one dropped. Killed and started again, it goes on where it
/// was. Where rows are shown that no event leads to, it stops before it shows the new ones, and names some.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn rebuild orders
  cairn rebuild sales --segments 32
  cairn rebuild stock --without-strangers
  cairn rebuild stock --abandon

Exit status: 0; 1 if rows are shown that no event leads to, or if the rebuild did not end in time; 2 if the command was called wrongly or the system cannot be reached.")]
pub(crate) struct Rebuild {
    /// The read model.
    projection: Projection,
    /// Into how many parts history is divided, which are poured side by side. One that was begun keeps its own.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    segments: u32,
    /// Do without the rows that no event leads to.
    #[arg(long)]
    without_strangers: bool,
    /// Give up the rebuild that was begun: what is shown stays.
    #[arg(long, conflicts_with_all = ["without_strangers", "segments"])]
    abandon: bool,
    /// Stop after so many seconds. The same command continues the rebuild.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Projection {
    /// A row for each order.
    Orders,
    /// A row for each SKU.
    Stock,
    /// A price for each SKU.
    Products,
    /// Windows of sales.
    Sales,
}

/// How far a rebuild is.
#[derive(Debug, Deserialize)]
struct Progress {
    generations: Standing,
    segments: Vec<Poured>,
}

/// What a rebuild came to.
#[derive(Debug, Serialize)]
struct Done {
    projection: Projection,
    /// What became of it: `rebuilt`, `swept` where only the old rows of an earlier one were left, or `abandoned`.
    did: &'static str,
    /// How many events were poured, by this run and those before it.
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
    /// How many old rows were dropped.
    dropped: u64,
}

impl Rebuild {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let limit = Duration::from_secs(self.timeout);
        match timeout(limit, self.rebuild(stack, out)).await {
            Ok(ended) => ended,
            Err(_) => Err(Failure::found(format!(
                "rebuild failed: it did not end within {} s (--timeout); run the same command again to continue, or \
                 with --abandon to keep the rows that are shown",
                self.timeout
            ))),
        }
    }

    async fn rebuild(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let steps = Steps {
            stack,
            projection: self.projection,
        };
        let Progress { generations, .. } = steps.take("progress").await?;
        let is_building = matches!(generations.secondary, Some(Beside::Building { .. }));
        if self.abandon {
            if !is_building {
                return Err(Failure::found("nothing is being rebuilt"));
            }
            let _: Value = steps.take("abandon").await?;
            return self.end(&steps, "abandoned", 0, None, out).await;
        }
        if matches!(generations.secondary, Some(Beside::Retiring { .. })) {
            // It was killed after the new rows were shown: all that is left is to drop the old ones.
            return self.end(&steps, "swept", 0, None, out).await;
        }
        let wish = json!({ "segments": self.segments });
        let started: Begun = steps.take_with("begin", wish).await?;
        let events = steps.backfill(started.segments, is_building).await?;
        let comparison: Comparison = steps.take("compare").await?;
        if comparison.only_old > 0 && !self.without_strangers {
            return self.orphan_rows(&comparison, out);
        }
        let _: Value = steps.take("flip").await?;
        self.end(&steps, "rebuilt", events, Some(comparison), out)
            .await
    }

    /// Drops the rows that are not shown, and says what was done.
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
            let pruned: Swept = steps.take("sweep").await?;
            dropped += pruned.dropped;
            if pruned.complete {
                break;
            }
        }
        let done = Done {
            projection: self.projection,
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
                    "Rebuilt from {events} events: {} rows are as before, {} differ, {} are new, {} are gone.",
                    comparison.alike, comparison.differing, comparison.only_new, comparison.only_old,
                ))?;
                for example in &comparison.examples {
                    out.line(&format!("  {example}"))?;
                }
            }
            None if self.abandon => {
                out.line("The rebuild is given up; what was shown is shown.")?;
            }
            None => {
                out.line("The new rows were shown already. To rebuild once more, start it again.")?;
            }
        }
        out.line(&format!("{dropped} rows that are not shown were dropped."))?;
        Ok(Verdict::Well)
    }

    /// There are rows that no event leads to: somebody has to decide.
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
            "{} rows are shown that no event leads to, so the new rows are not shown yet:",
            comparison.only_old
        ))?;
        for example in &comparison.examples {
            out.line(&format!("  {example}"))?;
        }
        out.line("Again with --without-strangers it does without them; with --abandon everything stays as it is.")?;
        Ok(Verdict::Wrong)
    }
}

/// The steps of one rebuild.
struct Steps<'a> {
    stack: &'a Stack,
    projection: Projection,
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
            request.insert(
                "projection".to_owned(),
                serde_json::to_value(self.projection)?,
            );
            request.insert("step".to_owned(), step.into());
        }
        Ok(self.stack.invoke(REBUILD, &request).await?)
    }

    /// Pours all parts of history, with a bar on a terminal, and says how many events they have.
    async fn backfill(&self, segments: Vec<u32>, is_resumed: bool) -> Result<u64, Failure> {
        let bar = ProgressBar::new(segments.len() as u64);
        if let Ok(look) = ProgressStyle::with_template(
            "{msg} {bar:32} {pos}/{len} parts, {prefix} events, {elapsed}",
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

    async fn backfill_segment(&self, segment: u32) -> Result<u64, Failure> {
        loop {
            let part = json!({ "segment": segment });
            let part: Poured = self.take_with("pour", part).await?;
            if part.done {
                return Ok(part.events);
            }
        }
    }
}
