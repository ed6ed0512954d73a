//! An unfinished saga, from its deadline and the streams.

use cairn::{
    Timestamp,
    deadlines::Deadline,
    saga::{NextAction, OpenSaga, Phase, Saga, State, Triggered},
};
use cairn_aws::lambda::AppContext;

use crate::tool::{BoxError, Sagas, UnfinishedSaga};

impl Sagas {
    /// Creates the access to a saga, whose watchdog has this logical id.
    pub fn new<D: Triggered>(watchdog: &'static str) -> Self {
        Self {
            category: D::CATEGORY,
            watchdog,
            load: |app, deadline, now| Box::pin(load::<D>(app, deadline, now)),
        }
    }
}

async fn load<D: Triggered>(
    app: &AppContext,
    deadline: &Deadline,
    now: Timestamp,
) -> Result<Option<UnfinishedSaga>, BoxError> {
    let sagas = app.repository::<Saga<D>>()?;
    let step_timeout = app.seconds("STEP_TIMEOUT_SECONDS")?;
    let open = OpenSaga::<D>::load(&sagas, &deadline.stream).await?;
    let next = match open.next_action(deadline.at, now, step_timeout) {
        NextAction::Start(_) => "start".to_owned(),
        NextAction::Compensate => "compensate".to_owned(),
        NextAction::Retry(..) => "retry".to_owned(),
        NextAction::Wait(until) => format!("wait until {until}"),
        NextAction::Operator => "operator".to_owned(),
        NextAction::None => return Ok(None),
    };
    let OpenSaga { saga, trigger } = open;
    let (phase, step, failure) = phase(&saga.state);
    Ok(Some(UnfinishedSaga {
        phase,
        step: step.map(step_name::<D>),
        action: saga.state.due().map(|due| due.action),
        retries: saga.state.retries,
        since: saga.at().or(trigger.at).unwrap_or(deadline.at),
        next,
        reason: failure.or(saga.state.reason.as_deref()).map(str::to_owned),
    }))
}

/// Returns the stored name of a step.
fn step_name<D: Triggered>(step: D::Step) -> String {
    match serde_json::to_value(step) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{step:?}"),
    }
}

/// Returns the phase of a saga, its current step, and the reason for which it is stuck.
fn phase<D: Triggered>(state: &State<D>) -> (&'static str, Option<D::Step>, Option<&str>) {
    match &state.phase {
        Phase::NotStarted => ("not started", None, None),
        Phase::Forward { due, .. } if state.reason.is_none() => ("running", Some(*due), None),
        Phase::Forward { due, .. } => ("cancel-pending", Some(*due), None),
        Phase::Backward { due, .. } => ("compensating", Some(*due), None),
        Phase::Stuck { step, failure, .. } => (UnfinishedSaga::STUCK, Some(*step), Some(failure)),
        Phase::Completed { .. } => ("completed", None, None),
        Phase::Aborted => ("aborted", None, None),
    }
}
