//! The step on a store in memory.

use std::sync::Arc;

use cairn::{
    personal_data::{Key, SealContext, Sealed},
    saga::Due,
    step::testing::{given, perform, reach},
    store::memory::MemoryStore,
};
use cairn_aws::dynamodb::KeyError;
use orders::{
    fulfilment::{Saga, State as SagaState},
    order,
};

use self::sample_order::{input, label, lines, order_id, request};
use super::*;

#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

type Store = Arc<MemoryStore>;

/// The key of the customer, or none after its erasure.
struct Keys(Option<Key>);

impl CustomerKeys for Keys {
    async fn open(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed<Address>,
    ) -> Result<Option<Address>, KeyError> {
        let key = self.0.as_ref();
        Ok(key.map(|key| key.open(context, sealed).unwrap()))
    }
}

fn key() -> Key {
    Key::new(&[7; 32])
}

/// Returns the command that places the sample order to a country.
fn place(country: &str) -> order::Command {
    let mut request = request();
    request.ship_to.country = country.parse().unwrap();
    let stream = Order::stream(&order_id());
    let context = personal::ship_to(&request.customer_id, &stream);
    let ship_to = key().seal(&context, &request.ship_to).unwrap();
    order::Command::Place(Box::new(request.sealed(lines(), ship_to, None)))
}

type ShipmentStep = ArrangeShipment<Store, Keys, SandboxCarrier>;

fn step(store: &Store, key: Option<Key>) -> ShipmentStep {
    ArrangeShipment {
        orders: Repository::new(store.clone()),
        shipments: Repository::new(store.clone()),
        customers: Keys(key),
        carrier: SandboxCarrier,
    }
}

/// Executes the step for an order to a country. Returns the shipment and the saga after it.
async fn arrange(country: &str, key: Option<Key>) -> (State, SagaState) {
    let store = Store::default();
    let step = step(&store, key);
    let order = Order::stream(&order_id());
    given(&step.orders, &order, &[place(country)]).await;
    run(Due::execute(Step::ArrangeShipment), &store, &step).await
}

async fn run(due: Due<Step>, store: &Store, step: &ShipmentStep) -> (State, SagaState) {
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let due = reach(&sagas, &Saga::stream(&order_id()), input(), due).await;
    let saga = perform(&sagas, due, step).await;
    let shipment = Shipment::stream(&order_id());
    (step.shipments.load(&shipment).await.unwrap().state, saga)
}

#[tokio::test]
async fn a_shipment_is_arranged_to_the_decrypted_address() {
    let (shipment, saga) = arrange("DE", Some(key())).await;
    assert!(matches!(shipment, State::Arranged(_)), "{shipment:?}");
    assert_eq!(saga.due(), Some(Due::execute(Step::CapturePayment)));
}

#[tokio::test]
async fn an_address_that_the_carrier_refuses_fails_the_step() {
    let (shipment, saga) = arrange("XX", Some(key())).await;
    assert_eq!(shipment, State::Refused);
    assert_eq!(saga.due(), Some(Due::compensate(Step::AuthorizePayment)));
    let reason = saga.reason.as_deref();
    assert_eq!(reason, Some("the carrier does not deliver to XX"));
}

#[tokio::test]
async fn nothing_is_shipped_to_a_customer_whose_data_was_erased() {
    let (shipment, saga) = arrange("DE", None).await;
    assert_eq!(shipment, State::Refused);
    assert_eq!(saga.due(), Some(Due::compensate(Step::AuthorizePayment)));
    assert_eq!(saga.reason.as_deref(), Some(FORGOTTEN));
}

#[tokio::test]
async fn without_its_order_the_step_stays_due() {
    let store = Store::default();
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let due = Due::execute(Step::ArrangeShipment);
    let due = reach(&sagas, &Saga::stream(&order_id()), input(), due).await;
    let failure = due.perform(&step(&store, Some(key()))).await.unwrap_err();
    assert!(matches!(failure, StepFailure::Transient(_)), "{failure}");
}

#[tokio::test]
async fn the_compensation_cancels_the_label() {
    let store = Store::default();
    let step = step(&store, Some(key()));
    let arranged = Command::RecordArrangement(label());
    given(&step.shipments, &Shipment::stream(&order_id()), &[arranged]).await;
    let (shipment, saga) = run(Due::compensate(Step::ArrangeShipment), &store, &step).await;
    assert_eq!(shipment, State::Cancelled);
    assert_eq!(saga.due(), Some(Due::compensate(Step::AuthorizePayment)));
}
