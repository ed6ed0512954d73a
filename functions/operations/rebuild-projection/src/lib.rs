//! Rebuilds a read model while the system runs, step by step.
//!
//! Begin; pour each segment until it is done; compare; flip; sweep until it is complete. Every step may be taken again.

use std::{sync::Arc, time::Duration};

use cairn::{
    dynamodb::{Comparison, Counters, Generations, Poured, Projection, Rebuild, Rows},
    generation::{Generation, Standing},
    lambda::{
        ConfigError, Environment, Function, FunctionError,
        operation::{self, Task},
    },
};
use orders::read_models::{orders::Orders, sales::Sales, stock::StockLevels};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The function. It needs `EVENTS_TABLE`, `ORDERS_TABLE`, `STOCK_TABLE`, `SALES_TABLE` and `READ_MODELS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let rebuilds = Arc::new(Rebuilds {
        orders: rebuild(environment, environment.rows("ORDERS_TABLE")?)?,
        stock: rebuild(environment, environment.rows("STOCK_TABLE")?)?,
        sales: rebuild(environment, environment.counters("SALES_TABLE")?)?,
    });
    Ok(operation::function(environment, move |request, task| {
        let rebuilds = rebuilds.clone();
        async move { rebuilds.step(request, &task).await }
    }))
}

fn rebuild<P: Projection>(
    environment: &Environment,
    generations: Generations<P>,
) -> Result<Rebuild<P>, ConfigError> {
    Ok(Rebuild::new(environment.event_store()?, generations))
}

/// The read models.
struct Rebuilds {
    orders: Rebuild<Rows<Orders>>,
    stock: Rebuild<Rows<StockLevels>>,
    sales: Rebuild<Counters<Sales>>,
}

/// One step of one rebuild.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Of which read model.
    pub projection: Name,
    /// Which step.
    #[serde(flatten)]
    pub step: Step,
}

/// A read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// A row per order.
    Orders,
    /// A row per SKU.
    Stock,
    /// Windows of sales.
    Sales,
}

/// The steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Begin, or go on with what was begun.
    Begin {
        /// Into how many parts history is divided. They can be poured at the same time.
        #[serde(default = "segments")]
        segments: u32,
    },
    /// Pour one part of history, for as long as there is time.
    Pour {
        /// Which part, from 0.
        segment: u32,
    },
    /// Say how far all parts are.
    Progress,
    /// Compare the new rows with those that are shown.
    Compare,
    /// Show the new rows.
    Flip,
    /// Give the rebuild up.
    Abandon,
    /// Drop the rows that are not shown any more, for as long as there is time.
    Sweep,
}

/// As many as DynamoDB has partitions in a table of some tens of gigabytes.
const fn segments() -> u32 {
    8
}

/// What a step came to.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// A rebuild is under way.
    Begun {
        /// The new generation.
        generation: Generation,
        /// The parts of history, from 0.
        segments: Vec<u32>,
    },
    /// How far a part of history is.
    Poured(Poured),
    /// Where the read model stands, and how far each part of history is.
    Progress {
        /// Its generations.
        standing: Standing,
        /// The parts; none where nothing is being built.
        segments: Vec<Poured>,
    },
    /// The new rows beside the old ones.
    Compared(Comparison),
    /// The generation that is shown now.
    Shown {
        /// It.
        live: Generation,
    },
    /// How much was dropped.
    Swept {
        /// So many rows.
        dropped: u64,
        /// Whether that was all.
        complete: bool,
    },
}

impl Rebuilds {
    async fn step(&self, request: Request, task: &Task) -> Result<Report, FunctionError> {
        tracing::info!(projection = ?request.projection, step = ?request.step, "rebuilding");
        match request.projection {
            Name::Orders => step(&self.orders, request.step, task).await,
            Name::Stock => step(&self.stock, request.step, task).await,
            Name::Sales => step(&self.sales, request.step, task).await,
        }
    }
}

async fn step<P: Projection>(
    rebuild: &Rebuild<P>,
    step: Step,
    task: &Task,
) -> Result<Report, FunctionError> {
    let until = Instant::now() + working_time(task.patience);
    let is_time_left = || Instant::now() < until;
    let report = match step {
        Step::Begin { segments } => {
            let begun = rebuild.begin(task.now, segments.max(1)).await;
            begun.map(|begun| Report::Begun {
                generation: begun.generation,
                segments: begun.segments,
            })
        }
        Step::Pour { segment } => {
            let poured = rebuild.pour(segment, |_| is_time_left()).await;
            poured.map(Report::Poured)
        }
        Step::Progress => {
            let progress = rebuild.progress().await;
            progress.map(|(standing, segments)| Report::Progress { standing, segments })
        }
        Step::Compare => rebuild.compare().await.map(Report::Compared),
        Step::Flip => rebuild.flip().await.map(|live| Report::Shown { live }),
        Step::Abandon => rebuild.abandon().await.map(|live| Report::Shown { live }),
        Step::Sweep => {
            let swept = rebuild.sweep(|_| is_time_left()).await;
            swept.map(|(dropped, complete)| Report::Swept { dropped, complete })
        }
    };
    report.map_err(FunctionError::new)
}

/// The time after which no other page is begun: one page takes a fraction of the rest.
fn working_time(patience: Duration) -> Duration {
    patience / 2
}
