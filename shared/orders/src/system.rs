//! The registry of the order system.

use cairn::System;

use crate::{
    fulfilment::Fulfilment,
    order::Order,
    payment::Payment,
    product::Product,
    read_models::{orders::Orders, products::ProductView, sales::Sales, stock::StockLevels},
    shipment::Shipment,
    stock::Stock,
};

/// Returns every aggregate, saga and read model.
///
/// `events/schemas` has the schema of each version of each event, and examples of its data. A
/// version that was shipped never changes there. `cargo run -p orders --example schemas` writes new
/// ones.
pub fn system() -> System {
    System::new("orders")
        .aggregate::<Order>()
        .aggregate::<Stock>()
        .aggregate::<Product>()
        .aggregate::<Payment>()
        .aggregate::<Shipment>()
        .saga::<Fulfilment>()
        .rows::<Orders>()
        .rows::<StockLevels>()
        .rows::<ProductView>()
        .counters::<Sales>()
}
