//! Functions that do one step of a saga, forward and back.
//!
//! A step that is not due any more is acknowledged and does nothing. An error leaves it due, and its outcome unknown.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    commit::{Context, RecordedEvent},
    dynamodb::Repository,
    gate::Delivered,
    lambda::{ConfigError, Environment, Function, FunctionError, consumer},
    provider::{Call, ProviderError},
    retry,
    saga::{Action, Definition, Due, Event, Saga},
    step::{DueStep, Outcome, Plan},
    stream::StreamId,
};

/// What one step does. The function around it has loaded the saga and found the step due; it
/// records the plan that comes out, in one append.
///
/// Both directions may be asked for more than once: calls to the outside carry
/// [`DueStep::idempotency_key`], and what happens to our own streams belongs into the plan.
pub trait Effect<D: Definition>: Send + Sync + 'static {
    /// The step.
    const STEP: D::Step;

    /// Does the step.
    ///
    /// # Errors
    /// When its outcome cannot be known now; it will be asked for again.
    fn execute(&self, due: &DueStep<D>)
    -> impl Future<Output = Result<Plan, FunctionError>> + Send;

    /// Undoes the step.
    ///
    /// # Errors
    /// When its outcome cannot be known now; it will be asked for again.
    fn compensate(
        &self,
        due: &DueStep<D>,
    ) -> impl Future<Output = Result<Plan, FunctionError>> + Send;

    /// The saga that an event of another stream begins, for the first step.
    ///
    /// # Errors
    /// When the event cannot be read.
    fn begins(_event: &RecordedEvent) -> Result<Option<(StreamId, D::Input)>, FunctionError> {
        Ok(None)
    }
}

/// Asks a provider, up to three times within eleven seconds; the inner error is its no.
///
/// # Errors
/// When there was neither a yes nor a no: the step will be asked for again, with the same key.
pub async fn ask<'k, T, F>(
    key: &'k str,
    mut ask: impl FnMut(Call<'k>) -> F,
) -> Result<Result<T, String>, FunctionError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    retry::call(TRIES, LIMIT, |attempt| ask(Call { key, attempt }))
        .await
        .map_err(FunctionError::new)
}

/// How often a provider is asked within one invocation.
const TRIES: u32 = 3;
/// How long it may take for one answer: two calls and a handshake with Stripe, and the card's bank behind it.
const LIMIT: Duration = Duration::from_secs(3);

type Sagas<D> = Repository<Saga<D>>;

/// The function of a step: its rule selects the events that make the step due.
///
/// # Errors
/// When a setting is missing.
pub fn function<D: Definition, E: Effect<D>>(
    environment: &Environment,
    effect: E,
) -> Result<Function, ConfigError> {
    let parts = Arc::new((environment.clone(), environment.repository()?, effect));
    consumer::function(environment, move |event, context| {
        let parts = parts.clone();
        async move {
            let (environment, sagas, effect) = parts.as_ref();
            run(environment, sagas, effect, event, context).await
        }
    })
}

async fn run<D: Definition, E: Effect<D>>(
    environment: &Environment,
    sagas: &Sagas<D>,
    effect: &E,
    event: RecordedEvent,
    context: Context,
) -> Result<Delivered, FunctionError> {
    let Some((due, action)) = load::<D, E>(sagas, &event).await? else {
        tracing::info!("not due");
        return Ok(Delivered::Duplicate);
    };
    let asked = Instant::now();
    let plan = match action {
        Action::Execute => effect.execute(&due).await?,
        Action::Compensate => effect.compensate(&due).await?,
    };
    let done = matches!(plan.outcome, Outcome::Done(_));
    // A provider may have taken seconds: the record is of the moment when its answer is known.
    let context = Context {
        now: environment.now().max(context.now),
        patience: context.patience.saturating_sub(asked.elapsed()),
        ..context
    };
    let recorded = due
        .record(sagas, plan, context)
        .await
        .map_err(FunctionError::new)?;
    tracing::info!(step = ?E::STEP, ?action, done, recorded, "step");
    Ok(if recorded {
        Delivered::Applied
    } else {
        Delivered::Duplicate
    })
}

async fn load<D: Definition, E: Effect<D>>(
    sagas: &Sagas<D>,
    event: &RecordedEvent,
) -> Result<Option<(DueStep<D>, Action)>, FunctionError> {
    if let Some((saga, input)) = E::begins(event)? {
        let due = DueStep::begin(sagas, &saga, input)
            .await
            .map_err(FunctionError::new)?;
        return Ok(due.map(|due| (due, Action::Execute)));
    }
    let next = event
        .decode::<Event<D>>()
        .map_err(FunctionError::new)?
        .next();
    let Some(next) = next.filter(|next: &Due<D::Step>| next.step == E::STEP) else {
        return Ok(None);
    };
    let due = DueStep::load(sagas, &event.stream, next)
        .await
        .map_err(FunctionError::new)?;
    Ok(due.map(|due| (due, next.action)))
}
