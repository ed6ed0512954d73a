//! One row per SKU: units on hand and reserved.

use cairn::{
    RecordedEvent, StreamId,
    event::CodecError,
    read_model::{Change, ReadModel, Row, RowKey},
};
use serde::Serialize;
use serde_json::Value;

use crate::stock::Event;

#[derive(Clone, Copy, Debug)]
pub struct StockLevels;

/// The version gate of a SKU's stream.
pub const GATE: &str = "version";

impl ReadModel for StockLevels {
    const NAME: &'static str = "stock";
    const KEY: &'static str = "sku";

    fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
        (stream.category() == "stock").then(|| RowKey {
            key: stream.key(),
            gate: GATE,
        })
    }

    fn streams(key: &str) -> Vec<StreamId> {
        StreamId::new("stock", key).into_iter().collect()
    }

    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
        let on_hand = |by| Change::Add("onHand".into(), by);
        let reserved = |by| Change::Add("reserved".into(), by);
        Ok(match event.decode::<Event>()? {
            Event::Received { quantity } => vec![on_hand(signed(quantity))],
            Event::Reserved { quantity, .. } => vec![reserved(signed(quantity))],
            Event::Released { quantity, .. } => vec![reserved(-signed(quantity))],
            Event::Allocated { quantity, .. } => {
                vec![on_hand(-signed(quantity)), reserved(-signed(quantity))]
            }
            Event::Returned { quantity, .. } => {
                vec![on_hand(signed(quantity)), reserved(signed(quantity))]
            }
        })
    }
}

/// A SKU's stock as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StockView {
    pub sku: String,
    /// The units on hand, including reserved units.
    pub on_hand: u64,
    /// The units reserved for orders.
    pub reserved: u64,
    /// The units that can still be reserved.
    pub available: u64,
    /// The version of the SKU's stream.
    pub version: u64,
}

/// Returns the row as the API shows it.
pub fn render(row: &Row) -> StockView {
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (on_hand, reserved) = (number("onHand"), number("reserved"));
    let sku = row.get(StockLevels::KEY).and_then(Value::as_str);
    StockView {
        sku: sku.unwrap_or_default().to_owned(),
        on_hand,
        reserved,
        available: on_hand.saturating_sub(reserved),
        version: number(GATE),
    }
}

fn signed(quantity: u64) -> i64 {
    i64::try_from(quantity).unwrap_or(i64::MAX)
}
