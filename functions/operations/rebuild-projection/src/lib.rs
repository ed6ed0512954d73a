//! Rebuilds a read model, step by step, while the system runs.
//!
//! The steps are: start, backfill every segment, compare every segment, total, promote, prune.
//! Backfill, compare and prune are repeated until they are complete. Every step can be repeated.

use std::{sync::Arc, time::Duration};

use cairn::generation::{Generation, GenerationSet};
use cairn_aws::{
    dynamodb::{
        BackfillProgress, Comparison, ComparisonProgress, Counters, Projection, Pruned, Rebuild,
        Rows, Started,
    },
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        operation::{self, Task},
    },
};
use orders::read_models::{orders::Orders, products::Products, sales::Sales, stock::StockLevels};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let store = app.event_store()?;
    let rebuilds = Arc::new(Rebuilds {
        orders: Rebuild::new(store.clone(), app.rows("ORDERS_TABLE")?),
        stock: Rebuild::new(store.clone(), app.rows("STOCK_TABLE")?),
        products: Rebuild::new(store.clone(), app.rows("PRODUCTS_TABLE")?),
        sales: Rebuild::new(store, app.counters("SALES_TABLE")?),
    });
    Ok(operation::function(app, move |request, task| {
        let rebuilds = rebuilds.clone();
        async move { rebuilds.step(request, &task).await }
    }))
}

struct Rebuilds {
    orders: Rebuild<Rows<Orders>>,
    stock: Rebuild<Rows<StockLevels>>,
    products: Rebuild<Rows<Products>>,
    sales: Rebuild<Counters<Sales>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    expecting = r#"{"projection": NAME, "step": STEP}; NAME is orders, stock, products or sales; STEP is start, backfill, progress, compare, total, promote, cancel or prune"#
)]
struct Request {
    projection: Name,
    #[serde(flatten)]
    step: Step,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    Orders,
    Stock,
    Products,
    Sales,
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
    /// Compares the new rows with the live ones: all of them in one invocation, or one segment
    /// within the time budget.
    Compare {
        /// The segment, from 0.
        segment: Option<u32>,
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

impl Rebuilds {
    async fn step(&self, request: Request, task: &Task) -> Result<Report, FunctionError> {
        tracing::info!(projection = ?request.projection, step = ?request.step, "rebuild step started");
        match request.projection {
            Name::Orders => step(&self.orders, request.step, task).await,
            Name::Stock => step(&self.stock, request.step, task).await,
            Name::Products => step(&self.products, request.step, task).await,
            Name::Sales => step(&self.sales, request.step, task).await,
        }
    }
}

async fn step<P: Projection>(
    rebuild: &Rebuild<P>,
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
        Step::Compare { segment: None, .. } => rebuild.compare().await.map(Report::Compared),
        Step::Compare {
            segment: Some(segment),
            compared,
        } => {
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
