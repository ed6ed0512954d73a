//! Functions that do one step of a saga, forward and back.
//!
//! A step that is not due any more is acknowledged and does nothing. An error leaves it due, and its outcome unknown.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    commit::{Context, RecordedEvent},
    dynamodb::{Deadlines, Repository},
    gate::Delivery,
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Throttled, consumer, metrics::Metrics,
    },
    provider::{Call, ProviderError},
    retry::{self, CallError},
    saga::{Action, Definition, Due, Event, Saga},
    step::{DueStep, StepOutcome, StepResult},
    stream::StreamId,
};

/// The handler of one step. The function around it loads the saga and finds the step due; it records
/// the handler's outcome in one append.
///
/// Both directions may be asked for more than once: calls to the outside carry
/// [`DueStep::idempotency_key`], and commands on our own streams belong into the outcome.
pub trait StepHandler<D: Definition>: Send + Sync + 'static {
    /// The step.
    const STEP: D::Step;

    /// Does the step.
    ///
    /// # Errors
    /// When its outcome cannot be known now; it will be asked for again.
    fn execute(
        &self,
        due: &DueStep<D>,
    ) -> impl Future<Output = Result<StepOutcome, FunctionError>> + Send;

    /// Undoes the step.
    ///
    /// # Errors
    /// When its outcome cannot be known now; it will be asked for again.
    fn compensate(
        &self,
        due: &DueStep<D>,
    ) -> impl Future<Output = Result<StepOutcome, FunctionError>> + Send;

    /// The saga that an event of another stream begins, for the first step.
    ///
    /// # Errors
    /// When the event cannot be read.
    fn begins(_event: &RecordedEvent) -> Result<Option<(StreamId, D::Input)>, FunctionError> {
        Ok(None)
    }
}

/// Asks a provider, up to three times while it answers with transient failures; the inner error is its
/// refusal.
///
/// # Errors
/// When the outcome is not known: the step will be asked for again, with the same key. A provider that
/// throttles is no failure; see [`function`].
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

/// How often a provider is asked within one invocation.
const TRIES: u32 = 3;
/// How long it may take for one answer: two calls and a handshake with Stripe, and the card's bank behind it.
const LIMIT: Duration = Duration::from_secs(3);

type Sagas<D> = Repository<Saga<D>>;

/// The function of a step: its rule selects the events that make the step due.
///
/// `DEADLINES_TABLE` names the table of the saga's deadlines. With it a step that a provider throttles
/// succeeds without an effect and stays due; its deadline says from when on the watchdog asks for it
/// again, which uses up no retry. Without that table it fails, as after every other error.
///
/// # Errors
/// When an environment variable is missing.
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

    /// Leaves the step due, and has it asked for again later.
    async fn postpone(
        &self,
        deadlines: &Deadlines,
        due: &DueStep<D>,
        throttled: Throttled,
    ) -> Result<Delivery, FunctionError> {
        let until = self.app.now().after(throttled.pause());
        let (saga, version) = due.saga();
        let postponed = deadlines.ask_again(saga, version, until).await;
        postponed.map_err(FunctionError::new)?;
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
        // A provider may have taken seconds: the record is of the moment when its answer is known.
        let context = Context {
            now: self.app.now().max(context.now),
            time_budget: context.time_budget.saturating_sub(asked.elapsed()),
            ..context
        };
        let recorded = due
            .record(&self.sagas, outcome, context)
            .await
            .map_err(FunctionError::new)?;
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
        let due = DueStep::begin(sagas, &saga, input)
            .await
            .map_err(FunctionError::new)?;
        return Ok(due.map(|due| (due, Action::Execute)));
    }
    let next = event
        .decode::<Event<D>>()
        .map_err(FunctionError::new)?
        .next();
    let Some(next) = next.filter(|next: &Due<D::Step>| next.step == H::STEP) else {
        return Ok(None);
    };
    let due = DueStep::load(sagas, &event.stream, next)
        .await
        .map_err(FunctionError::new)?;
    Ok(due.map(|due| (due, next.action)))
}
