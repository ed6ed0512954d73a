//! The fulfilment of an order through all its steps, on a store in memory.
//!
//! Every event is delivered twice, because EventBridge delivers at least once.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::sync::Arc;

use arrange_shipment::{ArrangeShipment, CustomerKeys};
use authorize_payment::AuthorizePayment;
use cairn::{
    Aggregate, Commit, RecordedEvent, StreamId,
    gate::Delivery,
    personal_data::{Key, SealContext, Sealed},
    repository::Repository,
    step::{
        DueStep, StepHandler,
        testing::{context, given, perform},
    },
    store::{EventStore, ReadRange, memory::MemoryStore},
};
use cairn_aws::{dynamodb::KeyError, functions::forward_cancellation};
use capture_payment::CapturePayment;
use confirm_order::ConfirmOrder;
use orders::{
    fulfilment::{Due, Event, Fulfilment, Phase, Saga, Step},
    order::{self, Canceller, Order},
    payment::{self, Payment},
    personal,
    providers::{SandboxCarrier, SandboxPayments, SandboxScreening},
    shipment::{self, Shipment},
    stock::{self, Stock},
    values::Address,
};
use reserve_stock::ReserveStock;
use screen_order::ScreenOrder;

use self::sample_order::{lines, order_id, request, text};

#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

type Store = Arc<MemoryStore>;

/// The same key for every customer.
struct Keys;

fn key() -> Key {
    Key::new(&[7; 32])
}

impl CustomerKeys for Keys {
    async fn open(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed<Address>,
    ) -> Result<Option<Address>, KeyError> {
        Ok(Some(key().open(context, sealed).unwrap()))
    }
}

/// A shop with ten units of each SKU, in which the sample order is placed.
struct Shop(Store);

impl Shop {
    async fn new(country: &str) -> Self {
        let shop = Self(Store::default());
        let receive = stock::Command::Receive(10_u64.try_into().unwrap());
        for sku in ["TEA-01", "CUP-07"] {
            let stream = Stock::stream(&sku.parse().unwrap());
            given::<Stock, _>(&shop.streams(), &stream, std::slice::from_ref(&receive)).await;
        }
        let mut request = request();
        request.ship_to.country = country.parse().unwrap();
        let stream = Order::stream(&order_id());
        let context = personal::ship_to(&request.customer_id, &stream);
        let ship_to = key().seal(&context, &request.ship_to).unwrap();
        let place = order::Command::Place(Box::new(request.sealed(lines(), ship_to, None)));
        given::<Order, _>(&shop.streams(), &stream, &[place]).await;
        shop
    }

    fn streams<A: Aggregate>(&self) -> Repository<A, Store> {
        Repository::new(self.0.clone())
    }

    async fn state<A: Aggregate>(&self, id: &A::Id) -> A::State {
        let stream = self.streams::<A>().load(&A::stream(id)).await;
        stream.unwrap().state
    }

    /// Returns the units of tea on hand and reserved.
    async fn tea(&self) -> (u64, u64) {
        let tea = self.state::<Stock>(&"TEA-01".parse().unwrap()).await;
        (tea.on_hand(), tea.reserved())
    }

    async fn history(&self, stream: &StreamId) -> Vec<RecordedEvent> {
        let commits = self.0.read(stream, &ReadRange::all()).await.unwrap();
        commits.iter().flat_map(Commit::recorded).collect()
    }

    /// Delivers the events of the order's fulfilment, old and new, until no step follows. Returns
    /// the number of steps that were executed or compensated.
    async fn fulfil(&self) -> usize {
        let order = self.history(&Order::stream(&order_id())).await;
        let placed = order.first().unwrap();
        let mut steps = self.deliver(placed, Some(Step::ScreenOrder)).await;
        for delivered in 0.. {
            let events = self.history(&Saga::stream(&order_id())).await;
            let Some(event) = events.get(delivered) else {
                break;
            };
            let next = event.decode::<Event>().unwrap().next();
            steps += self.deliver(event, next.map(|due: Due| due.step)).await;
        }
        steps
    }

    /// Delivers an event twice to the step that its rule selects.
    async fn deliver(&self, event: &RecordedEvent, step: Option<Step>) -> usize {
        let mut steps = 0;
        for _ in 0..2 {
            steps += usize::from(match step {
                None => false,
                Some(Step::ScreenOrder) => {
                    let screening = SandboxScreening;
                    let orders = self.streams();
                    self.run(event, &ScreenOrder { orders, screening }).await
                }
                Some(Step::ReserveStock) => {
                    let stocks = self.streams();
                    self.run(event, &ReserveStock { stocks }).await
                }
                Some(Step::AuthorizePayment) => {
                    let (payments, provider) = (self.streams(), SandboxPayments);
                    let step = AuthorizePayment { payments, provider };
                    self.run(event, &step).await
                }
                Some(Step::ArrangeShipment) => {
                    let step = ArrangeShipment {
                        orders: self.streams(),
                        shipments: self.streams(),
                        customers: Keys,
                        carrier: SandboxCarrier,
                    };
                    self.run(event, &step).await
                }
                Some(Step::CapturePayment) => {
                    let (payments, provider) = (self.streams(), SandboxPayments);
                    let step = CapturePayment { payments, provider };
                    self.run(event, &step).await
                }
                Some(Step::ConfirmOrder) => {
                    let (orders, stocks) = (self.streams(), self.streams());
                    self.run(event, &ConfirmOrder { orders, stocks }).await
                }
            });
        }
        steps
    }

    /// Runs a step if the event makes it due and it has no outcome yet.
    async fn run<H: StepHandler<Fulfilment>>(&self, event: &RecordedEvent, step: &H) -> bool {
        let sagas = self.streams::<Saga>();
        let due = DueStep::from_event::<H, _>(&sagas, event).await.unwrap();
        let is_due = due.is_some();
        if let Some(due) = due {
            perform(&sagas, due, step).await;
        }
        is_due
    }
}

#[tokio::test]
async fn an_order_is_fulfilled_by_its_steps() {
    let shop = Shop::new("DE").await;
    assert_eq!(shop.fulfil().await, 6);
    let saga = shop.state::<Saga>(&order_id()).await;
    assert!(matches!(saga.phase, Phase::Completed { .. }), "{saga:?}");
    let order = shop.state::<Order>(&order_id()).await;
    assert_eq!(order.status(), Some("confirmed"));
    assert_eq!(shop.tea().await, (7, 0));
    let payment = shop.state::<Payment>(&order_id()).await;
    assert!(
        matches!(payment, payment::State::Captured(_)),
        "{payment:?}"
    );
    let shipment = shop.state::<Shipment>(&order_id()).await;
    assert!(
        matches!(shipment, shipment::State::Arranged(_)),
        "{shipment:?}"
    );
}

#[tokio::test]
async fn a_refused_shipment_undoes_the_steps_before_it() {
    let shop = Shop::new("XX").await;
    assert_eq!(shop.fulfil().await, 7);
    let saga = shop.state::<Saga>(&order_id()).await;
    assert_eq!(saga.phase, Phase::Aborted);
    let reason = "the carrier does not deliver to XX";
    assert_eq!(saga.reason.as_deref(), Some(reason));
    let history = shop.history(&Order::stream(&order_id())).await;
    let cancelled = order::Event::Cancelled {
        customer_id: request().customer_id,
        reason: text(reason),
        by: Canceller::Fulfilment,
    };
    assert_eq!(
        history.last().unwrap().decode::<order::Event>().unwrap(),
        cancelled
    );
    assert_eq!(shop.tea().await, (10, 0));
    let payment = shop.state::<Payment>(&order_id()).await;
    assert_eq!(payment, payment::State::Voided);
}

#[tokio::test]
async fn a_cancelled_order_is_unwound_once() {
    let shop = Shop::new("DE").await;
    shop.fulfil().await;
    let order = Order::stream(&order_id());
    let cancel = order::Command::Cancel {
        reason: text("changed my mind"),
        by: Canceller::Customer,
    };
    let orders = shop.streams::<Order>();
    let cancelled = orders.handle(&order, &cancel, &context(300)).await;
    cancelled.unwrap();
    let history = shop.history(&order).await;
    for delivery in [Delivery::Applied, Delivery::Duplicate] {
        let (sagas, event) = (shop.streams(), history.last().unwrap());
        let forwarded = forward_cancellation::<Fulfilment, _>(&sagas, event, &context(301)).await;
        assert_eq!(forwarded.unwrap(), delivery);
    }
    assert_eq!(shop.fulfil().await, 6);
    let saga = shop.state::<Saga>(&order_id()).await;
    assert_eq!(saga.phase, Phase::Aborted);
    assert_eq!(shop.tea().await, (10, 0));
    let payment = shop.state::<Payment>(&order_id()).await;
    assert_eq!(payment, payment::State::Refunded);
    let shipment = shop.state::<Shipment>(&order_id()).await;
    assert_eq!(shipment, shipment::State::Cancelled);
}

#[tokio::test]
async fn an_event_that_cancels_nothing_is_an_error() {
    let shop = Shop::new("DE").await;
    let history = shop.history(&Order::stream(&order_id())).await;
    let (sagas, placed) = (shop.streams(), history.first().unwrap());
    let forwarded = forward_cancellation::<Fulfilment, _>(&sagas, placed, &context(300)).await;
    let error = forwarded.unwrap_err().to_string();
    assert!(error.contains("cancels no saga"), "{error}");
}
