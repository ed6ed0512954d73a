//! The first step: starts the fulfilment of an order and screens the order for fraud. Its
//! compensation is the last one and cancels the order.

use cairn::{
    Aggregate, RecordedEvent, StreamId,
    event::CodecError,
    provider::ProviderError,
    repository::Repository,
    saga::begun_by,
    step::{DueStep, Enlisted, StepFailure, StepHandler, StepOutcome},
    store::EventStore,
};
use cairn_aws::lambda::{AppContext, ConfigError, Handler, step};
use orders::{
    fulfilment::{Fulfilment, Input, Step},
    order::{self, Canceller, Order},
    providers::{CALL_LIMITS, SandboxScreening, Screening},
    values::Text,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    with(app, SandboxScreening)
}

/// Builds the function with another screening provider.
pub fn with(app: &AppContext, screening: impl Screening + 'static) -> Result<Handler, ConfigError> {
    let orders = app.repository()?;
    step::function(app, ScreenOrder { orders, screening })
}

/// The step on any store.
pub struct ScreenOrder<S, P> {
    pub orders: Repository<Order, S>,
    pub screening: P,
}

impl<S, P> StepHandler<Fulfilment> for ScreenOrder<S, P>
where
    S: EventStore + Clone + 'static,
    P: Screening + 'static,
{
    const STEP: Step = Step::ScreenOrder;

    fn begins(event: &RecordedEvent) -> Result<Option<(StreamId, Input)>, CodecError> {
        begun_by::<Fulfilment>(event)
    }

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let screened = due.ask(CALL_LIMITS, |call| self.screening.screen(call, due.input()));
        match screened.await {
            Ok(()) => Ok(StepOutcome::done([])),
            // Nothing else has happened yet, so the order is cancelled with the rejection.
            Err(ProviderError::Permanent(reason)) => {
                let cancel = self.cancel(due, &reason);
                Ok(StepOutcome::failed(reason, [cancel]))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        Ok(StepOutcome::done([self.cancel(due, due.reason())]))
    }
}

impl<S: EventStore + Clone + 'static, P> ScreenOrder<S, P> {
    fn cancel(&self, due: &DueStep<Fulfilment>, reason: &str) -> Enlisted {
        let command = order::Command::Cancel {
            reason: Text::truncated(reason),
            by: Canceller::Fulfilment,
        };
        Enlisted::new(&self.orders, &Order::stream(&due.input().order_id), command)
    }
}

#[cfg(test)]
mod tests;
