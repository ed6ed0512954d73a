//! Authorizes the payment of an order; the compensation voids the authorization.

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
    providers::{AuthorizationRequest, PaymentProvider},
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
        AuthorizePayment {
            payments: app.repository()?,
            provider,
        },
    )
}

struct AuthorizePayment<P> {
    payments: Repository<Payment>,
    provider: P,
}

impl<P: PaymentProvider + 'static> StepHandler<Fulfilment> for AuthorizePayment<P> {
    const STEP: Step = Step::AuthorizePayment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let (input, key) = (due.input(), due.idempotency_key());
        let amount = input.total();
        let answer = step::ask(&key, |call| {
            self.provider.authorize(call, &input.payment_token, amount)
        });
        let stream = input.order_id.payment_stream();
        let record = |command| Enlisted::new(&self.payments, &stream, command);
        Ok(match answer.await? {
            Ok(authorization) => {
                StepOutcome::done(vec![record(Command::RecordAuthorization(authorization))])
            }
            Err(reason) => {
                let decline = Command::RecordDecline {
                    amount,
                    reason: reason.clone(),
                };
                StepOutcome::failed(reason, vec![record(decline)])
            }
        })
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let (input, key) = (due.input(), due.idempotency_key());
        let stream = input.order_id.payment_stream();
        let payment = self.payments.load(&stream).await?;
        match &payment.state {
            // Without a record the response may have been lost, or the provider may still process
            // the request.
            known @ (State::None | State::Authorized(_)) => {
                let asked = AuthorizationRequest {
                    key: &due.execution_key(),
                    token: &input.payment_token,
                    amount: input.total(),
                    reference: reference(known),
                };
                let voided = step::ask(&key, |call| self.provider.void(call, asked));
                if let Err(reason) = voided.await? {
                    return Ok(StepOutcome::failed(reason, vec![]));
                }
            }
            State::Declined | State::Captured(_) | State::Voided | State::Refunded => {}
        }
        Ok(StepOutcome::done(vec![Enlisted::new(
            &self.payments,
            &stream,
            Command::RecordVoid,
        )]))
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
