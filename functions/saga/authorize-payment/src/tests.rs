//! The step on a store in memory.

use std::sync::Arc;

use cairn::{
    saga::Due,
    step::testing::{given, perform, reach},
    store::memory::MemoryStore,
};
use orders::{
    fulfilment::{Input, Phase, Saga, State as SagaState},
    payment::Authorization,
    providers::SandboxPayments,
};

use self::sample_order::{authorization, input, order_id};
use super::*;

#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

type Store = Arc<MemoryStore>;

/// Runs the step with a payment token, after these commands to the payment. Returns the payment
/// and the saga after it.
async fn run(due: Due<Step>, token: &str, commands: &[Command]) -> (State, SagaState) {
    let store = Store::default();
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let payments = Repository::<Payment, Store>::new(store);
    let payment = Payment::stream(&order_id());
    given(&payments, &payment, commands).await;
    let step = AuthorizePayment {
        payments: payments.clone(),
        provider: SandboxPayments,
    };
    let input = Input {
        payment_token: token.parse().unwrap(),
        ..input()
    };
    let due = reach(&sagas, &Saga::stream(&order_id()), input, due).await;
    let saga = perform(&sagas, due, &step).await;
    (payments.load(&payment).await.unwrap().state, saga)
}

#[tokio::test]
async fn an_authorization_of_the_total_is_recorded() {
    let due = Due::execute(Step::AuthorizePayment);
    let (payment, saga) = run(due, "tok_visa", &[]).await;
    let State::Authorized(Authorization { amount, .. }) = payment else {
        panic!("the payment is not authorized: {payment:?}");
    };
    assert_eq!(amount, input().total());
    assert_eq!(saga.due(), Some(Due::execute(Step::ArrangeShipment)));
}

#[tokio::test]
async fn a_declined_payment_fails_the_step() {
    let due = Due::execute(Step::AuthorizePayment);
    let (payment, saga) = run(due, "tok_declined", &[]).await;
    assert_eq!(payment, State::Declined);
    assert_eq!(saga.due(), Some(Due::compensate(Step::ReserveStock)));
    assert_eq!(saga.reason.as_deref(), Some("payment declined"));
}

#[tokio::test]
async fn the_compensation_voids_an_authorization() {
    let due = Due::compensate(Step::AuthorizePayment);
    let authorized = Command::RecordAuthorization(authorization());
    let (payment, saga) = run(due, "tok_visa", &[authorized]).await;
    assert_eq!(payment, State::Voided);
    assert_eq!(saga.due(), Some(Due::compensate(Step::ReserveStock)));
}

#[tokio::test]
async fn a_void_that_the_provider_rejects_needs_manual_action() {
    let due = Due::compensate(Step::AuthorizePayment);
    let kept = Authorization {
        reference: "kept_1".to_owned(),
        ..authorization()
    };
    let authorized = Command::RecordAuthorization(kept.clone());
    let (payment, saga) = run(due, "tok_visa", &[authorized]).await;
    assert_eq!(payment, State::Authorized(kept));
    let Phase::Stuck { step, failure, .. } = saga.phase else {
        panic!("the saga is not stuck: {saga:?}");
    };
    let rejected = (Step::AuthorizePayment, "the bank refuses");
    assert_eq!((step, failure.as_str()), rejected);
}
