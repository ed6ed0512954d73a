//! Sales in tumbling windows of a minute, an hour and a day, by the time of the event.
//!
//! The counters of a window are spread over several partitions by order, to avoid a hot key. A
//! query adds them up.

use std::collections::BTreeMap;

use cairn::{
    RecordedEvent, StreamId, Timestamp,
    event::CodecError,
    hash::fnv1a,
    read_model::{CounterChange, CounterProjection, Row},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    canary::is_canary,
    order::Event,
    values::{Invalid, Item, Money},
};

#[derive(Clone, Copy, Debug)]
pub struct Sales;

/// The number of partitions of one kind of window.
pub const SHARDS: u32 = 4;

const PLACED: &str = "ordersPlaced";
const CONFIRMED: &str = "ordersConfirmed";
const CANCELLED: &str = "ordersCancelled";
const REVENUE: &str = "revenue:";
const PRODUCT: &str = "sku:";
/// The maximum number of products in a window's view.
const TOP: usize = 10;

/// The maximum number of windows in a response. With sales in every currency in each window, the
/// response is below Lambda's 6 MB limit.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const MOST_WINDOWS: i64 = 500;

/// The kinds of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    Minute,
    Hour,
    /// Twenty-four hours from midnight UTC.
    Day,
}

impl Window {
    const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    pub fn millis(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// Returns the start of the window that contains an instant.
    pub fn start(self, at: Timestamp) -> Timestamp {
        let millis = at.as_millis();
        Timestamp::from_millis(millis - millis.rem_euclid(self.millis()))
    }

    /// Returns the partition of one shard of this kind of window.
    pub fn partition(self, shard: u32) -> String {
        let name = match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        };
        format!("{name}#{shard}")
    }
}

impl std::str::FromStr for Window {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "minute" => Ok(Self::Minute),
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            _ => Err(Invalid("must be minute, hour or day")),
        }
    }
}

impl CounterProjection for Sales {
    const NAME: &'static str = "sales";
    const TABLE: &'static str = "SALES_TABLE";

    fn shard(stream: &StreamId) -> Option<u32> {
        (stream.category() == "order").then(|| shard(stream))
    }

    fn counts(event: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError> {
        let decoded = event.decode::<Event>()?;
        if is_canary(decoded.customer()) {
            return Ok(vec![]);
        }
        let add = match decoded {
            Event::Placed(_) => vec![(PLACED.to_owned(), 1)],
            Event::Confirmed { items, total, .. } => confirmed(&items, total),
            Event::Cancelled { .. } => vec![(CANCELLED.to_owned(), 1)],
            Event::Shipped { .. } => return Ok(vec![]),
        };
        let shard = shard(&event.stream);
        Ok(Window::ALL
            .into_iter()
            .map(|window| CounterChange {
                partition: window.partition(shard),
                row: window.start(event.at).to_string(),
                add: add.clone(),
            })
            .collect())
    }
}

fn confirmed(items: &[Item], total: Money) -> Vec<(String, i64)> {
    let revenue = (format!("{REVENUE}{}", total.currency), signed(total.amount));
    let products = items
        .iter()
        .map(|item| (format!("{PRODUCT}{}", item.sku), signed(item.quantity)));
    [(CONFIRMED.to_owned(), 1), revenue]
        .into_iter()
        .chain(products)
        .collect()
}

/// Shards are stored, so this hash must never change.
fn shard(stream: &StreamId) -> u32 {
    fnv1a(stream.as_str()) % SHARDS
}

/// A window as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowView {
    start: Timestamp,
    end: Timestamp,
    orders_placed: i64,
    orders_confirmed: i64,
    orders_cancelled: i64,
    revenue: Vec<Revenue>,
    top_products: Vec<Product>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Revenue {
    amount: i64,
    currency: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Product {
    sku: String,
    quantity: i64,
}

/// Adds up rows of counters by window, oldest first. Each row comes with the start of its window.
pub fn render(window: Window, rows: impl IntoIterator<Item = (Timestamp, Row)>) -> Vec<WindowView> {
    let mut sums = BTreeMap::<Timestamp, BTreeMap<String, i64>>::new();
    for (start, row) in rows {
        let window = sums.entry(start).or_default();
        for (name, value) in row {
            let sum = window.entry(name).or_default();
            *sum = sum.saturating_add(value.as_i64().unwrap_or(0));
        }
    }
    sums.into_iter()
        .map(|(start, counters)| view(window, start, &counters))
        .collect()
}

/// Computes the windows from events. The audit compares them with the rows, as [`render`] shows
/// those.
pub fn fold<'a>(
    window: Window,
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Vec<WindowView>, CodecError> {
    let mut rows = vec![];
    for event in events
        .into_iter()
        .filter(|event| Sales::shard(&event.stream).is_some())
    {
        let start = window.start(event.at);
        for count in Sales::counts(event)? {
            if count.partition == window.partition(shard(&event.stream)) {
                let row = count
                    .add
                    .into_iter()
                    .map(|(name, by)| (name, Value::from(by)));
                rows.push((start, row.collect()));
            }
        }
    }
    Ok(render(window, rows))
}

fn view(window: Window, start: Timestamp, counters: &BTreeMap<String, i64>) -> WindowView {
    let count = |name: &str| counters.get(name).copied().unwrap_or(0);
    let with = |prefix: &'static str| {
        counters
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), *value)))
    };
    let mut top_products: Vec<_> = with(PRODUCT)
        .map(|(sku, quantity)| Product { sku, quantity })
        .collect();
    top_products.sort_by(|a, b| b.quantity.cmp(&a.quantity).then_with(|| a.sku.cmp(&b.sku)));
    top_products.truncate(TOP);
    WindowView {
        start,
        end: Timestamp::from_millis(start.as_millis() + window.millis()),
        orders_placed: count(PLACED),
        orders_confirmed: count(CONFIRMED),
        orders_cancelled: count(CANCELLED),
        revenue: with(REVENUE)
            .map(|(currency, amount)| Revenue { amount, currency })
            .collect(),
        top_products,
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
