//! Sales in tumbling windows of a minute, an hour and a day, by the time of the event.
//!
//! The counters of one window are spread over several partitions, by order, so that a busy minute
//! is not one hot key; a query adds them up.

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
    order::Event,
    values::{Invalid, Item, Money},
};

/// The sales' read model.
#[derive(Clone, Copy, Debug)]
pub struct Sales;

/// How many partitions the counters of one kind of window are spread over.
pub const SHARDS: u32 = 4;

const PLACED: &str = "ordersPlaced";
const CONFIRMED: &str = "ordersConfirmed";
const CANCELLED: &str = "ordersCancelled";
const REVENUE: &str = "revenue:";
const PRODUCT: &str = "sku:";
/// The most products that a window shows.
const TOP: usize = 10;

/// The most windows of one answer. With sales in every currency in each of them, the answer is still
/// smaller than the 6 MB that Lambda passes on.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const MOST_WINDOWS: i64 = 500;

/// The kinds of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Sixty seconds.
    Minute,
    /// Sixty minutes.
    Hour,
    /// Twenty-four hours of UTC.
    Day,
}

impl Window {
    const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// The window's length in milliseconds.
    pub fn millis(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// The start of the window that an instant falls into.
    pub fn start(self, at: Timestamp) -> Timestamp {
        let millis = at.as_millis();
        Timestamp::from_millis(millis - millis.rem_euclid(self.millis()))
    }

    /// The partition that holds one shard of the counters of this kind of window.
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

    fn shard(stream: &StreamId) -> Option<u32> {
        (stream.category() == "order").then(|| shard(stream))
    }

    fn counts(event: &RecordedEvent) -> Result<Vec<CounterChange>, CodecError> {
        let add = match event.decode::<Event>()? {
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

/// The shard of a stream is stored: the hash never changes.
fn shard(stream: &StreamId) -> u32 {
    fnv1a(stream.as_str()) % SHARDS
}

/// One window as the API shows it.
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

/// The windows that rows of counters add up to, oldest first. Each row comes with its start.
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

/// The windows that events add up to, as [`render`] shows them: what the rows must equal.
///
/// # Errors
/// When an event cannot be decoded.
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
