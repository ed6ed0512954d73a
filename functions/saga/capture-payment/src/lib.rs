//! Captures the authorized payment of an order; the compensation refunds it.

use cairn::{
    Aggregate,
    repository::Repository,
    step::{DueStep, Enlisted, StepFailure, StepHandler, StepOutcome},
    store::EventStore,
};
use cairn_aws::lambda::{AppContext, ConfigError, Handler, step};
use orders::{
    fulfilment::{Fulfilment, Step},
    payment::{Command, Payment, State},
    providers::{CALL_LIMITS, PaymentProvider},
};
use payments::Payments;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    with(app, Payments::from_app(app)?)
}

/// Builds the function with another payment provider.
pub fn with(
    app: &AppContext,
    provider: impl PaymentProvider + 'static,
) -> Result<Handler, ConfigError> {
    let payments = app.repository()?;
    step::function(app, CapturePayment { payments, provider })
}

/// The step on any store.
pub struct CapturePayment<S, P> {
    pub payments: Repository<Payment, S>,
    pub provider: P,
}

impl<S, P> StepHandler<Fulfilment> for CapturePayment<S, P>
where
    S: EventStore + Clone + 'static,
    P: PaymentProvider + 'static,
{
    const STEP: Step = Step::CapturePayment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let stream = Payment::stream(&due.input().order_id);
        if let State::Authorized(authorization) = &self.payments.load(&stream).await?.state {
            due.ask(CALL_LIMITS, |call| {
                self.provider.capture(call, authorization)
            })
            .await?;
        }
        // Without an authorization the payment rejects the record, and the step fails.
        let record = Enlisted::new(&self.payments, &stream, Command::RecordCapture);
        Ok(StepOutcome::done([record]))
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let stream = Payment::stream(&due.input().order_id);
        match &self.payments.load(&stream).await?.state {
            // An authorized payment may be captured already: the response may have been lost, or
            // the provider may still process the request.
            State::Authorized(authorization) | State::Captured(authorization) => {
                let captured_with = due.execution_key();
                due.ask(CALL_LIMITS, |call| {
                    self.provider.refund(call, authorization, &captured_with)
                })
                .await?;
            }
            State::None | State::Declined | State::Voided | State::Refunded => {}
        }
        let record = Enlisted::new(&self.payments, &stream, Command::RecordRefund);
        Ok(StepOutcome::done([record]))
    }
}

#[cfg(test)]
mod tests;
