//! `cairn sagas` and `cairn saga`: lists unfinished sagas, and resumes or abandons a stuck one.

use std::collections::BTreeMap;

use cairn::{
    Timestamp,
    deadlines::{Deadline, StoredDeadline},
    saga::{Action, NextAction, OpenSaga, Phase},
};
use cairn_aws::{dynamodb::Repository, operator::Stack};
use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use orders::{
    fulfilment::{Fulfilment, Saga, State},
    values::OrderId,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Verdict},
    output::{Output, duration},
};

/// The number of fulfilments that are read concurrently.
const AT_ONCE: usize = 16;

const WATCH: &str = "WatchFulfilmentsFunction";

/// List unfinished sagas
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn sagas
  cairn sagas --stuck
  cairn sagas --json | jq -r '.sagas[] | select(.retries > 1) | .order'

Exit status: 0 no stuck saga; 1 a saga is stuck; 2 usage error or system unreachable")]
pub(crate) struct Sagas {
    /// Only stuck sagas
    #[arg(long)]
    stuck: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    order: OrderId,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    retries: u32,
    /// The time of the last event of the saga; before its start, of the order.
    since: Timestamp,
    next: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Sagas {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let app = stack.app();
        let deadlines = app.deadlines("DEADLINES_TABLE")?;
        let sagas = app.repository()?;
        let step_timeout = app.seconds("STEP_TIMEOUT_SECONDS")?;
        // A cancelled order has a deadline, and its fulfilment has another.
        let mut rows = BTreeMap::<OrderId, Deadline>::new();
        let mut after = None;
        loop {
            let (page, next) = deadlines.all(after.as_ref()).await?;
            for StoredDeadline { deadline, .. } in page {
                let order = OrderId::from_stream(&deadline.stream).map_err(Failure::found)?;
                let row = rows.entry(order).or_insert_with(|| deadline.clone());
                row.at = row.at.min(deadline.at);
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        let now = Timestamp::now();
        let open = stream::iter(rows)
            .map(|(order, deadline)| {
                let sagas = &sagas;
                async move { look(order, &deadline, sagas, now, step_timeout).await }
            })
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>();
        let mut open: Vec<Open> = open.await?.into_iter().flatten().collect();
        let is_stuck = |open: &Open| open.phase == STUCK;
        let verdict = Verdict::unless(open.iter().any(is_stuck));
        open.retain(|open| !self.stuck || is_stuck(open));
        open.sort_by_key(|open| open.since);
        if out.is_json {
            out.document(&json!({ "sagas": open }))?;
            return Ok(verdict);
        }
        if open.is_empty() {
            out.line(if self.stuck {
                "No fulfilment is stuck."
            } else {
                "Every fulfilment has ended."
            })?;
            return Ok(verdict);
        }
        let rows: Vec<_> = open.iter().map(|open| open.row(now)).collect();
        out.table(
            [
                "ORDER", "PHASE", "STEP", "IDLE", "RETRIES", "NEXT", "REASON",
            ],
            &rows,
        )?;
        Ok(verdict)
    }
}

const STUCK: &str = "stuck";

/// Returns an unfinished fulfilment; `None` if it has ended and only its deadline is left.
async fn look(
    order_id: OrderId,
    deadline: &Deadline,
    sagas: &Repository<Saga>,
    now: Timestamp,
    step_timeout: std::time::Duration,
) -> Result<Option<Open>, Failure> {
    let open = OpenSaga::<Fulfilment>::load(sagas, &deadline.stream).await?;
    let next = match open.next_action(deadline.at, now, step_timeout) {
        NextAction::Start(_) => "start".to_owned(),
        NextAction::Compensate => "compensate".to_owned(),
        NextAction::Retry(..) => "retry".to_owned(),
        NextAction::Wait(until) => format!("wait until {until}"),
        NextAction::Operator => "operator".to_owned(),
        NextAction::None => return Ok(None),
    };
    let OpenSaga { saga, trigger } = &open;
    let (phase, step, failure) = phase(&saga.state);
    Ok(Some(Open {
        order: order_id,
        phase,
        step,
        action: saga.state.due().map(|due| due.action),
        retries: saga.state.retries,
        since: saga.at().or(trigger.at).unwrap_or(deadline.at),
        next,
        reason: failure.or(saga.state.reason.as_deref()).map(str::to_owned),
    }))
}

/// Returns the phase of a saga, its current step, and the reason for which it is stuck.
fn phase(state: &State) -> (&'static str, Option<&'static str>, Option<&str>) {
    match &state.phase {
        Phase::NotStarted => ("not started", None, None),
        Phase::Forward { due, .. } if state.reason.is_none() => ("running", Some(due.name()), None),
        Phase::Forward { due, .. } => ("cancel-pending", Some(due.name()), None),
        Phase::Backward { due, .. } => ("compensating", Some(due.name()), None),
        Phase::Stuck { step, failure, .. } => (STUCK, Some(step.name()), Some(failure)),
        Phase::Completed { .. } => ("completed", None, None),
        Phase::Aborted => ("aborted", None, None),
    }
}

impl Open {
    fn row(&self, now: Timestamp) -> [String; 7] {
        [
            self.order.to_string(),
            self.phase.to_owned(),
            self.step.unwrap_or_default().to_owned(),
            duration(now.as_millis() - self.since.as_millis()),
            self.retries.to_string(),
            self.next.clone(),
            self.reason.clone().unwrap_or_default(),
        ]
    }
}

/// Resume or abandon a stuck saga
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn saga resume 2d6944f5-e237-4a33-9c67-ba4a44120b1b
  cairn saga abandon 2d6944f5-e237-4a33-9c67-ba4a44120b1b --reason 'refunded by hand'")]
pub(crate) struct OneSaga {
    #[command(subcommand)]
    help: Help,
}

#[derive(Debug, Subcommand)]
enum Help {
    /// Retry the failed compensation of a stuck saga
    #[command(after_help = "\
Examples:
  cairn saga resume 2d6944f5-e237-4a33-9c67-ba4a44120b1b

Exit status: 0 success; 1 the saga is not stuck; 2 usage error or system unreachable")]
    Resume {
        /// Order ID
        order: OrderId,
    },
    /// Skip the failed compensation, which was settled by hand, and compensate the rest
    #[command(after_help = "\
Examples:
  cairn saga abandon 2d6944f5-e237-4a33-9c67-ba4a44120b1b --reason 'refunded by hand'

Exit status: 0 success; 1 the saga is not stuck; 2 usage error or system unreachable")]
    Abandon {
        /// Order ID
        order: OrderId,
        /// Description of the manual settlement; becomes part of the order's history
        #[arg(long)]
        reason: String,
    },
}

impl OneSaga {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let (request, did, said) = match &self.help {
            Help::Resume { order } => (
                json!({ "resume": order }),
                json!({ "order": order, "did": "resume" }),
                format!("{order}: retrying the compensation"),
            ),
            Help::Abandon { order, reason } => (
                json!({ "abandon": order, "reason": reason }),
                json!({ "order": order, "did": "abandon" }),
                format!("{order}: step abandoned; compensating the rest"),
            ),
        };
        let _: Value = stack.operate(WATCH, request).await?;
        if out.is_json {
            out.document(&did)?;
        } else {
            out.line(&said)?;
        }
        Ok(Verdict::Well)
    }
}
