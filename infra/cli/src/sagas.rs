//! `cairn sagas` and `cairn saga`: fulfilments that have not ended, and what people do about those that are stuck.

use std::collections::BTreeMap;

use cairn::{
    Timestamp,
    deadlines::{Deadline, StoredDeadline},
    dynamodb::Repository,
    operator::Stack,
    saga::{Action, State},
};
use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use orders::{
    deadlines::{NextAction, next_action},
    fulfilment::{Fulfilment, Saga},
    order::Order,
    values::OrderId,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Verdict},
    output::{Output, duration},
};

/// How many fulfilments are read at once.
const AT_ONCE: usize = 16;

/// The function that looks after them.
const WATCH: &str = "WatchFulfilmentsFunction";

/// Lists the fulfilments that have not ended: where each is, since when, and what it waits for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn sagas
  cairn sagas --stuck
  cairn sagas --json | jq -r '.sagas[] | select(.retries > 1) | .order'

Status: 0, or 1 if any is stuck, or 2 if it was called wrongly or the system cannot be reached.")]
pub(crate) struct Sagas {
    /// Only those that wait for people.
    #[arg(long)]
    stuck: bool,
}

/// A fulfilment that has not ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    order: OrderId,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    /// How often the step was asked for again.
    retries: u32,
    /// When the saga last moved; where it has not begun, when the order did.
    since: Timestamp,
    next: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Sagas {
    pub(crate) async fn run(&self, stack: &Stack, out: &mut Output) -> Result<Verdict, Failure> {
        let app = stack.app();
        let deadlines = app.deadlines("DEADLINES_TABLE")?;
        let (orders, sagas) = (app.repository()?, app.repository()?);
        let step_timeout = app.seconds("STEP_TIMEOUT_SECONDS")?;
        // A cancelled order has a deadline of its own, and its fulfilment another.
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
                let (orders, sagas) = (&orders, &sagas);
                async move { look(order, &deadline, orders, sagas, now, step_timeout).await }
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
                "ORDER",
                "PHASE",
                "STEP",
                "QUIET FOR",
                "RETRIES",
                "NEEDS",
                "WHY",
            ],
            &rows,
        )?;
        Ok(verdict)
    }
}

const STUCK: &str = "stuck";

/// A fulfilment as it is now; none where it has ended, and only its deadline is still to go.
async fn look(
    order_id: OrderId,
    deadline: &Deadline,
    orders: &Repository<Order>,
    sagas: &Repository<Saga>,
    now: Timestamp,
    step_timeout: std::time::Duration,
) -> Result<Option<Open>, Failure> {
    let order = orders.load(&order_id.order_stream()).await?;
    let saga = sagas.load(&order_id.fulfilment_stream()).await?;
    let since = saga.at().unwrap_or(deadline.at);
    let next = match next_action(
        order_id,
        &order.state,
        &saga.state,
        since,
        now,
        step_timeout,
    ) {
        NextAction::Start(_) => "to be begun".to_owned(),
        NextAction::Compensate => "to be unwound".to_owned(),
        NextAction::Retry(..) => "to be asked again".to_owned(),
        NextAction::Wait(until) => format!("nothing until {until}"),
        NextAction::Operator => "people".to_owned(),
        NextAction::None => return Ok(None),
    };
    let (phase, step, failure) = phase(&saga.state);
    Ok(Some(Open {
        order: order_id,
        phase,
        step,
        action: saga.state.due().map(|due| due.action),
        retries: saga.state.retries(),
        since: saga.at().or(order.at()).unwrap_or(since),
        next,
        reason: failure.or(saga.state.reason()).map(str::to_owned),
    }))
}

/// What people call a state, the step that it is about, and why it is stuck.
fn phase(state: &State<Fulfilment>) -> (&'static str, Option<&'static str>, Option<&str>) {
    match state {
        State::NotStarted => ("not begun", None, None),
        State::Running { due, .. } => ("running", Some(due.name()), None),
        State::CancelPending { due, .. } => ("cancel-pending", Some(due.name()), None),
        State::Compensating { due, .. } => ("compensating", Some(due.name()), None),
        State::Stuck { step, failure, .. } => (STUCK, Some(step.name()), Some(failure)),
        State::Completed { .. } => ("completed", None, None),
        State::Aborted { .. } => ("aborted", None, None),
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

/// Helps a fulfilment that is stuck.
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
    /// Has the compensation tried once more that was refused or had no outcome.
    #[command(after_help = "\
Examples:
  cairn saga resume 2d6944f5-e237-4a33-9c67-ba4a44120b1b

Status: 0, or 1 if it is not stuck, or 2 if it was called wrongly or the system cannot be reached.")]
    Resume {
        /// The order.
        order: OrderId,
    },
    /// Leaves the step that could not be undone as people have settled it, and has the rest undone.
    #[command(after_help = "\
Examples:
  cairn saga abandon 2d6944f5-e237-4a33-9c67-ba4a44120b1b --reason 'refunded by hand'

Status: 0, or 1 if it is not stuck, or 2 if it was called wrongly or the system cannot be reached.")]
    Abandon {
        /// The order.
        order: OrderId,
        /// How it was settled. It becomes part of the order's history.
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
                format!("The fulfilment of {order} tries its compensation once more."),
            ),
            Help::Abandon { order, reason } => (
                json!({ "abandon": order, "reason": reason }),
                json!({ "order": order, "did": "abandon" }),
                format!("The fulfilment of {order} leaves that step and undoes the rest."),
            ),
        };
        let _: Value = stack.invoke(WATCH, &request).await?;
        if out.is_json {
            out.document(&did)?;
        } else {
            out.line(&said)?;
        }
        Ok(Verdict::Well)
    }
}
