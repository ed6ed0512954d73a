//! Rebuilds a read model, step by step, while the system runs.
//!
//! The steps are: start, backfill every segment, compare every segment, total, promote, prune.
//! Backfill, compare and prune are repeated until they are complete. Every step can be repeated.

use std::{sync::Arc, time::Duration};

use cairn::{
    generation::{Generation, GenerationSet},
    system::System,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    dynamodb::{
        AnyProjection, BackfillProgress, Comparison, ComparisonProgress, Pruned, Rebuild, Started,
    },
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        operation::{self, Task},
    },
};

/// Creates the function that takes one step of the rebuild of a read model of a system.
pub fn rebuild(app: &AppContext, system: &System) -> Result<Handler, ConfigError> {
    // A missing environment variable is an error at the start.
    app.read_models(system)?;
    let parts = Arc::new((app.clone(), system.clone()));
    Ok(operation::function(app, move |request: Request, task| {
        let parts = parts.clone();
        async move {
            let (app, system) = parts.as_ref();
            let Request { projection, step } = request;
            let model = system
                .find_read_model(&projection)
                .map_err(|error| FunctionError::new(format!("invalid request: {error}")))?;
            tracing::info!(projection, ?step, "rebuild step started");
            let rows = app.read_model(*model)?;
            let store = app.event_store()?;
            take(&Rebuild::new(store, rows), step, &task).await
        }
    }))
}

#[derive(Debug, Deserialize)]
#[serde(
    expecting = r#"{"projection": NAME, "step": STEP}; NAME is a read model; STEP is start, backfill, progress, compare, total, promote, cancel or prune"#
)]
struct Request {
    projection: String,
    #[serde(flatten)]
    step: Step,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
enum Step {
    /// Starts a rebuild, or resumes the current one.
    Start {
        /// The number of segments of the history, which can be backfilled concurrently.
        #[serde(default = "segments")]
        segments: u32,
    },
    /// Backfills one segment within the time budget.
    Backfill {
        /// The segment, from 0.
        segment: u32,
    },
    /// Reports the progress of all segments.
    Progress,
    /// Compares one segment of the new rows with the live ones within the time budget.
    Compare {
        /// The segment, from 0.
        segment: u32,
        /// The progress of the segment's comparison.
        #[serde(default)]
        compared: ComparisonProgress,
    },
    /// Adds up the comparisons of all segments.
    Total { compared: Vec<ComparisonProgress> },
    /// Promotes the new rows.
    Promote,
    /// Cancels the rebuild.
    Cancel,
    /// Deletes the rows of obsolete generations within the time budget.
    Prune,
}

/// About the number of partitions of a table of some tens of gigabytes.
const fn segments() -> u32 {
    8
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Report {
    Started(Started),
    Backfilled(BackfillProgress),
    Progress {
        generations: GenerationSet,
        /// Empty without a current rebuild.
        segments: Vec<BackfillProgress>,
    },
    ComparedPart(ComparisonProgress),
    Compared(Comparison),
    Live {
        live: Generation,
    },
    Pruned(Pruned),
}

async fn take(
    rebuild: &Rebuild<AnyProjection>,
    step: Step,
    task: &Task,
) -> Result<Report, FunctionError> {
    let until = Instant::now() + working_time(task.time_budget);
    let is_time_left = || Instant::now() < until;
    let report = match step {
        Step::Start { segments } => {
            let started = rebuild.start(task.now, segments.max(1)).await;
            started.map(Report::Started)
        }
        Step::Backfill { segment } => {
            let progress = rebuild.backfill(segment, is_time_left).await;
            progress.map(Report::Backfilled)
        }
        Step::Progress => {
            let progress = rebuild.progress().await;
            progress.map(|(generations, segments)| Report::Progress {
                generations,
                segments,
            })
        }
        Step::Compare { segment, compared } => {
            let compared = rebuild.compare_segment(segment, compared, is_time_left);
            compared.await.map(Report::ComparedPart)
        }
        Step::Total { compared } => Ok(Report::Compared(Comparison::new(compared))),
        Step::Promote => rebuild.promote().await.map(|live| Report::Live { live }),
        Step::Cancel => rebuild.cancel().await.map(|live| Report::Live { live }),
        Step::Prune => rebuild.prune(is_time_left).await.map(Report::Pruned),
    };
    Ok(report?)
}

/// No page starts after this time. A page takes a fraction of the remaining half.
fn working_time(time_budget: Duration) -> Duration {
    time_budget / 2
}
