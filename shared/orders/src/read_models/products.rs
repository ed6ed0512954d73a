//! One row per product: its price, and the version of its stream that set it.

use cairn::{
    RecordedEvent,
    read_model::{Change, Project, Row},
};

use crate::{
    product::{Event, Product},
    values::{Money, Sku},
};

/// A product as its row stores it, and as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, cairn::Row)]
#[row(name = "products", table = "PRODUCTS_TABLE")]
pub struct ProductView {
    #[row(key)]
    pub sku: Sku,
    pub price: Money,
    /// The version of the product's stream that set the price.
    #[row(gate = Product)]
    pub version: u64,
}

impl Project<Product> for ProductView {
    fn project(event: &Event, _: &RecordedEvent) -> Vec<Change> {
        match event {
            Event::PriceSet { price } => vec![Self::price().set(price)],
        }
    }
}

/// Returns a row as the API shows it, or `None` if it has no price.
pub fn render(row: Row) -> Option<ProductView> {
    row.try_into().ok()
}
