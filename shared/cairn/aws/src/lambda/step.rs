//! Functions that execute and compensate one step of a saga.
//!
//! An event for a step that is no longer due is acknowledged without an effect. After an error the
//! step stays due. The steps of a batch are executed one after the other by [`function`], and
//! recorded together by [`grouped`].

use std::sync::Arc;

use cairn::{
    commit::{Context, RecordedEvent},
    gate::Delivery,
    saga::{Definition, Saga},
    step::{DueStep, StepDecider, StepFailure, StepHandler, StepOutcome, group::execute_all},
    store::group::GroupCommit,
};
use tokio::time::Instant;

use crate::{
    dynamodb::{Deadlines, DynamoStore, Repository},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Throttled,
        consumer::{self, Outcomes},
        metrics::Metrics,
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

/// Creates the function of a step that calls no provider. Its rule selects the events that make the
/// step due.
///
/// The steps of a batch are recorded in groups, with as few appends as possible. `in_group` creates
/// the handler on the store of a group. A single step is executed as by [`function`].
pub fn grouped<D: Definition, H: StepDecider<D>, G: StepDecider<D>>(
    app: &AppContext,
    handler: H,
    in_group: impl Fn(&H, &GroupCommit<DynamoStore>) -> G + Send + Sync + 'static,
) -> Result<Handler, ConfigError> {
    let parts = Arc::new(Parts {
        app: app.clone(),
        sagas: app.repository()?,
        deadlines: None,
        handler,
    });
    let in_group = Arc::new(in_group);
    consumer::batches(app, move |arrivals| {
        let (parts, in_group) = (parts.clone(), in_group.clone());
        async move {
            let events: Vec<_> = arrivals
                .into_iter()
                .map(|arrival| (arrival.event, arrival.context))
                .collect();
            if events.len() == 1 {
                return parts.run_each(events).await;
            }
            let handler = |group: &_| in_group(&parts.handler, group);
            let results = execute_all(&parts.sagas, &events, handler);
            let Ok(results) = consumer::caught(results).await else {
                return parts.run_each(events).await;
            };
            let outcomes = events.iter().zip(results).map(|((event, _), result)| {
                consumer::trace(event);
                let recorded = result?;
                let step = <H as StepDecider<D>>::STEP;
                tracing::info!(?step, recorded, "step executed in a group");
                Ok(recorded_as(recorded))
            });
            outcomes.collect()
        }
    })
}

fn recorded_as(recorded: bool) -> Delivery {
    if recorded {
        Delivery::Applied
    } else {
        Delivery::Duplicate
    }
}

struct Parts<D: Definition, H> {
    app: AppContext,
    sagas: Repository<Saga<D>>,
    deadlines: Option<Deadlines>,
    handler: H,
}

impl<D: Definition, H: StepHandler<D>> Parts<D, H> {
    /// Executes steps one after the other: a single one, or those of a group in which the handler
    /// panicked.
    async fn run_each(&self, events: Vec<(RecordedEvent, Context)>) -> Outcomes {
        let mut outcomes = Outcomes::new();
        for (event, context) in events {
            consumer::trace(&event);
            let run = consumer::caught(self.run(event, context)).await;
            outcomes.push(run.unwrap_or_else(Err));
        }
        outcomes
    }

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
        Ok(recorded_as(recorded))
    }
}
