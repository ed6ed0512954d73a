//! `cairn restore`: restores missing commits from a copy of the event table.

use cairn::Timestamp;
use cairn_aws::{
    dynamodb::{self, Restored},
    operator::Stack,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    failure::{Failure, Verdict},
    output::{Output, count},
};

/// Restore missing commits from a copy of the event table
///
/// The copy is a table that DynamoDB made from a backup. Each commit that the event table lacks is
/// put, and no stored commit changes. If the command is stopped, run it again to continue.
///
/// The restored events update the read models. They send no email, execute no saga step and open no
/// deadline. `cairn audit` reports unfinished processes as `unwatched`, and `cairn republish` opens
/// their deadlines.
///
/// A conflict is a commit of the copy that differs from the commit with the same stream and version
/// in the event table. Conflicts are listed, and the stored commits stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn restore --from restored-events --dry-run
  cairn restore --from restored-events
  cairn restore --from restored-events --since 2026-11-29T12:00:00Z --segments 32

Exit status: 0 success; 1 conflicts found; 2 usage error or system unreachable")]
pub(crate) struct Restore {
    /// Name of the copy
    #[arg(long, value_name = "TABLE")]
    from: String,
    /// Restore only commits at or after this time
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Restore only commits at or before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Number of parallel segments
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    segments: u32,
    /// Only compare the tables, and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    dry_run: bool,
    #[serde(flatten)]
    restored: Restored,
}

impl Restore {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let store = stack.app().event_store()?;
        let mut restore = dynamodb::Restore::new(store, self.from.clone());
        restore = restore.between(self.since, self.until);
        if self.dry_run {
            restore = restore.dry_run();
        }
        let commits = restore.estimate().await.map_err(|error| {
            let from = &self.from;
            Failure::refused(format!(
                "restore failed: cannot read the table {from}: {error}"
            ))
        })?;
        let bar = bar(commits);
        let show = |so_far: &Restored| bar.set_position(so_far.read);
        let restored = restore.run(self.segments, show).await;
        bar.finish_and_clear();
        let restored = restored?;
        let verdict = Verdict::unless(restored.conflicts > 0);
        if out.is_json {
            let dry_run = self.dry_run;
            out.document(&Done { dry_run, restored })?;
        } else {
            self.print(&restored, out)?;
        }
        Ok(verdict)
    }

    fn print(&self, restored: &Restored, out: &mut Output) -> Result<(), Failure> {
        for commit in &restored.conflicting {
            out.line(&format!("{commit}: the event table has another history"))?;
        }
        let unnamed = restored.conflicts - restored.conflicting.len() as u64;
        if unnamed > 0 {
            out.line(&format!("... and {unnamed} more"))?;
        }
        let missing = if self.dry_run { "missing" } else { "restored" };
        out.line(&format!(
            "{} read: {} {missing}, {} present, {} in conflict",
            count(restored.read, "commit"),
            restored.missing,
            restored.present,
            restored.conflicts
        ))
    }
}

/// A progress bar on stderr. DynamoDB counts the items of a new copy later, so the number can be 0.
fn bar(commits: u64) -> ProgressBar {
    let (bar, template) = match commits {
        0 => (
            ProgressBar::no_length(),
            "Restoring {pos} commits, {per_sec}, {elapsed}",
        ),
        commits => (
            ProgressBar::new(commits),
            "Restoring {bar:32} {pos}/{len} commits, {per_sec}, about {eta} left",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
