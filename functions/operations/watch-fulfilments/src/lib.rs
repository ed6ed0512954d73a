//! The watchdog: starts, retries or compensates fulfilments that make no progress. A schedule
//! invokes it every minute; an operator invokes it for a stuck fulfilment.

use std::{pin::pin, sync::Arc, time::Duration};

use cairn::{Timestamp, deadlines::Deadline, repository::HandleError, saga::Definition as _, step};
use cairn_aws::{
    dynamodb::{Deadlines, DynamoStore, Repository},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        metrics::Metrics,
        operation::{self, Task},
    },
};
use futures_util::StreamExt;
use orders::{
    deadlines::{NextAction, next_action},
    fulfilment::{self, Due, Fulfilment, Saga},
    order::Order,
    values::OrderId,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

mod pace;

use pace::Pace;

const AT_ONCE: usize = 8;

/// The time after which a stuck fulfilment is checked again. The deadline tracker records each
/// event of its stream, so a check finds a change only if the record was lost.
const STUCK_CHECK: Duration = Duration::from_hours(1);

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let watch = Arc::new(Watch {
        orders: app.repository()?,
        sagas: app.repository()?,
        deadlines: app.deadlines("DEADLINES_TABLE")?,
        step_timeout: app.seconds("STEP_TIMEOUT_SECONDS")?,
        store: app.event_store()?,
        pace: Pace::default(),
        app: app.clone(),
    });
    Ok(operation::function(app, move |request, task| {
        let watch = watch.clone();
        async move {
            match request {
                Request::Resume { resume } => watch.resume(resume, &task).await,
                Request::Abandon { abandon, reason } => watch.abandon(abandon, reason, &task).await,
                Request::Schedule { .. } => watch.look(&task).await,
            }
        }
    }))
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = r#"expected {"resume": ORDER}, {"abandon": ORDER, "reason": TEXT}, or an event of a schedule; ORDER is an order id"#
)]
enum Request {
    /// `{"resume": "<order id>"}`: retries the stuck compensation.
    Resume { resume: OrderId },
    /// `{"abandon": "<order id>", "reason": "..."}`: skips a compensation that was settled
    /// manually, and continues with the next one.
    Abandon { abandon: OrderId, reason: String },
    /// The scheduled event.
    Schedule {
        #[serde(rename = "detail-type")]
        _kind: String,
    },
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Overdue fulfilments that were started, retried, abandoned or compensated.
    overdue: u64,
    /// Failed checks; the next run repeats them.
    failed: u64,
    /// Steps that were retried after a provider had throttled them.
    throttled: u64,
    /// Steps that were not retried, because events are late or a provider is unavailable.
    held_back: u64,
    stuck: u64,
    /// False if the time ran out.
    complete: bool,
}

struct Watch {
    orders: Repository<Order>,
    sagas: Repository<Saga>,
    deadlines: Deadlines,
    step_timeout: Duration,
    store: DynamoStore,
    pace: Pace,
    app: AppContext,
}

enum Looked {
    /// The fulfilment was started, retried, abandoned or compensated.
    Moved,
    /// The step was retried after throttling.
    Paced,
    /// The step was not retried in this run.
    HeldBack,
    /// No action was due.
    Rested,
}

impl Watch {
    async fn look(&self, task: &Task) -> Result<Report, FunctionError> {
        // A run that ends close to its timeout raises an alarm.
        let end = Instant::now() + task.time_budget * 3 / 4;
        self.pace.begin(&self.store).await?;
        let stuck = self.deadlines.count_stuck().await?;
        let mut report = Report {
            stuck,
            ..Report::default()
        };
        let metrics = Metrics::default().count("StuckFulfilments", report.stuck);
        self.app.emit(metrics);
        let due = self.deadlines.due(task.now).map(|row| (row, false));
        let stuck = self.deadlines.stuck(task.now).map(|row| (row, true));
        let looks = due.chain(stuck).map(|(row, is_stuck)| async move {
            let row = row?;
            Ok::<_, FunctionError>((self.look_after(&row, task).await, row, is_stuck))
        });
        let mut looks = pin!(looks.buffer_unordered(AT_ONCE));
        let all = async {
            while let Some(look) = looks.next().await {
                let (looked, deadline, is_stuck) = look?;
                match looked {
                    Ok(Looked::Moved) => report.overdue += 1,
                    Ok(Looked::Paced) => report.throttled += 1,
                    Ok(Looked::HeldBack) => report.held_back += 1,
                    Ok(Looked::Rested) => {}
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(stream = %deadline.stream, %error, "deadline check failed; retrying on next run");
                        // Postpone the check, so that failing checks do not delay the others.
                        let later = task.now.after(self.step_timeout);
                        let _ = if is_stuck {
                            self.deadlines.mark_stuck(&deadline, later).await
                        } else {
                            self.deadlines.postpone(&deadline, later).await
                        };
                    }
                }
            }
            Ok::<_, FunctionError>(())
        };
        // The next run starts with the oldest deadlines, which are those that are left.
        let all = timeout_at(end, all).await;
        report.complete = all.is_ok();
        let overdue = Metrics::default()
            .count("OverdueFulfilments", report.overdue)
            .count("HeldBackFulfilments", report.held_back);
        self.app.emit(overdue);
        tracing::info!(?report, "watchdog run completed");
        all.unwrap_or(Ok(())).map(|()| report)
    }

    /// Takes the next action for an order.
    async fn look_after(&self, deadline: &Deadline, task: &Task) -> Result<Looked, FunctionError> {
        let order_id = OrderId::from_stream(&deadline.stream)?;
        let stream = order_id.fulfilment_stream();
        let order = self.orders.load(&order_id.order_stream()).await?;
        let saga = self.sagas.load(&stream).await?;
        let since = saga.at().unwrap_or(deadline.at);
        let needs = next_action(
            order_id,
            &order.state,
            &saga.state,
            since,
            task.now,
            self.step_timeout,
        );
        tracing::info!(%order_id, version = saga.version, ?needs, "saga overdue");
        let at = format!("{stream}@{}", saga.version);
        // A cancellation has a deadline of its own until the fulfilment records it.
        if deadline.stream.category() == "order" && needs != NextAction::Compensate {
            self.deadlines.close(deadline).await?;
            return Ok(Looked::Rested);
        }
        if let Some(due) = asks_again(&needs)
            && deadline.throttled != Some(saga.version)
            && !self.pace.takes(due)
        {
            self.postpone(deadline, task.now.after(self.step_timeout))
                .await?;
            return Ok(Looked::HeldBack);
        }
        if let Some(due) = throttled(deadline, saga.version, saga.state.due(), &needs) {
            if let NextAction::Start(input) = needs {
                let begin = fulfilment::Command::Start(*input);
                self.tell(order_id, begin, format!("begin/{at}"), task)
                    .await?;
            }
            let ask = fulfilment::Command::AskAgain(due);
            self.tell(order_id, ask, format!("ask/{at}"), task).await?;
            self.postpone(deadline, task.now.after(self.step_timeout))
                .await?;
            return Ok(Looked::Paced);
        }
        let again = match needs {
            NextAction::Start(input) => {
                let begin = fulfilment::Command::Start(*input);
                self.tell(order_id, begin, format!("begin/{at}"), task)
                    .await?;
                // The first step had its time before the watchdog acted, so retry it now.
                if let Some(first) = Fulfilment::STEPS.first().copied().map(Due::execute) {
                    self.ask(order_id, first, 0, &at, task).await?;
                }
                task.now.after(self.step_timeout)
            }
            NextAction::Compensate => {
                let context = task.context(format!("unwind/{at}"));
                let reason = "the customer has cancelled the order";
                step::cancel::<Fulfilment, _>(&self.sagas, &stream, reason, &context).await?;
                task.now.after(self.step_timeout)
            }
            NextAction::Retry(due, retries) => {
                self.ask(order_id, due, retries, &at, task).await?;
                task.now.after(self.step_timeout)
            }
            NextAction::Wait(until) => {
                self.postpone(deadline, until).await?;
                return Ok(Looked::Rested);
            }
            NextAction::Operator => {
                let again = task.now.after(STUCK_CHECK);
                self.deadlines.mark_stuck(deadline, again).await?;
                return Ok(Looked::Rested);
            }
            NextAction::None => {
                self.deadlines.close(deadline).await?;
                return Ok(Looked::Rested);
            }
        };
        self.postpone(deadline, again).await?;
        Ok(Looked::Moved)
    }

    /// Retries a step, or abandons it after its last retry.
    async fn ask(
        &self,
        order_id: OrderId,
        due: Due,
        retries: u32,
        at: &str,
        task: &Task,
    ) -> Result<(), FunctionError> {
        let ask = fulfilment::Command::Retry(due, retries);
        let asked = self
            .tell(order_id, ask, format!("retry/{at}"), task)
            .await?;
        // An abandoned step has no outcome to examine.
        if let Some(version) = asked
            && retries < Fulfilment::RETRIES
        {
            let stream = order_id.fulfilment_stream();
            self.pace.asked(due, &stream, version);
        }
        Ok(())
    }

    async fn postpone(&self, deadline: &Deadline, until: Timestamp) -> Result<(), FunctionError> {
        Ok(self.deadlines.postpone(deadline, until).await?)
    }

    async fn resume(&self, order_id: OrderId, task: &Task) -> Result<Report, FunctionError> {
        self.people(order_id, fulfilment::Command::Resume, "resume", task)
            .await
    }

    async fn abandon(
        &self,
        order_id: OrderId,
        reason: String,
        task: &Task,
    ) -> Result<Report, FunctionError> {
        self.people(
            order_id,
            fulfilment::Command::Abandon(reason),
            "abandon",
            task,
        )
        .await
    }

    async fn people(
        &self,
        order_id: OrderId,
        command: fulfilment::Command,
        verb: &str,
        task: &Task,
    ) -> Result<Report, FunctionError> {
        let told = self
            .tell(order_id, command, format!("{verb}/{}", task.id), task)
            .await?;
        if told.is_none() {
            return Err(FunctionError::new(format!(
                "{verb} failed: the fulfilment of order {order_id} is not stuck"
            )));
        }
        tracing::info!(%order_id, command = verb, "operator command executed");
        Ok(Report {
            complete: true,
            ..Report::default()
        })
    }

    /// Gives a command to a fulfilment. Returns its new version, or `None` if it rejects the
    /// command.
    async fn tell(
        &self,
        order_id: OrderId,
        command: fulfilment::Command,
        id: String,
        task: &Task,
    ) -> Result<Option<u64>, FunctionError> {
        let (stream, context) = (order_id.fulfilment_stream(), task.context(id));
        match self.sagas.handle(&stream, &command, &context).await {
            Ok(handled) => Ok(Some(handled.current.version)),
            Err(HandleError::Rejected { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the step that the next action retries.
fn asks_again(needs: &NextAction) -> Option<Due> {
    match needs {
        NextAction::Start(_) => Fulfilment::STEPS.first().copied().map(Due::execute),
        NextAction::Retry(due, _) => Some(*due),
        NextAction::Compensate | NextAction::Wait(_) | NextAction::Operator | NextAction::None => {
            None
        }
    }
}

/// Returns the step to retry because a provider throttled it, if nothing has happened since.
fn throttled(
    deadline: &Deadline,
    version: u64,
    due: Option<Due>,
    needs: &NextAction,
) -> Option<Due> {
    if deadline.throttled != Some(version) {
        return None;
    }
    match needs {
        NextAction::Start(_) => Fulfilment::STEPS.first().copied().map(Due::execute),
        NextAction::Wait(_) | NextAction::Retry(..) => due,
        NextAction::Compensate | NextAction::Operator | NextAction::None => None,
    }
}
