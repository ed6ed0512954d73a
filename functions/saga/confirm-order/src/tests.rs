//! The step on a store in memory.

use std::sync::Arc;

use cairn::{
    saga::Due,
    step::testing::{given, perform, reach},
    store::memory::MemoryStore,
};
use orders::{
    fulfilment::{Phase, Saga, State},
    order::Canceller,
};

use self::sample_order::{input, order_id, placed, text};
use super::*;

#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

type Store = Arc<MemoryStore>;

/// Runs the step after these commands to the order and to the stock of each SKU, of which ten units
/// were received. Returns the status of the order, the units of tea on hand and reserved, and the
/// saga after it.
async fn run(
    due: Due<Step>,
    commands: &[order::Command],
    stock: &[stock::Command],
) -> (Option<&'static str>, (u64, u64), State) {
    let store = Store::default();
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let step = ConfirmOrder {
        orders: Repository::<Order, Store>::new(store.clone()),
        stocks: Repository::<Stock, Store>::new(store),
    };
    let order = Order::stream(&order_id());
    let place = [order::Command::Place(Box::new(placed()))];
    given(&step.orders, &order, &[&place[..], commands].concat()).await;
    let receive = [stock::Command::Receive(10_u64.try_into().unwrap())];
    for item in items(&input().lines) {
        let stream = Stock::stream(&item.sku);
        given(&step.stocks, &stream, &[&receive[..], stock].concat()).await;
    }
    let due = reach(&sagas, &Saga::stream(&order_id()), input(), due).await;
    let saga = perform(&sagas, due, &step).await;
    let status = step.orders.load(&order).await.unwrap().state.status();
    let tea = Stock::stream(&"TEA-01".parse().unwrap());
    let tea = step.stocks.load(&tea).await.unwrap().state;
    (status, (tea.on_hand(), tea.reserved()), saga)
}

fn reserved() -> stock::Command {
    let order = order_id();
    stock::Command::Reserve { order, quantity: 3 }
}

#[tokio::test]
async fn the_order_is_confirmed_and_its_stock_is_allocated() {
    let due = Due::execute(Step::ConfirmOrder);
    let (status, tea, saga) = run(due, &[], &[reserved()]).await;
    assert_eq!((status, tea), (Some("confirmed"), (7, 0)));
    assert!(matches!(saga.phase, Phase::Completed { .. }), "{saga:?}");
}

#[tokio::test]
async fn the_stock_of_a_cancelled_order_is_not_allocated() {
    let cancel = order::Command::Cancel {
        reason: text("changed my mind"),
        by: Canceller::Customer,
    };
    let due = Due::execute(Step::ConfirmOrder);
    let (status, tea, saga) = run(due, &[cancel], &[reserved()]).await;
    assert_eq!((status, tea), (Some("cancelled"), (10, 3)));
    assert_eq!(saga.due(), Some(Due::compensate(Step::CapturePayment)));
}

#[tokio::test]
async fn the_compensation_reserves_the_allocated_stock_again() {
    let order = order_id();
    let allocated = [reserved(), stock::Command::Allocate { order }];
    let due = Due::compensate(Step::ConfirmOrder);
    let (status, tea, saga) = run(due, &[order::Command::Confirm], &allocated).await;
    // The compensation of the first step cancels the order.
    assert_eq!((status, tea), (Some("confirmed"), (10, 3)));
    assert_eq!(saga.due(), Some(Due::compensate(Step::CapturePayment)));
}
