//! `cairn sagas` and `cairn saga`: lists unfinished sagas, and resumes or abandons a stuck one.

use std::collections::BTreeMap;

use cairn::{
    Timestamp,
    deadlines::{Deadline, StoredDeadline},
};
use cairn_aws::operator::Stack;
use clap::{Args, Command, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};

use super::change_arg;
use crate::{
    failure::{Failure, Verdict},
    output::{Output, duration},
    tool::{self, Tool, UnfinishedSaga},
};

/// The number of sagas that are read concurrently.
const AT_ONCE: usize = 16;

/// List unfinished sagas
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn sagas
  cairn sagas --stuck
  cairn sagas --json | jq -r '.sagas[] | select(.retries > 1) | .{id}'

Exit status: 0 no stuck saga; 1 a saga is stuck; 2 usage error or system unreachable")]
pub(crate) struct Sagas {
    /// Only stuck sagas
    #[arg(long)]
    stuck: bool,
}

/// An unfinished saga with its key, under the word for it.
#[derive(Debug, Serialize)]
struct Unfinished {
    #[serde(flatten)]
    key: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    saga: UnfinishedSaga,
}

impl Sagas {
    /// Hides the command if the system has no saga.
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        command.hide(tool.sagas.is_none())
    }

    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let sagas = sagas(tool)?;
        let now = Timestamp::now();
        let unfinished = stream::iter(deadlines(stack).await?)
            .map(|(key, deadline)| async move {
                let saga = (sagas.load)(stack.app(), &deadline, now).await;
                let saga = saga.map_err(Failure::found)?;
                Ok::<_, Failure>(saga.map(|saga| Unfinished {
                    key: BTreeMap::from([(tool.id_name(), key)]),
                    saga,
                }))
            })
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>();
        let mut unfinished: Vec<_> = unfinished.await?.into_iter().flatten().collect();
        let is_stuck = |it: &Unfinished| it.saga.phase == UnfinishedSaga::STUCK;
        let verdict = Verdict::unless(unfinished.iter().any(is_stuck));
        unfinished.retain(|it| !self.stuck || is_stuck(it));
        unfinished.sort_by_key(|it| it.saga.since);
        if out.is_json {
            out.document(&json!({ "sagas": unfinished }))?;
            return Ok(verdict);
        }
        if unfinished.is_empty() {
            let category = sagas.category;
            out.line(&if self.stuck {
                format!("No {category} is stuck.")
            } else {
                format!("Every {category} has ended.")
            })?;
            return Ok(verdict);
        }
        let rows: Vec<_> = unfinished.iter().map(|it| it.row(now)).collect();
        let key = tool.id_name().to_uppercase();
        let heads = [&key, "PHASE", "STEP", "IDLE", "RETRIES", "NEXT", "REASON"];
        out.table(heads, &rows)?;
        Ok(verdict)
    }
}

fn sagas(tool: &Tool) -> Result<tool::Sagas, Failure> {
    let sagas = tool.sagas;
    sagas.ok_or_else(|| Failure::refused("the system has no saga"))
}

/// Returns the earliest deadline for each key. A saga and its cancellation have one each.
async fn deadlines(stack: &Stack) -> Result<BTreeMap<String, Deadline>, Failure> {
    let deadlines = stack.app().deadlines("DEADLINES_TABLE")?;
    let mut earliest = BTreeMap::<String, Deadline>::new();
    let mut after = None;
    loop {
        let (page, next) = deadlines.all(after.as_ref()).await?;
        for StoredDeadline { deadline, .. } in page {
            let key = deadline.stream.key().to_owned();
            let row = earliest.entry(key).or_insert_with(|| deadline.clone());
            row.at = row.at.min(deadline.at);
        }
        after = next;
        if after.is_none() {
            return Ok(earliest);
        }
    }
}

impl Unfinished {
    fn row(&self, now: Timestamp) -> [String; 7] {
        let saga = &self.saga;
        [
            self.key.values().cloned().collect(),
            saga.phase.to_owned(),
            saga.step.clone().unwrap_or_default(),
            duration(now.as_millis() - saga.since.as_millis()),
            saga.retries.to_string(),
            saga.next.clone(),
            saga.reason.clone().unwrap_or_default(),
        ]
    }
}

/// Resume or abandon a stuck saga
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn saga resume {example id}
  cairn saga abandon {example id} --reason 'refunded by hand'")]
pub(crate) struct OneSaga {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Retry the failed compensation of a stuck saga
    #[command(after_help = "\
Examples:
  cairn saga resume {example id}

Exit status: 0 success; 1 the saga is not stuck; 2 usage error or system unreachable")]
    Resume {
        /// ID of the {id}
        key: String,
    },
    /// Skip the failed compensation, which was settled by hand, and compensate the rest
    #[command(after_help = "\
Examples:
  cairn saga abandon {example id} --reason 'refunded by hand'

Exit status: 0 success; 1 the saga is not stuck; 2 usage error or system unreachable")]
    Abandon {
        /// ID of the {id}
        key: String,
        /// Description of the manual settlement; becomes part of the {id}'s history
        #[arg(long)]
        reason: String,
    },
}

impl OneSaga {
    /// Accepts the ids of sagas. The command is hidden if the system has no saga.
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        let name = tool.id_name().to_uppercase();
        let ids = tool.ids;
        command
            .hide(tool.sagas.is_none())
            .mut_subcommands(move |command| {
                change_arg(command, "key", |argument| {
                    argument
                        .value_name(name.clone())
                        .value_parser(move |text: &str| {
                            ids.map_or(Ok(vec![]), |ids| (ids.streams)(text))
                                .map(|_| text.to_owned())
                        })
                })
            })
    }

    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let name = tool.id_name();
        let (request, done, line) = match &self.action {
            Action::Resume { key } => (
                json!({ "resume": key }),
                json!({ (name): key, "did": "resume" }),
                format!("{key}: retrying the compensation"),
            ),
            Action::Abandon { key, reason } => (
                json!({ "abandon": key, "reason": reason }),
                json!({ (name): key, "did": "abandon" }),
                format!("{key}: step abandoned; compensating the rest"),
            ),
        };
        let _: Value = stack.operate(sagas(tool)?.watchdog, request).await?;
        if out.is_json {
            out.document(&done)?;
        } else {
            out.line(&line)?;
        }
        Ok(Verdict::Well)
    }
}
