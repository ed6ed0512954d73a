//! One row per product: its price, and the version of its stream that set it.

use cairn::{
    RecordedEvent, StreamId,
    event::CodecError,
    read_model::{Change, ReadModel, Row, RowKey},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    product::Event,
    values::{Money, Sku},
};

#[derive(Clone, Copy, Debug)]
pub struct Products;

/// The version gate of a product's stream.
pub const GATE: &str = "version";

impl ReadModel for Products {
    const NAME: &'static str = "products";
    const KEY: &'static str = "sku";

    fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
        (stream.category() == "product").then(|| RowKey {
            key: stream.key(),
            gate: GATE,
        })
    }

    fn streams(key: &str) -> Vec<StreamId> {
        StreamId::new("product", key).into_iter().collect()
    }

    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
        Ok(match event.decode::<Event>()? {
            Event::PriceSet { price } => vec![Change::set("price", json!(price))],
        })
    }
}

/// A product as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductView {
    pub sku: Sku,
    pub price: Money,
    /// The version of the product's stream that set the price.
    pub version: u64,
}

/// Returns a row as the API shows it, or `None` if it has no price.
pub fn render(row: Row) -> Option<ProductView> {
    serde_json::from_value(Value::Object(row)).ok()
}
