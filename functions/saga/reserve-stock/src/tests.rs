//! The step on a store in memory.

use std::sync::Arc;

use cairn::{
    saga::Due,
    step::testing::{given, perform, reach},
    store::memory::MemoryStore,
};
use orders::fulfilment::{Saga, State};

use self::sample_order::{input, order_id};
use super::*;

#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

type Store = Arc<MemoryStore>;

/// Runs the step after these commands to the stock of tea and of cups. Returns the available
/// quantities and the saga after it.
async fn run(due: Due<Step>, tea: &[Command], cups: &[Command]) -> ([u64; 2], State) {
    let store = Store::default();
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let stocks = Repository::<Stock, Store>::new(store);
    let streams = ["TEA-01", "CUP-07"].map(|sku| Stock::stream(&sku.parse().unwrap()));
    for (stream, commands) in streams.iter().zip([tea, cups]) {
        given(&stocks, stream, commands).await;
    }
    let step = ReserveStock {
        stocks: stocks.clone(),
    };
    let due = reach(&sagas, &Saga::stream(&order_id()), input(), due).await;
    let saga = perform(&sagas, due, &step).await;
    let mut available = [0; 2];
    for (available, stream) in available.iter_mut().zip(&streams) {
        *available = stocks.load(stream).await.unwrap().state.available();
    }
    (available, saga)
}

fn received(quantity: u64) -> Command {
    Command::Receive(quantity.try_into().unwrap())
}

fn reserved(quantity: u64) -> Command {
    let order = order_id();
    Command::Reserve { order, quantity }
}

#[tokio::test]
async fn every_sku_is_reserved_with_the_record_of_the_step() {
    let due = Due::execute(Step::ReserveStock);
    let (available, saga) = run(due, &[received(5)], &[received(1)]).await;
    assert_eq!(available, [2, 0]);
    assert_eq!(saga.due(), Some(Due::execute(Step::AuthorizePayment)));
}

#[tokio::test]
async fn without_enough_of_one_sku_none_is_reserved() {
    let due = Due::execute(Step::ReserveStock);
    let (available, saga) = run(due, &[received(2)], &[received(5)]).await;
    assert_eq!(available, [2, 5]);
    assert_eq!(saga.due(), Some(Due::compensate(Step::ScreenOrder)));
    assert!(saga.reason.is_some_and(|reason| reason.contains("TEA-01")));
}

#[tokio::test]
async fn the_compensation_releases_the_reserved_skus() {
    let due = Due::compensate(Step::ReserveStock);
    let tea = [received(5), reserved(3)];
    let (available, saga) = run(due, &tea, &[received(5)]).await;
    assert_eq!(available, [5, 5]);
    assert_eq!(saga.due(), Some(Due::compensate(Step::ScreenOrder)));
}
