//! Functions that execute and compensate one step of a saga.
//!
//! An event for a step that is no longer due is acknowledged without an effect. After an error the
//! step stays due.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    dynamodb::{Deadlines, Repository},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Throttled, consumer, metrics::Metrics,
    },
};
use cairn::{
    commit::{Context, RecordedEvent},
    gate::Delivery,
    provider::{Call, ProviderError},
    retry::{self, CallError},
    saga::{Action, Definition, Due, Event, Saga},
    step::{DueStep, StepOutcome, StepResult},
    stream::StreamId,
};

/// The handler of one step. The surrounding function loads the saga, checks that the step is due,
/// and records the outcome of the handler in one append.
///
/// Both methods may be called more than once. Pass [`DueStep::idempotency_key`] to external calls,
/// and put commands on streams of the store into the outcome.
pub trait StepHandler<D: Definition>: Send + Sync + 'static {
    /// The step.
    const STEP: D::Step;

    /// Executes the step.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown; the step is then retried.
    fn execute(
        &self,
        due: &DueStep<D>,
    ) -> impl Future<Output = Result<StepOutcome, FunctionError>> + Send;

    /// Compensates the step.
    ///
    /// # Errors
    /// Returns an error if the outcome is unknown; the step is then retried.
    fn compensate(
        &self,
        due: &DueStep<D>,
    ) -> impl Future<Output = Result<StepOutcome, FunctionError>> + Send;

    /// Returns the saga that an event of another stream starts, and its input. Only the first step
    /// implements it.
    fn begins(_event: &RecordedEvent) -> Result<Option<(StreamId, D::Input)>, FunctionError> {
        Ok(None)
    }
}

/// Calls a provider, up to three times after transient failures. The inner error is the rejection
/// by the provider.
///
/// # Errors
/// Returns an error if the outcome is unknown; the step is then retried with the same key. If the
/// provider throttles, the error is [throttled](FunctionError::throttled); see [`function`].
pub async fn ask<'k, T, F>(
    key: &'k str,
    mut ask: impl FnMut(Call<'k>) -> F,
) -> Result<Result<T, String>, FunctionError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    let answer = retry::call(TRIES, LIMIT, |attempt| ask(Call { key, attempt })).await;
    answer.map_err(|error| match error {
        CallError::Throttled { retry_after, .. } => FunctionError::throttled(error, retry_after),
        CallError::Transient(_) | CallError::NoAnswer(_) => FunctionError::new(error),
    })
}

/// The number of calls to a provider in one invocation.
const TRIES: u32 = 3;
/// The time limit of one call to a provider, which may itself call a bank.
const LIMIT: Duration = Duration::from_secs(3);

type Sagas<D> = Repository<Saga<D>>;

/// Creates the function of a step. Its rule selects the events that make the step due.
///
/// `DEADLINES_TABLE` names the table of deadlines and is optional. With it, a step that a provider
/// throttles stays due, and the invocation succeeds. Its deadline then has the time at which the
/// watchdog retries the step, and no retry is used up. Without the table, throttling is an error
/// like any other.
pub fn function<D: Definition, H: StepHandler<D>>(
    app: &AppContext,
    handler: H,
) -> Result<Handler, ConfigError> {
    let parts = Arc::new(Parts {
        app: app.clone(),
        sagas: app.repository()?,
        deadlines: app.deadlines("DEADLINES_TABLE").ok(),
        handler,
    });
    consumer::function(app, move |event, context| {
        let parts = parts.clone();
        async move { parts.run(event, context).await }
    })
}

struct Parts<D: Definition, H> {
    app: AppContext,
    sagas: Sagas<D>,
    deadlines: Option<Deadlines>,
    handler: H,
}

impl<D: Definition, H: StepHandler<D>> Parts<D, H> {
    async fn run(&self, event: RecordedEvent, context: Context) -> Result<Delivery, FunctionError> {
        let Some((due, action)) = load::<D, H>(&self.sagas, &event).await? else {
            tracing::info!("step skipped: not pending");
            return Ok(Delivery::Duplicate);
        };
        let asked = Instant::now();
        let work = async {
            match action {
                Action::Execute => self.handler.execute(&due).await,
                Action::Compensate => self.handler.compensate(&due).await,
            }
        };
        let outcome = match self.app.waiting(work).await {
            Ok(outcome) => outcome,
            Err(error) => {
                return match (error.is_throttled(), &self.deadlines) {
                    (Some(throttled), Some(deadlines)) => {
                        self.postpone(deadlines, &due, throttled).await
                    }
                    _ => Err(error),
                };
            }
        };
        self.record(due, action, outcome, asked, context).await
    }

    /// Postpones the step: it stays due, and its deadline has the time of the next attempt.
    async fn postpone(
        &self,
        deadlines: &Deadlines,
        due: &DueStep<D>,
        throttled: Throttled,
    ) -> Result<Delivery, FunctionError> {
        let until = self.app.now().after(throttled.pause());
        let (saga, version) = due.saga();
        deadlines.ask_again(saga, version, until).await?;
        self.app
            .emit(Metrics::default().count("ProviderThrottled", 1));
        tracing::warn!(step = ?H::STEP, %until, "provider throttled; step postponed");
        Ok(Delivery::Postponed)
    }

    async fn record(
        &self,
        due: DueStep<D>,
        action: Action,
        outcome: StepOutcome,
        asked: Instant,
        context: Context,
    ) -> Result<Delivery, FunctionError> {
        let done = matches!(outcome.result, StepResult::Done(_));
        // The provider may have taken seconds: the commit has the time of its answer.
        let context = Context {
            now: self.app.now().max(context.now),
            time_budget: context.time_budget.saturating_sub(asked.elapsed()),
            ..context
        };
        let recorded = due.record(&self.sagas, outcome, context).await?;
        tracing::info!(step = ?H::STEP, ?action, done, recorded, "step executed");
        Ok(if recorded {
            Delivery::Applied
        } else {
            Delivery::Duplicate
        })
    }
}

async fn load<D: Definition, H: StepHandler<D>>(
    sagas: &Sagas<D>,
    event: &RecordedEvent,
) -> Result<Option<(DueStep<D>, Action)>, FunctionError> {
    if let Some((saga, input)) = H::begins(event)? {
        let due = DueStep::begin(sagas, &saga, input).await?;
        return Ok(due.map(|due| (due, Action::Execute)));
    }
    let next = event.decode::<Event<D>>()?.next();
    let Some(next) = next.filter(|next: &Due<D::Step>| next.step == H::STEP) else {
        return Ok(None);
    };
    let due = DueStep::load(sagas, &event.stream, next).await?;
    Ok(due.map(|due| (due, next.action)))
}
