//! `cairn audit`: checks the consistency of what is stored.

use std::time::Duration;

use cairn::{
    Timestamp,
    audit::{Limits, Report},
    dynamodb,
    operator::Stack,
};
use clap::{Args, builder::PossibleValuesParser};
use orders::{
    deadlines::Fulfilments,
    read_models::{orders::Orders, products::Products, sales::Sales, stock::StockLevels},
};

use crate::{
    failure::{Failure, Verdict},
    output::Output,
};

/// Check the consistency of streams, read models, publication and deadlines
///
/// The audit finds gaps in versions, unpublished commits, rows that differ from their events, and
/// overdue deadlines. It reads everything and changes nothing, while the system runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn audit
  cairn audit --projection orders     only the rows of one read model
  cairn audit --settle 0              no grace period: use when the system is idle
  cairn audit --json | jq -r '.findings[] | select(.kind == \"row-differs\") | .key'

Exit status: 0 nothing found; 1 findings; 2 usage error or system unreachable")]
pub(crate) struct Audit {
    /// Compare only the rows of this read model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(["orders", "stock", "sales"]))]
    projection: Option<String>,
    /// Ignore commits younger than SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().settle.as_secs())]
    settle: u64,
    /// Report deadlines overdue by more than SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().overdue.as_secs())]
    overdue: u64,
}

impl Audit {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let limits = Limits {
            settle: Duration::from_secs(self.settle),
            overdue: Duration::from_secs(self.overdue),
        };
        let report = report(stack, limits, self.projection.as_deref()).await?;
        if out.is_json {
            out.document(&report)?;
        } else {
            print(&report, out)?;
        }
        Ok(Verdict::unless(report.found > 0))
    }
}

/// Audits the stack, or the rows of one read model.
pub(crate) async fn report(
    stack: &Stack,
    limits: Limits,
    projection: Option<&str>,
) -> Result<Report, Failure> {
    let app = stack.app();
    let (store, deadlines) = (app.event_store()?, app.deadlines("DEADLINES_TABLE")?);
    let audit = dynamodb::Audit::new(store, deadlines, Timestamp::now())
        .within(limits)
        .with(app.rows::<Orders>("ORDERS_TABLE")?)
        .with(app.rows::<StockLevels>("STOCK_TABLE")?)
        .with(app.rows::<Products>("PRODUCTS_TABLE")?)
        .with(app.counters::<Sales>("SALES_TABLE")?);
    let report = audit.run::<Fulfilments>(projection).await;
    report.map_err(Failure::refused)
}

fn print(report: &Report, out: &mut Output) -> Result<(), Failure> {
    for finding in &report.findings {
        out.line(&finding.to_string())?;
    }
    let unnamed = report.found - report.findings.len() as u64;
    if unnamed > 0 {
        out.line(&format!("... and {unnamed} more"))?;
    }
    if report.found > 0 {
        out.line("")?;
    }
    out.line(&format!(
        "{} streams with {} commits of {} events",
        report.streams, report.commits, report.events
    ))?;
    if report.streams_without_gate > 0 {
        out.line(&format!(
            "{} streams have no read model; their publication cannot be checked",
            report.streams_without_gate
        ))?;
    }
    for (name, rows) in &report.rows {
        let skipped = match rows.skipped {
            0 => String::new(),
            skipped => {
                format!(", {skipped} skipped (changed during the audit, or incomplete events)")
            }
        };
        out.line(&format!("{name}: {} rows compared{skipped}", rows.compared))?;
    }
    out.line(&format!(
        "sagas: {} running, {} stuck",
        report.open, report.stuck
    ))?;
    out.line(&match report.found {
        0 => "Nothing is wrong.".to_owned(),
        1 => "1 finding".to_owned(),
        found => format!("{found} findings"),
    })
}
