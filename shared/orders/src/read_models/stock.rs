//! One row per SKU: units on hand and reserved.

use cairn::{
    RecordedEvent,
    read_model::{Change, Project, Row},
};
use serde::Serialize;

use crate::stock::{Event, Stock};

/// A SKU's stock as its row stores it.
#[derive(Clone, Debug, PartialEq, Eq, cairn::Row)]
#[row(name = "stock", table = "STOCK_TABLE")]
pub struct StockLevels {
    #[row(key)]
    sku: String,
    #[serde(default)]
    on_hand: u64,
    #[serde(default)]
    reserved: u64,
    #[row(gate = Stock)]
    version: u64,
}

impl Project<Stock> for StockLevels {
    fn project(event: &Event, _: &RecordedEvent) -> Vec<Change> {
        match *event {
            Event::Received { quantity } => vec![Self::on_hand().add(quantity)],
            Event::Reserved { quantity, .. } => vec![Self::reserved().add(quantity)],
            Event::Released { quantity, .. } => vec![Self::reserved().subtract(quantity)],
            Event::Allocated { quantity, .. } => vec![
                Self::on_hand().subtract(quantity),
                Self::reserved().subtract(quantity),
            ],
            Event::Returned { quantity, .. } => {
                vec![
                    Self::on_hand().add(quantity),
                    Self::reserved().add(quantity),
                ]
            }
        }
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

impl StockView {
    /// Creates the view of a SKU's stock. The available units are those on hand and not reserved.
    pub fn new(sku: String, on_hand: u64, reserved: u64, version: u64) -> Self {
        Self {
            sku,
            on_hand,
            reserved,
            available: on_hand.saturating_sub(reserved),
            version,
        }
    }
}

/// Returns the row as the API shows it.
pub fn render(row: &Row) -> Result<StockView, serde_json::Error> {
    let StockLevels {
        sku,
        on_hand,
        reserved,
        version,
    } = row.clone().try_into()?;
    Ok(StockView::new(sku, on_hand, reserved, version))
}
