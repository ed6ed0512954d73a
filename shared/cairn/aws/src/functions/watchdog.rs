//! The watchdog: starts, retries or compensates sagas that make no progress.
//!
//! A schedule invokes it every minute. An operator invokes it to resume a stuck saga, or to abandon
//! the step whose compensation failed.

use std::{pin::pin, sync::Arc, time::Duration};

use cairn::{
    Timestamp,
    deadlines::Deadline,
    decider::Aggregate as _,
    repository::HandleError,
    saga::{Command, Due, NextAction, OpenSaga, Saga, Step, Triggered},
    step,
    stream::StreamId,
};
use futures_util::{
    StreamExt, TryStreamExt,
    future::{Ready, ready},
    stream,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::{
    dynamodb::{Deadlines, Repository},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        metrics::Metrics,
        operation::{self, Task},
    },
};

mod pace;

use pace::Pace;

const AT_ONCE: usize = 8;

/// The time after which a stuck saga is checked again. The deadline tracker records each event of
/// its stream, so a check finds a change only if the record was lost.
const STUCK_CHECK: Duration = Duration::from_hours(1);

/// Creates the watchdog of a saga. `DEADLINES_TABLE` has its deadlines, and can have those of other
/// sagas.
/// `STEP_TIMEOUT_SECONDS` is the time that a step has to finish.
///
/// Each run emits three metrics, whose names end with [`Triggered::METRICS`]: `Stuck` sagas,
/// `Overdue` ones on which it acted, and `HeldBack` ones whose step it did not retry.
pub fn watchdog<D: Triggered>(app: &AppContext) -> Result<Handler, ConfigError> {
    let watchdog = Arc::new(Watchdog::<D> {
        sagas: app.repository()?,
        deadlines: app.deadlines("DEADLINES_TABLE")?,
        step_timeout: app.seconds("STEP_TIMEOUT_SECONDS")?,
        pace: Pace::new(),
        app: app.clone(),
    });
    Ok(operation::function(app, move |request, task| {
        let watchdog = watchdog.clone();
        async move {
            match request {
                Request::Resume { resume } => {
                    let command = Command::Resume;
                    watchdog.operate("resume", &resume, command, &task).await
                }
                Request::Abandon { abandon, reason } => {
                    let command = Command::Abandon(reason);
                    watchdog.operate("abandon", &abandon, command, &task).await
                }
                Request::Schedule { .. } => watchdog.run(&task).await,
            }
        }
    }))
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = r#"expected {"resume": KEY}, {"abandon": KEY, "reason": TEXT}, or an event of a schedule; KEY is the key of a saga's stream"#
)]
enum Request {
    /// `{"resume": "<key>"}`: retries the stuck compensation.
    Resume { resume: String },
    /// `{"abandon": "<key>", "reason": "..."}`: skips a compensation that was settled manually, and
    /// continues with the next one.
    Abandon { abandon: String, reason: String },
    /// The scheduled event.
    Schedule {
        #[serde(rename = "detail-type")]
        _kind: String,
    },
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Overdue sagas that were started, retried, abandoned or compensated.
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

/// The outcome of a check.
enum Check {
    /// The saga was started, retried, abandoned or compensated.
    Moved,
    /// The step was retried after throttling.
    Paced,
    /// The step was not retried in this run.
    HeldBack,
    /// No action was due.
    Rested,
}

struct Watchdog<D: Triggered> {
    sagas: Repository<Saga<D>>,
    deadlines: Deadlines,
    step_timeout: Duration,
    pace: Pace<D::Step>,
    app: AppContext,
}

impl<D: Triggered> Watchdog<D> {
    async fn run(&self, task: &Task) -> Result<Report, FunctionError> {
        // A run that ends close to its timeout raises an alarm.
        let end = Instant::now() + task.time_budget * 3 / 4;
        self.pace.begin(self.sagas.store()).await?;
        let stuck = self.deadlines.stuck().try_filter(is_own::<D>);
        let stuck: Vec<_> = stuck.try_collect().await?;
        let mut report = Report {
            stuck: u64::try_from(stuck.len())?,
            ..Report::default()
        };
        self.app
            .emit(Metrics::default().count(&metric::<D>("Stuck"), report.stuck));
        let due = self.deadlines.due(task.now).try_filter(is_own::<D>);
        let stuck = stuck.into_iter().filter(|row| row.at <= task.now);
        let stuck = stream::iter(stuck.map(|row| (Ok(row), true)));
        let rows = due.map(|row| (row, false)).chain(stuck);
        let checks = rows.map(|(row, is_stuck)| async move {
            let row = row?;
            Ok::<_, FunctionError>((self.check(&row, task).await, row, is_stuck))
        });
        let mut checks = pin!(checks.buffer_unordered(AT_ONCE));
        let all = async {
            while let Some(check) = checks.next().await {
                let (check, deadline, is_stuck) = check?;
                match check {
                    Ok(Check::Moved) => report.overdue += 1,
                    Ok(Check::Paced) => report.throttled += 1,
                    Ok(Check::HeldBack) => report.held_back += 1,
                    Ok(Check::Rested) => {}
                    Err(error) => {
                        report.failed += 1;
                        tracing::warn!(
                            stream = %deadline.stream,
                            %error,
                            "deadline check failed; retrying on next run"
                        );
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
            .count(&metric::<D>("Overdue"), report.overdue)
            .count(&metric::<D>("HeldBack"), report.held_back);
        self.app.emit(overdue);
        tracing::info!(?report, "watchdog run completed");
        all.unwrap_or(Ok(())).map(|()| report)
    }

    /// Takes the next action for the saga of a deadline.
    async fn check(&self, deadline: &Deadline, task: &Task) -> Result<Check, FunctionError> {
        let open = OpenSaga::load(&self.sagas, &deadline.stream).await?;
        let needs = open.next_action(deadline.at, task.now, self.step_timeout);
        let OpenSaga { saga, trigger } = open;
        let stream = &saga.stream;
        tracing::info!(saga = %stream, version = saga.version, ?needs, "saga overdue");
        // A cancellation has a deadline of its own until the saga records it.
        if deadline.stream != *stream && needs != NextAction::Compensate {
            return self.close(deadline).await;
        }
        let is_throttled = deadline.throttled == Some(saga.version);
        if let Some(due) = retried(&needs)
            && !is_throttled
            && !self.pace.takes(due)
        {
            let later = task.now.after(self.step_timeout);
            self.postpone(deadline, later).await?;
            return Ok(Check::HeldBack);
        }
        let at = format!("{stream}@{}", saga.version);
        let check = match (needs, saga.state.due()) {
            (NextAction::Start(input), _) => {
                let start = Command::Start(input);
                self.tell(stream, start, format!("begin/{at}"), task)
                    .await?;
                // The first step had its time before the watchdog acted, so retry it now.
                match first_step::<D>() {
                    Some(first) if is_throttled => self.ask_again(stream, first, &at, task).await?,
                    Some(first) => self.retry(stream, first, 0, &at, task).await?,
                    None => Check::Moved,
                }
            }
            (NextAction::Wait(_) | NextAction::Retry(..), Some(due)) if is_throttled => {
                self.ask_again(stream, due, &at, task).await?
            }
            (NextAction::Retry(due, retries), _) => {
                self.retry(stream, due, retries, &at, task).await?
            }
            (NextAction::Compensate, _) => {
                let reason = trigger.cancelled.unwrap_or_default();
                let context = task.context(format!("unwind/{at}"));
                step::cancel::<D, _>(&self.sagas, stream, &reason, &context).await?;
                Check::Moved
            }
            (NextAction::Wait(until), _) => {
                self.postpone(deadline, until).await?;
                return Ok(Check::Rested);
            }
            (NextAction::Operator, _) => {
                let again = task.now.after(STUCK_CHECK);
                let stuck = self.deadlines.mark_stuck(deadline, again).await;
                stuck?;
                return Ok(Check::Rested);
            }
            (NextAction::None, _) => return self.close(deadline).await,
        };
        let later = task.now.after(self.step_timeout);
        self.postpone(deadline, later).await?;
        Ok(check)
    }

    /// Retries a step, or abandons it after its last retry.
    async fn retry(
        &self,
        stream: &StreamId,
        due: Due<D::Step>,
        retries: u32,
        at: &str,
        task: &Task,
    ) -> Result<Check, FunctionError> {
        let retry = Command::Retry(due, retries);
        let told = self
            .tell(stream, retry, format!("retry/{at}"), task)
            .await?;
        // An abandoned step has no outcome to examine.
        if let Some(version) = told
            && retries < D::RETRIES
        {
            self.pace.asked(due, stream, version);
        }
        Ok(Check::Moved)
    }

    /// Requests a step again that a provider throttled.
    async fn ask_again(
        &self,
        stream: &StreamId,
        due: Due<D::Step>,
        at: &str,
        task: &Task,
    ) -> Result<Check, FunctionError> {
        let ask = Command::AskAgain(due);
        self.tell(stream, ask, format!("ask/{at}"), task).await?;
        Ok(Check::Paced)
    }

    async fn postpone(&self, deadline: &Deadline, until: Timestamp) -> Result<(), FunctionError> {
        let postponed = self.deadlines.postpone(deadline, until).await;
        postponed.map_err(FunctionError::new)
    }

    async fn close(&self, deadline: &Deadline) -> Result<Check, FunctionError> {
        let closed = self.deadlines.close(deadline).await;
        closed?;
        Ok(Check::Rested)
    }

    /// Gives an operator's command to a stuck saga.
    async fn operate(
        &self,
        verb: &str,
        key: &str,
        command: Command<D>,
        task: &Task,
    ) -> Result<Report, FunctionError> {
        let stream = StreamId::new(D::CATEGORY, key)
            .map_err(|error| FunctionError::new(format!("invalid request: {error}")))?;
        let id = format!("{verb}/{}", task.id);
        if self.tell(&stream, command, id, task).await?.is_none() {
            let error = format!("{verb} failed: the saga {stream} is not stuck");
            return Err(FunctionError::new(error));
        }
        tracing::info!(saga = %stream, command = verb, "operator command executed");
        Ok(Report {
            complete: true,
            ..Report::default()
        })
    }

    /// Gives a command to a saga. Returns its new version, or `None` if it rejects the command.
    async fn tell(
        &self,
        stream: &StreamId,
        command: Command<D>,
        id: String,
        task: &Task,
    ) -> Result<Option<u64>, FunctionError> {
        let context = task.context(id);
        match self.sagas.handle(stream, &command, &context).await {
            Ok(handled) => Ok(Some(handled.current.version)),
            Err(HandleError::Rejected { .. }) => Ok(None),
            Err(error) => Err(FunctionError::new(error)),
        }
    }
}

/// True for a deadline of this saga, or of a cancellation by its source.
fn is_own<D: Triggered>(deadline: &Deadline) -> Ready<bool> {
    let own = [D::CATEGORY, D::Source::CATEGORY];
    ready(own.contains(&deadline.stream.category()))
}

/// Returns the name of a metric, for example `StuckFulfilments`.
fn metric<D: Triggered>(prefix: &str) -> String {
    format!("{prefix}{}", D::METRICS)
}

fn first_step<D: Triggered>() -> Option<Due<D::Step>> {
    D::Step::STEPS.first().copied().map(Due::execute)
}

/// Returns the step that the next action retries.
fn retried<D: Triggered>(needs: &NextAction<D>) -> Option<Due<D::Step>> {
    match needs {
        NextAction::Start(_) => first_step::<D>(),
        NextAction::Retry(due, _) => Some(*due),
        NextAction::Compensate | NextAction::Wait(_) | NextAction::Operator | NextAction::None => {
            None
        }
    }
}
