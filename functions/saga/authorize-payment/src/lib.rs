//! Authorizes the payment of an order; the compensation voids the authorization.

use cairn::{
    Aggregate,
    provider::ProviderError,
    repository::Repository,
    step::{DueStep, Enlisted, StepFailure, StepHandler, StepOutcome},
    store::EventStore,
};
use cairn_aws::lambda::{AppContext, ConfigError, Handler, step};
use orders::{
    fulfilment::{Fulfilment, Step},
    payment::{Command, Payment, State},
    providers::{AuthorizationRequest, CALL_LIMITS, PaymentProvider},
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
    step::function(app, AuthorizePayment { payments, provider })
}

/// The step on any store.
pub struct AuthorizePayment<S, P> {
    pub payments: Repository<Payment, S>,
    pub provider: P,
}

impl<S, P> StepHandler<Fulfilment> for AuthorizePayment<S, P>
where
    S: EventStore + Clone + 'static,
    P: PaymentProvider + 'static,
{
    const STEP: Step = Step::AuthorizePayment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let input = due.input();
        let (amount, stream) = (input.total(), Payment::stream(&input.order_id));
        let record = |command| Enlisted::new(&self.payments, &stream, command);
        let answer = due.ask(CALL_LIMITS, |call| {
            self.provider.authorize(call, &input.payment_token, amount)
        });
        match answer.await {
            Ok(authorization) => {
                let authorized = Command::RecordAuthorization(authorization);
                Ok(StepOutcome::done([record(authorized)]))
            }
            Err(ProviderError::Permanent(reason)) => {
                let declined = Command::RecordDecline {
                    amount,
                    reason: reason.clone(),
                };
                Ok(StepOutcome::failed(reason, [record(declined)]))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let input = due.input();
        let stream = Payment::stream(&input.order_id);
        let payment = self.payments.load(&stream).await?.state;
        match &payment {
            // Without a record the response may have been lost, or the provider may still process
            // the request.
            State::None | State::Authorized(_) => {
                let request = AuthorizationRequest {
                    key: &due.execution_key(),
                    token: &input.payment_token,
                    amount: input.total(),
                    reference: reference(&payment),
                };
                due.ask(CALL_LIMITS, |call| self.provider.void(call, request))
                    .await?;
            }
            State::Declined | State::Captured(_) | State::Voided | State::Refunded => {}
        }
        let record = Enlisted::new(&self.payments, &stream, Command::RecordVoid);
        Ok(StepOutcome::done([record]))
    }
}

fn reference(payment: &State) -> Option<&str> {
    match payment {
        State::Authorized(authorization) => Some(&authorization.reference),
        State::None | State::Declined | State::Captured(_) | State::Voided | State::Refunded => {
            None
        }
    }
}

#[cfg(test)]
mod tests;
