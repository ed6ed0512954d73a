//! Takes the money that was authorized for an order; its compensation gives it back.

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
        CapturePayment {
            store,
            provider: SandboxPayments,
        },
    )
}

struct CapturePayment<P> {
    store: DynamoStore,
    provider: P,
}

impl<P: PaymentProvider + 'static> Effect<Fulfilment> for CapturePayment<P> {
    const STEP: Step = Step::CapturePayment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let (key, stream) = (due.idempotency_key(), due.input().order_id.payment_stream());
        let payment = load::<Payment>(&self.store, &stream)
            .await
            .map_err(FunctionError::new)?;
        if let State::Authorized(authorization) = &payment.state {
            let answer = retry::call(3, LIMIT, |attempt| {
                self.provider
                    .capture(Call { key: &key, attempt }, authorization)
            });
            if let Err(reason) = answer.await.map_err(FunctionError::new)? {
                return Ok(Plan::failed(reason, vec![]));
            }
        }
        // Without an authorization the payment itself refuses the record, and the step fails.
        Ok(Plan::done(vec![Enlisted::new::<Payment>(
            stream,
            Command::RecordCapture,
        )]))
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let (key, stream) = (due.idempotency_key(), due.input().order_id.payment_stream());
        let payment = load::<Payment>(&self.store, &stream)
            .await
            .map_err(FunctionError::new)?;
        if let State::Captured(authorization) = &payment.state {
            let answer = retry::call(3, LIMIT, |attempt| {
                self.provider
                    .refund(Call { key: &key, attempt }, authorization)
            });
            if let Err(reason) = answer.await.map_err(FunctionError::new)? {
                return Ok(Plan::failed(reason, vec![]));
            }
        }
        Ok(Plan::done(vec![Enlisted::new::<Payment>(
            stream,
            Command::RecordRefund,
        )]))
    }
}
