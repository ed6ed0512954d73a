//! The step on a store in memory.

use std::sync::Arc;

use cairn::{
    saga::Due,
    step::testing::{context, given, reach},
    store::memory::MemoryStore,
};
use orders::{
    fulfilment::{Input, Saga, State},
    values::Sku,
};
use serde_json::json;

use super::*;

type Store = Arc<MemoryStore>;

fn input() -> Input {
    let line = |sku: &str| {
        json!({
            "sku": sku,
            "quantity": 2,
            "unitPrice": { "amount": 1250, "currency": "EUR" },
        })
    };
    let input = json!({
        "orderId": "6f9619ff-8b86-4011-b42d-00cf4fc964ff",
        "customerId": "c-42",
        "lines": [line("TEA-01"), line("CUP-07")],
        "paymentToken": "tok_visa",
    });
    serde_json::from_value(input).unwrap()
}

fn sku(text: &str) -> Sku {
    text.parse().unwrap()
}

/// Executes the step with these quantities of tea and cups. Returns the available quantities and
/// the saga after it.
async fn reserve(tea: u64, cups: u64) -> ([u64; 2], State) {
    let store = Store::default();
    let sagas = Repository::<Saga, Store>::new(store.clone());
    let stocks = Repository::<Stock, Store>::new(store);
    let streams = ["TEA-01", "CUP-07"].map(|text| Stock::stream(&sku(text)));
    for (stream, quantity) in streams.iter().zip([tea, cups]) {
        let receive = Command::Receive(quantity.try_into().unwrap());
        given(&stocks, stream, &[receive]).await;
    }
    let step = ReserveStock {
        stocks: stocks.clone(),
    };
    let saga = Saga::stream(&input().order_id);
    let due = reach(&sagas, &saga, input(), Due::execute(Step::ReserveStock)).await;
    let outcome = due.perform(&step).await.unwrap();
    assert!(due.record(&sagas, outcome, context(200)).await.unwrap());
    let mut available = [0; 2];
    for (available, stream) in available.iter_mut().zip(&streams) {
        *available = stocks.load(stream).await.unwrap().state.available();
    }
    (available, sagas.load(&saga).await.unwrap().state)
}

#[tokio::test]
async fn every_sku_is_reserved_with_the_record_of_the_step() {
    let (available, saga) = reserve(5, 2).await;
    assert_eq!(available, [3, 0]);
    assert_eq!(saga.due(), Some(Due::execute(Step::AuthorizePayment)));
}

#[tokio::test]
async fn without_enough_of_one_sku_none_is_reserved() {
    let (available, saga) = reserve(5, 1).await;
    assert_eq!(available, [5, 1]);
    assert_eq!(saga.due(), Some(Due::compensate(Step::ScreenOrder)));
    assert!(saga.reason.is_some_and(|reason| reason.contains("CUP-07")));
}
