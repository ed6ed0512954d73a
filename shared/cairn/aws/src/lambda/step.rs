//! Functions that execute and compensate one step of a saga.
//!
//! An event for a step that is no longer due is acknowledged without an effect. After an error the
//! step stays due.

use std::sync::Arc;

use cairn::{
    commit::{Context, RecordedEvent},
    gate::Delivery,
    saga::{Definition, Saga},
    step::{DueStep, StepFailure, StepHandler, StepOutcome},
};
use tokio::time::Instant;

use crate::{
    dynamodb::{Deadlines, Repository},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Throttled, consumer, metrics::Metrics,
    },
};

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
    sagas: Repository<Saga<D>>,
    deadlines: Option<Deadlines>,
    handler: H,
}

impl<D: Definition, H: StepHandler<D>> Parts<D, H> {
    async fn run(&self, event: RecordedEvent, context: Context) -> Result<Delivery, FunctionError> {
        let due = DueStep::from_event::<H, _>(&self.sagas, &event).await;
        let Some(due) = due? else {
            tracing::info!("step skipped: not pending");
            return Ok(Delivery::Duplicate);
        };
        let asked = Instant::now();
        let outcome = self.app.waiting(due.perform(&self.handler)).await;
        match (outcome, &self.deadlines) {
            (Ok(outcome), _) => self.record(due, outcome, asked, context).await,
            (Err(StepFailure::Throttled { retry_after, .. }), Some(deadlines)) => {
                let throttled = Throttled { retry_after };
                self.postpone(deadlines, &due, throttled).await
            }
            (Err(failure), _) => Err(failure.into()),
        }
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
        outcome: StepOutcome,
        asked: Instant,
        context: Context,
    ) -> Result<Delivery, FunctionError> {
        let done = outcome.result.is_ok();
        let action = due.action();
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
