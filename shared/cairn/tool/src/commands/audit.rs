//! `cairn audit`: checks the consistency of what is stored.

use std::{path::PathBuf, time::Duration};

use cairn::{
    Timestamp,
    audit::{Limits, Part, Report, Scope},
};
use cairn_aws::{dynamodb::MarkError, operator::Stack};
use clap::{Args, Command, builder::PossibleValuesParser};

use super::change_arg;
use crate::{
    failure::{Failure, Verdict},
    output::{Output, count},
    tool::Tool,
};

mod export;

/// Check the consistency of streams, read models, publication and deadlines
///
/// The audit finds gaps in versions, missing parts of appends, unpublished commits, rows that
/// differ from their events, and overdue deadlines, while the system runs. It reads everything and
/// changes nothing, except for the mark of `--mark`. It costs about one read request unit (RRU) per
/// event. In a large system, audit the changes of each day with `--export`, and the other streams
/// in parts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn audit
  cairn audit --projection {read model}     only the rows of one read model
  cairn audit --settle 0              no grace period: use when the system is idle
  cairn audit --part 7/30             one of 30 parts of all streams and rows
  cairn audit --export export/01764460800000-1a2b3c4d --mark
  cairn audit --json | jq -r '.findings[] | select(.kind == \"row-differs\") | .key'

Exit status: 0 nothing found; 1 findings; 2 usage error or system unreachable")]
pub(crate) struct Audit {
    /// Compare only the rows of this read model
    #[arg(long, value_name = "NAME")]
    projection: Option<String>,
    /// Audit one of N parts, from 1/N to N/N, without counters
    #[arg(long, value_name = "K/N", default_value_t = Part::WHOLE)]
    part: Part,
    /// Audit the streams in these incremental exports of the event table, without counters
    ///
    /// The folder has the manifests of an export in the format `DYNAMODB_JSON`; its data files are
    /// decompressed. The windows of several exports must follow each other without a gap.
    #[arg(long, value_name = "FOLDER", num_args = 1.., conflicts_with = "part")]
    export: Vec<PathBuf>,
    /// Record a result without findings: the mark shows until when all changes were audited
    ///
    /// An audit of everything creates the mark. An audit of exports moves the mark from within
    /// their window to the end of the window.
    #[arg(long, conflicts_with_all = ["part", "projection"])]
    mark: bool,
    /// Ignore commits younger than SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().settle.as_secs())]
    settle: u64,
    /// Report deadlines overdue by more than SECONDS
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().overdue.as_secs())]
    overdue: u64,
}

impl Audit {
    /// Accepts the read models of the system.
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        let read_models = PossibleValuesParser::new(tool.read_models());
        change_arg(command, "projection", |argument| {
            argument.value_parser(read_models.clone())
        })
    }

    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let limits = Limits {
            settle: Duration::from_secs(self.settle),
            overdue: Duration::from_secs(self.overdue),
        };
        let scope = if self.export.is_empty() {
            Scope::Part(self.part)
        } else {
            export::changed(&self.export, &stack.app().variable("EVENTS_TABLE")?)?
        };
        let report = report(tool, stack, limits, scope, self.projection.as_deref()).await?;
        if out.is_json {
            out.document(&report)?;
        } else {
            print(&report, out)?;
        }
        if self.mark && report.found == 0 {
            let moved = stack.app().audit_mark()?.advance(&report).await;
            let window = moved.map_err(|error| match error {
                MarkError::Table(error) => Failure::from(error),
                MarkError::NotClean | MarkError::Elsewhere(_) => Failure::found(error),
            })?;
            if !out.is_json {
                out.line(&format!("All changes before {} were audited.", window.to))?;
            }
        }
        Ok(Verdict::unless(report.found > 0))
    }
}

/// Audits the stack, or the rows of one read model.
pub(crate) async fn report(
    tool: &Tool,
    stack: &Stack,
    limits: Limits,
    scope: Scope,
    projection: Option<&str>,
) -> Result<Report, Failure> {
    let audit = stack.app().audit(&tool.system, Timestamp::now())?;
    let audit = audit.within(limits).examining(scope);
    let report = audit.run(projection).await;
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
        "{} with {} of {}",
        count(report.streams, "stream"),
        count(report.commits, "commit"),
        count(report.events, "event")
    ))?;
    if report.streams_without_gate > 0 {
        out.line(&format!(
            "publication not checked: {} without a read model",
            count(report.streams_without_gate, "stream")
        ))?;
    }
    for (name, rows) in &report.rows {
        let skipped = match rows.skipped {
            0 => String::new(),
            skipped => {
                format!(", {skipped} skipped (changed during the audit, or incomplete events)")
            }
        };
        let compared = count(rows.compared, "row");
        out.line(&format!("{name}: {compared} compared{skipped}"))?;
    }
    out.line(&format!(
        "sagas: {} running, {} stuck",
        report.open, report.stuck
    ))?;
    for omitted in &report.omitted {
        out.line(&format!("not audited: {omitted}"))?;
    }
    out.line(&match report.found {
        0 if report.omitted.is_empty() => "Nothing is wrong.".to_owned(),
        0 => "Nothing is wrong in the audited data.".to_owned(),
        found => count(found, "finding"),
    })
}
