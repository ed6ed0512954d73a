//! Has the payment of an order authorized; its compensation voids the authorization.

use std::time::Duration;

use cairn::{
    dynamodb::DynamoStore,
    handle::load,
    lambda::{
        ConfigError, Environment, Function, FunctionError,
        step::{self, Effect},
    },
    provider::Call,
    retry,
    step::{DueStep, Enlisted, Plan},
};
use orders::{
    fulfilment::{Fulfilment, Step},
    payment::{Command, Payment, State},
    providers::{PaymentProvider, SandboxPayments},
};

/// How long the provider may take for one answer.
const LIMIT: Duration = Duration::from_secs(2);

/// The function. It needs `EVENTS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let store = environment.event_store()?;
    step::function(
        environment,
        AuthorizePayment {
            store,
            provider: SandboxPayments,
        },
    )
}

struct AuthorizePayment<P> {
    store: DynamoStore,
    provider: P,
}

impl<P: PaymentProvider + 'static> Effect<Fulfilment> for AuthorizePayment<P> {
    const STEP: Step = Step::AuthorizePayment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let (input, key) = (due.input(), due.idempotency_key());
        let amount = input.total();
        let answer = retry::call(3, LIMIT, |attempt| {
            let call = Call { key: &key, attempt };
            self.provider.authorize(call, &input.payment_token, amount)
        });
        let record = |command| Enlisted::new::<Payment>(input.order_id.payment_stream(), command);
        Ok(match answer.await.map_err(FunctionError::new)? {
            Ok(authorization) => {
                Plan::done(vec![record(Command::RecordAuthorization(authorization))])
            }
            Err(reason) => {
                let decline = Command::RecordDecline {
                    amount,
                    reason: reason.clone(),
                };
                Plan::failed(reason, vec![record(decline)])
            }
        })
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let (key, stream) = (due.idempotency_key(), due.input().order_id.payment_stream());
        let payment = load::<Payment>(&self.store, &stream)
            .await
            .map_err(FunctionError::new)?;
        if let State::Authorized(authorization) = &payment.state {
            let answer = retry::call(3, LIMIT, |attempt| {
                self.provider
                    .void(Call { key: &key, attempt }, authorization)
            });
            if let Err(reason) = answer.await.map_err(FunctionError::new)? {
                return Ok(Plan::failed(reason, vec![]));
            }
        }
        Ok(Plan::done(vec![Enlisted::new::<Payment>(
            stream,
            Command::RecordVoid,
        )]))
    }
}
