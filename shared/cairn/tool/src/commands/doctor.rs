//! `cairn doctor`: checks a deployed stack against its own template.

use std::fmt::Display;

use cairn::{
    Timestamp,
    audit::{Limits, Scope},
};
use cairn_aws::operator::{
    Stack,
    doctor::{self, Examined, Part},
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::{audit, dead_letters};
use crate::{
    failure::{Failure, Verdict},
    output::{Output, count, duration},
    tool::Tool,
};

/// The maximum number of lines for one check.
const LINES: usize = 10;

/// Check a deployed stack
///
/// Compares each function, event source mapping, rule and alarm with the template and the
/// parameters that CloudFormation deployed, requests each route of the API without a token, reads
/// the dead letters, and audits the data. It changes nothing. Run it after every deployment.
///
/// The check of the routes of a public API sends invalid requests, which the functions refuse. The
/// routes of REST and WebSocket APIs are reported as not checked. A check without a resource, such as
/// that of alarms in the local system, has the result `none`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn doctor
  cairn doctor --skip audit           for large tables: the audit reads all of them
  cairn doctor --json | jq '.checks[] | select(.outcome != \"ok\" and .outcome != \"none\")'

Exit status: 0 nothing is wrong; 1 something is wrong; 2 nothing is wrong, but a check was not possible, usage error or system unreachable")]
pub(crate) struct Doctor {
    /// Leave out a check; can be repeated
    #[arg(long, value_name = "CHECK")]
    skip: Vec<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Check {
    /// Configuration of the functions
    Functions,
    /// Responses of the API without a token
    Routes,
    /// Event source mappings
    Mappings,
    /// EventBridge rules and their targets
    Rules,
    /// Alarms
    Alarms,
    /// Queues of dead letters
    DeadLetters,
    /// Consistency of the data, see `cairn audit`
    Audit,
}

impl Check {
    /// A resource that is checked.
    fn subject(self) -> &'static str {
        match self {
            Self::Functions => "function",
            Self::Routes => "route",
            Self::Mappings => "event source mapping",
            Self::Rules => "rule",
            Self::Alarms => "alarm",
            Self::DeadLetters => "queue",
            Self::Audit => "stream",
        }
    }

    /// The action of an operator on a problem.
    fn next(self, tool: &Tool) -> String {
        let next = match self {
            Self::Functions => {
                let deployment = tool.deployment;
                return format!("deploy with {deployment}, which makes a version of each function");
            }
            Self::Routes => "read the events of the stack, check JwtIssuer, and deploy again",
            Self::Mappings => {
                "enable a disabled one: aws lambda update-event-source-mapping --enabled --uuid UUID"
            }
            Self::Rules => {
                "enable a disabled one: aws events enable-rule --name RULE --event-bus-name BUS"
            }
            Self::Alarms => {
                let runbook = tool.runbook;
                return format!("follow {runbook}, or deploy a missing alarm again");
            }
            Self::DeadLetters => "list them: cairn dead-letters list",
            Self::Audit => "list the findings: cairn audit",
        };
        next.to_owned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Ok,
    /// The stack has no resource that the check examines.
    None,
    Wrong,
    NotChecked,
}

impl Outcome {
    fn of(examined: &Examined) -> Self {
        if !examined.wrong.is_empty() {
            Self::Wrong
        } else if !examined.not_checked.is_empty() {
            Self::NotChecked
        } else if examined.examined == 0 {
            Self::None
        } else {
            Self::Ok
        }
    }
}

#[derive(Debug, Serialize)]
struct Checked {
    check: Check,
    outcome: Outcome,
    #[serde(flatten)]
    examined: Examined,
}

impl Doctor {
    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let doctor = stack.doctor().await;
        let mut checks = vec![];
        for check in Check::value_variants() {
            if self.skip.contains(check) {
                continue;
            }
            let examined = examine(*check, tool, stack, doctor.as_ref()).await;
            let checked = Checked {
                check: *check,
                outcome: Outcome::of(&examined),
                examined,
            };
            if !out.is_json {
                print(&checked, tool, out)?;
            }
            checks.push(checked);
        }
        let with = |outcome| checks.iter().filter(|it| it.outcome == outcome).count();
        let (ok, wrong) = (with(Outcome::Ok), with(Outcome::Wrong));
        let (none, not_checked) = (with(Outcome::None), with(Outcome::NotChecked));
        if out.is_json {
            out.document(&json!({
                "stack": stack.name, "checks": checks,
                "ok": ok, "none": none, "wrong": wrong, "notChecked": not_checked,
            }))?;
        } else {
            out.line(&format!(
                "\n{}: {ok} ok, {none} none, {wrong} wrong, {not_checked} not checked",
                stack.name
            ))?;
        }
        Ok(match (wrong, not_checked) {
            (0, 0) => Verdict::Well,
            (0, _) => Verdict::Unknown,
            _ => Verdict::Wrong,
        })
    }
}

async fn examine(
    check: Check,
    tool: &Tool,
    stack: &Stack,
    doctor: Result<&doctor::Doctor<'_>, &doctor::QueryError>,
) -> Examined {
    let part = match check {
        Check::Functions => Part::Functions,
        Check::Routes => Part::Routes,
        Check::Mappings => Part::Mappings,
        Check::Rules => Part::Rules,
        Check::Alarms => Part::Alarms,
        Check::DeadLetters => {
            return examine_queues(stack)
                .await
                .unwrap_or_else(|it| not_checked(&it));
        }
        Check::Audit => {
            return examine_data(tool, stack)
                .await
                .unwrap_or_else(|it| not_checked(&it));
        }
    };
    match doctor {
        Ok(doctor) => doctor.examine(part).await,
        Err(error) => not_checked(error),
    }
}

fn not_checked(reason: &impl Display) -> Examined {
    Examined {
        not_checked: vec![reason.to_string()],
        ..Examined::default()
    }
}

async fn examine_queues(stack: &Stack) -> Result<Examined, Failure> {
    let messages = dead_letters::messages(stack).await?;
    let mut wrong = vec![];
    for queue in dead_letters::queues() {
        let in_queue = messages.iter().filter(|(name, _)| *name == queue);
        let number = in_queue.clone().count();
        let oldest = in_queue.filter_map(|(_, message)| message.sent).min();
        if number > 0 {
            let age = oldest.map(|at| Timestamp::now().as_millis() - at.as_millis());
            let age = age.map_or("unknown".to_owned(), duration);
            let messages = count(number, "message");
            wrong.push(format!("{queue}: {messages}, age of the oldest: {age}"));
        }
    }
    Ok(Examined {
        examined: dead_letters::queues().count(),
        wrong,
        not_checked: vec![],
    })
}

async fn examine_data(tool: &Tool, stack: &Stack) -> Result<Examined, Failure> {
    let report = audit::report(
        tool,
        stack,
        Limits::default(),
        Scope::Part(cairn::audit::Part::WHOLE),
        None,
    )
    .await?;
    let examined = usize::try_from(report.streams).unwrap_or(usize::MAX);
    Ok(Examined {
        examined,
        wrong: report.findings.iter().map(ToString::to_string).collect(),
        not_checked: vec![],
    })
}

fn print(checked: &Checked, tool: &Tool, out: &mut Output) -> Result<(), Failure> {
    let Checked {
        check,
        outcome,
        examined,
    } = checked;
    let name = check.to_possible_value();
    let name = name
        .as_ref()
        .map(clap::builder::PossibleValue::get_name)
        .unwrap_or_default();
    let mut line =
        |outcome: &str, text: &str| out.line(&format!("{outcome:<11}  {name:<12}  {text}"));
    match outcome {
        Outcome::Ok => return line("ok", &count(examined.examined, check.subject())),
        Outcome::None => return line("none", &format!("the stack has no {}", check.subject())),
        Outcome::Wrong | Outcome::NotChecked => {}
    }
    for problem in examined.wrong.iter().take(LINES) {
        line("wrong", &format!("{problem}. Next: {}", check.next(tool)))?;
    }
    for reason in examined.not_checked.iter().take(LINES) {
        line("not checked", reason)?;
    }
    for (outcome, all) in [
        ("wrong", &examined.wrong),
        ("not checked", &examined.not_checked),
    ] {
        if all.len() > LINES {
            line(
                outcome,
                &format!("... and {} more: see --json", all.len() - LINES),
            )?;
        }
    }
    Ok(())
}
