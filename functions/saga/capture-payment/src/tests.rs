//! The step on a store in memory.

use std::sync::Arc;

use cairn::{
    saga::Due,
    step::testing::{given, perform, reach},
    store::memory::MemoryStore,
};
use orders::{
    fulfilment::{Phase, Saga, State as SagaState},
    payment::Authorization,
    providers::SandboxPayments,
};

use self::sample_order::{input, order_id};
use super::*;

#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

type Store = Arc<MemoryStore>;

fn authorization(reference: &str) -> Authorization {
    Authorization {
        reference: reference.to_owned(),
        amount: input().total(),
    }
}

/// Runs the step after these commands to the payment. Returns the payment and the saga after it.
async fn run(due: Due<Step>, commands: &[Command]) -> (State, SagaState) {
    let store = Store::default();
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let payments = Repository::<Payment, Store>::new(store);
    let (saga, payment) = (Saga::stream(&order_id()), Payment::stream(&order_id()));
    given(&payments, &payment, commands).await;
    let step = CapturePayment {
        payments: payments.clone(),
        provider: SandboxPayments,
    };
    let due = reach(&sagas, &saga, input(), due).await;
    let saga = perform(&sagas, due, &step).await;
    (payments.load(&payment).await.unwrap().state, saga)
}

#[tokio::test]
async fn an_authorized_payment_is_captured() {
    let authorized = Command::RecordAuthorization(authorization("auth_1"));
    let (payment, saga) = run(Due::execute(Step::CapturePayment), &[authorized]).await;
    assert_eq!(payment, State::Captured(authorization("auth_1")));
    assert_eq!(saga.due(), Some(Due::execute(Step::ConfirmOrder)));
}

#[tokio::test]
async fn a_payment_without_an_authorization_fails_the_step() {
    let (payment, saga) = run(Due::execute(Step::CapturePayment), &[]).await;
    assert_eq!(payment, State::None);
    assert_eq!(saga.due(), Some(Due::compensate(Step::ArrangeShipment)));
}

#[tokio::test]
async fn a_captured_payment_is_refunded() {
    let authorized = Command::RecordAuthorization(authorization("auth_1"));
    let commands = [authorized, Command::RecordCapture];
    let (payment, saga) = run(Due::compensate(Step::CapturePayment), &commands).await;
    assert_eq!(payment, State::Refunded);
    assert_eq!(saga.due(), Some(Due::compensate(Step::ArrangeShipment)));
}

#[tokio::test]
async fn a_refund_that_the_provider_rejects_needs_manual_action() {
    let authorized = Command::RecordAuthorization(authorization("kept_1"));
    let commands = [authorized, Command::RecordCapture];
    let (payment, saga) = run(Due::compensate(Step::CapturePayment), &commands).await;
    assert_eq!(payment, State::Captured(authorization("kept_1")));
    let Phase::Stuck { step, failure, .. } = saga.phase else {
        panic!("the saga is not stuck: {saga:?}");
    };
    assert_eq!(
        (step, failure.as_str()),
        (Step::CapturePayment, "the bank refuses")
    );
}
