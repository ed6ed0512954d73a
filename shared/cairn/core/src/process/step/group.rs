//! Steps of several sagas, recorded in one append.
//!
//! Steps that write to the same stream conflict with each other, so each of them waits for a round
//! trip of the others. In a group, they are decided one after the other and share one append.

use std::collections::HashSet;

use futures_util::future::{join_all, try_join_all};

use crate::{
    commit::{Context, RecordedEvent},
    repository::Repository,
    retry::ConflictBackoff,
    saga::{Definition, Saga},
    step::{DueStep, StepDecider, StepError, StepFailure, StepHandler, StepOutcome},
    store::{AppendError, EventStore, StoreError, group::GroupCommit},
};

/// A step of a group was not executed, or its outcome was not recorded. The step stays due.
#[derive(Debug, thiserror::Error)]
pub enum GroupedStepError {
    /// The step was not loaded, or its outcome was not recorded.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The outcome of the step is unknown, or a provider throttles.
    #[error(transparent)]
    Failure(#[from] StepFailure),
}

/// The result of a step of a group: true if its outcome was recorded, and false if the step was not
/// due any more.
pub type GroupedStep = Result<bool, GroupedStepError>;

/// Executes or compensates the steps that events make due, and records the outcomes with as few
/// appends as possible. Returns the results in the order of the events.
///
/// The outcomes are those of steps that are executed one after the other. A step whose commands are
/// rejected fails alone. After a conflict, the handler is called again for the whole group, so it
/// is a [`StepDecider`], which calls no provider. `handler` creates it on the store of a group. If
/// the store rejects an append permanently, each step is recorded alone, and fails alone.
///
/// One step with more than
/// [`MAX_COMMITS_PER_APPEND`](crate::store::MAX_COMMITS_PER_APPEND) commits is recorded alone, and
/// fails there. The time budget is that of the first context.
pub async fn execute_all<D, H, S>(
    sagas: &Repository<Saga<D>, S>,
    events: &[(RecordedEvent, Context)],
    handler: impl Fn(&GroupCommit<S>) -> H,
) -> Vec<GroupedStep>
where
    D: Definition,
    H: StepDecider<D>,
    S: EventStore + Clone,
{
    let time_budget = events.first().map(|(_, context)| context.time_budget);
    let mut backoff = ConflictBackoff::new(time_budget.unwrap_or_default());
    let mut results = Vec::with_capacity(events.len());
    let mut most = events.len();
    while let Some(rest) = events.get(results.len()..).filter(|rest| !rest.is_empty()) {
        let next = rest.get(..most).unwrap_or(rest);
        let group = GroupCommit::new(sagas.store().clone());
        let recorded = record_group(&sagas.grouped(&group), &group, next, &handler).await;
        match group.commit().await {
            Ok(()) => results.extend(recorded),
            Err(AppendError::Conflict(_)) => {
                tracing::debug!(steps = recorded.len(), "conflict");
                if backoff.another(true).await.is_err() {
                    results.extend(rest.iter().map(|_| Err(StepError::Contended.into())));
                }
            }
            Err(AppendError::Store(error)) if !error.is_transient() && most > 1 => {
                tracing::warn!(%error, "group rejected; recording each step alone");
                most = 1;
            }
            Err(AppendError::Store(error)) => results.extend(void(recorded, error)),
        }
    }
    results
}

/// Adds the outcomes of the first steps to the group, at least of one, and returns their results.
async fn record_group<D, H, S>(
    sagas: &Repository<Saga<D>, GroupCommit<S>>,
    group: &GroupCommit<S>,
    events: &[(RecordedEvent, Context)],
    handler: impl Fn(&GroupCommit<S>) -> H,
) -> Vec<GroupedStep>
where
    D: Definition,
    H: StepDecider<D>,
    S: EventStore + Clone,
{
    let handler = handler(group);
    let performed = events
        .iter()
        .map(|(event, _)| perform(sagas, event, &handler));
    let performed = join_all(performed).await;
    // A stream is read once. An error returns when the step is recorded.
    let _ = try_join_all(reads(&performed)).await;
    let mut results: Vec<GroupedStep> = vec![];
    for (performed, (_, context)) in performed.into_iter().zip(events) {
        let result = match performed {
            Ok(Some((due, outcome))) => {
                if !results.is_empty() && !group.has_room(1 + outcome.enlist.len()) {
                    break;
                }
                let recorded = due.record(sagas, outcome, context.clone()).await;
                recorded.map_err(GroupedStepError::from)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        };
        results.push(result);
    }
    results
}

/// A step with its outcome; `None` if it is not due any more.
type Performed<D> = Result<Option<(DueStep<D>, StepOutcome)>, GroupedStepError>;

async fn perform<D: Definition, H: StepHandler<D>, S: EventStore + Clone>(
    sagas: &Repository<Saga<D>, S>,
    event: &RecordedEvent,
    handler: &H,
) -> Performed<D> {
    let Some(due) = DueStep::from_event::<H, _>(sagas, event).await? else {
        return Ok(None);
    };
    let outcome = due.perform(handler).await?;
    Ok(Some((due, outcome)))
}

/// Returns the reads of the streams that the commands of the steps need, one per stream.
fn reads<D: Definition>(
    performed: &[Performed<D>],
) -> Vec<impl Future<Output = Result<(), StoreError>> + Send> {
    let outcomes = performed.iter().flatten().flatten();
    let enlisted = outcomes.flat_map(|(_, outcome)| &outcome.enlist);
    let mut streams = HashSet::new();
    enlisted
        .filter(|enlisted| streams.insert(enlisted.stream()))
        .map(|enlisted| enlisted.0.read())
        .collect()
}

/// Returns the results of steps whose append failed. A step that had failed before keeps its error.
fn void(recorded: Vec<GroupedStep>, error: StoreError) -> Vec<GroupedStep> {
    let reason = error.to_string();
    let mut error = Some(error).filter(|_| recorded.len() == 1);
    let failed = recorded.into_iter().map(|result| {
        result?;
        let unavailable = || StoreError::Unavailable(reason.as_str().into());
        let error = error.take().unwrap_or_else(unavailable);
        Err(StepError::Store(error).into())
    });
    failed.collect()
}
