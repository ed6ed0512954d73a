//! Captures the authorized payment of an order; the compensation refunds it.

use cairn::step::{DueStep, Enlisted, StepOutcome};
use cairn_aws::{
    dynamodb::Repository,
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        step::{self, StepHandler},
    },
};
use orders::{
    fulfilment::{Fulfilment, Step},
    payment::{Command, Payment, State},
    providers::PaymentProvider,
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
    step::function(
        app,
        CapturePayment {
            payments: app.repository()?,
            provider,
        },
    )
}

struct CapturePayment<P> {
    payments: Repository<Payment>,
    provider: P,
}

impl<P: PaymentProvider + 'static> StepHandler<Fulfilment> for CapturePayment<P> {
    const STEP: Step = Step::CapturePayment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let (key, stream) = (due.idempotency_key(), due.input().order_id.payment_stream());
        let payment = self.payments.load(&stream).await?;
        if let State::Authorized(authorization) = &payment.state
            && let Err(reason) =
                step::ask(&key, |call| self.provider.capture(call, authorization)).await?
        {
            return Ok(StepOutcome::failed(reason, vec![]));
        }
        // Without an authorization the payment rejects the record, and the step fails.
        Ok(StepOutcome::done(vec![Enlisted::new(
            &self.payments,
            &stream,
            Command::RecordCapture,
        )]))
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let (key, stream) = (due.idempotency_key(), due.input().order_id.payment_stream());
        let payment = self.payments.load(&stream).await?;
        match &payment.state {
            // An authorized payment may be captured already: the response may have been lost, or
            // the provider may still process the request.
            State::Authorized(authorization) | State::Captured(authorization) => {
                let asked_with = due.execution_key();
                let refunded = step::ask(&key, |call| {
                    self.provider.refund(call, authorization, &asked_with)
                });
                if let Err(reason) = refunded.await? {
                    return Ok(StepOutcome::failed(reason, vec![]));
                }
            }
            State::None | State::Declined | State::Voided | State::Refunded => {}
        }
        Ok(StepOutcome::done(vec![Enlisted::new(
            &self.payments,
            &stream,
            Command::RecordRefund,
        )]))
    }
}
