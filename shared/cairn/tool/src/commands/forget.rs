//! `cairn forget`: erases the personal data of a subject.

use std::io::{self, IsTerminal, Write};

use cairn_aws::{dynamodb::Erasure, operator::Stack};
use clap::{Args, Command};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::change_arg;
use crate::{
    failure::{Failure, Verdict},
    output::Output,
    tool::{Subject, Tool},
};

/// Erase a {subject}'s personal data
///
/// {effect} The key can be restored from the table's backup for one day.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn forget {example subject}
  cairn forget {example subject} --yes --json

Exit status: 0 success; 1 unknown {subject}; 2 usage error or system unreachable")]
pub(crate) struct Forget {
    /// ID of the {subject}
    subject: String,
    /// Skip the confirmation prompt
    #[arg(long)]
    yes: bool,
}

/// The time of an erasure.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    Now,
    Before,
    Unknown,
}

#[derive(Debug, Deserialize, Serialize)]
struct Report {
    #[serde(flatten)]
    request: Map<String, Value>,
    forgotten: When,
    erasures: Vec<Erasure>,
}

impl Forget {
    /// Accepts the ids of the subjects. The command is hidden if there are none.
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        let Some(Subject { name, parse, .. }) = tool.subject else {
            return command.hide(true);
        };
        change_arg(command, "subject", |argument| {
            argument.value_name(name.to_uppercase()).value_parser(parse)
        })
    }

    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let Subject { name, function, .. } = tool
            .subject
            .ok_or_else(|| Failure::refused("the system has no subjects of personal data"))?;
        let subject = self.subject.as_str();
        if !self.yes && !is_meant(subject, &stack.name)? {
            return Err(Failure::refused("cancelled; no data was erased"));
        }
        let request = json!({ (name): subject });
        let report: Report = stack.operate(function, request).await?;
        if out.is_json {
            out.document(&report)?;
        } else {
            out.line(&match report.forgotten {
                When::Now => format!("{subject}: personal data erased"),
                When::Before => format!("{subject}: already erased"),
                When::Unknown => format!("{subject}: unknown {name}"),
            })?;
        }
        Ok(Verdict::unless(matches!(report.forgotten, When::Unknown)))
    }
}

fn is_meant(subject: &str, stack: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let problem = "no terminal for confirmation; use --yes";
        return Err(Failure::refused(problem));
    }
    let mut asked = io::stderr().lock();
    write!(
        asked,
        "This permanently erases the personal data of {subject} in the stack {stack}. Continue? [y/N] "
    )?;
    asked.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
