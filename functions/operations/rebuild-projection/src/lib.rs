//! Rebuilds a read model while the system runs, step by step.
//!
//! Start; backfill each segment until it is done; compare each segment until it is done; total; promote; prune until it
//! is complete. Every step may be taken again.

use std::{sync::Arc, time::Duration};

use cairn::{
    dynamodb::{
        BackfillProgress, Comparison, ComparisonProgress, Counters, Projection, Pruned, Rebuild,
        Rows, Started,
    },
    generation::{Generation, GenerationSet},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        operation::{self, Task},
    },
};
use orders::read_models::{orders::Orders, products::Products, sales::Sales, stock::StockLevels};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
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

/// The read models.
struct Rebuilds {
    orders: Rebuild<Rows<Orders>>,
    stock: Rebuild<Rows<StockLevels>>,
    products: Rebuild<Rows<Products>>,
    sales: Rebuild<Counters<Sales>>,
}

/// One step of one rebuild.
#[derive(Debug, Deserialize)]
struct Request {
    /// Of which read model.
    projection: Name,
    /// Which step.
    #[serde(flatten)]
    step: Step,
}

/// A read model.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    /// A row per order.
    Orders,
    /// A row per SKU.
    Stock,
    /// A price per SKU.
    Products,
    /// Windows of sales.
    Sales,
}

/// The steps.
#[derive(Debug, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
enum Step {
    /// Start a rebuild, or resume the one that was started.
    Start {
        /// The number of segments of the history. They can be backfilled at the same time.
        #[serde(default = "segments")]
        segments: u32,
    },
    /// Backfill one segment, for as long as there is time.
    Backfill {
        /// The segment, from 0.
        segment: u32,
    },
    /// Report the progress of all segments.
    Progress,
    /// Compare the new rows with the live ones: all of them, or those of one segment for as long as there is time.
    Compare {
        /// The segment, from 0.
        segment: Option<u32>,
        /// The progress of its comparison.
        #[serde(default)]
        compared: ComparisonProgress,
    },
    /// Add up the comparisons of all segments.
    Total {
        /// Each of them.
        compared: Vec<ComparisonProgress>,
    },
    /// Promote the new rows.
    Promote,
    /// Cancel the rebuild.
    Cancel,
    /// Drop the rows of obsolete generations, for as long as there is time.
    Prune,
}

/// As many as DynamoDB has partitions in a table of some tens of gigabytes.
const fn segments() -> u32 {
    8
}

/// What a step came to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Report {
    Started(Started),
    Backfilled(BackfillProgress),
    Progress {
        /// The generations there are.
        generations: GenerationSet,
        /// The progress of each segment; none where nothing is being built.
        segments: Vec<BackfillProgress>,
    },
    ComparedPart(ComparisonProgress),
    Compared(Comparison),
    Live {
        /// The live generation.
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
    report.map_err(FunctionError::new)
}

/// The time after which no other page is begun: one page takes a fraction of the rest.
fn working_time(time_budget: Duration) -> Duration {
    time_budget / 2
}
