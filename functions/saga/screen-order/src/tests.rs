//! The step on a store in memory.

use std::sync::Arc;

use cairn::{
    saga::Due,
    step::testing::{given, perform, reach},
    store::{ReadRange, memory::MemoryStore},
};
use orders::{
    fulfilment::{Phase, Saga, State},
    order::Event,
};

use self::sample_order::{input, order_id, placed, text};
use super::*;

#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

type Store = Arc<MemoryStore>;

/// Runs the step for an order of a customer. Returns the last event of the order and the saga after
/// it.
async fn run(due: Due<Step>, customer: &str) -> (Event, State) {
    let store = Store::default();
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let step = ScreenOrder {
        orders: Repository::<Order, Store>::new(store.clone()),
        screening: SandboxScreening,
    };
    let stream = Order::stream(&order_id());
    let place = order::Command::Place(Box::new(placed()));
    given(&step.orders, &stream, &[place]).await;
    let input = Input {
        customer_id: customer.parse().unwrap(),
        ..input()
    };
    let due = reach(&sagas, &Saga::stream(&order_id()), input, due).await;
    let saga = perform(&sagas, due, &step).await;
    let commits = store.read(&stream, &ReadRange::all()).await.unwrap();
    let last = commits.last().unwrap().recorded().last().unwrap();
    (last.decode().unwrap(), saga)
}

fn cancelled(reason: &str) -> Event {
    Event::Cancelled {
        customer_id: placed().customer_id,
        reason: text(reason),
        by: Canceller::Fulfilment,
    }
}

#[tokio::test]
async fn an_accepted_order_continues_with_its_stock() {
    let (order, saga) = run(Due::execute(Step::ScreenOrder), "c-42").await;
    assert_eq!(order, Event::Placed(Box::new(placed())));
    assert_eq!(saga.due(), Some(Due::execute(Step::ReserveStock)));
}

#[tokio::test]
async fn a_rejected_order_is_cancelled_with_the_reason() {
    let (order, saga) = run(Due::execute(Step::ScreenOrder), "fraud-1").await;
    assert_eq!(order, cancelled("refused by fraud screening"));
    assert_eq!(saga.phase, Phase::Aborted);
}

#[tokio::test]
async fn the_compensation_cancels_the_order_with_the_reason_of_the_saga() {
    let (order, saga) = run(Due::compensate(Step::ScreenOrder), "c-42").await;
    assert_eq!(order, cancelled(saga.reason.as_deref().unwrap()));
    assert_eq!(saga.phase, Phase::Aborted);
}
