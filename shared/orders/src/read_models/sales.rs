//! Sales in tumbling windows of a minute, an hour and a day, by the time of the event.
//!
//! An order adds to one row of totals for its minute, to one for its hour, and to one row for each
//! of its products in that hour. A product's row counts each minute apart, so it has at most 60
//! counters. No row grows with the number of products. A day is the sum of its hours.
//!
//! The rows of a window are spread over several partitions by order, to avoid a hot key. A query
//! adds them up.

use std::collections::BTreeMap;

use cairn::{
    RecordedEvent, StreamId, Timestamp,
    error::BoxError,
    event::CodecError,
    hash::fnv1a,
    read_model::{CounterChange, CounterProjection, Row},
};
use serde::Serialize;

use crate::{
    canary::is_canary,
    order::Event,
    values::{Invalid, Item, Money},
};

#[derive(Clone, Copy, Debug)]
pub struct Sales;

/// The number of partitions to which one kind of row is added. A batch of events is one transaction
/// for each, so fewer partitions cost less, and more accept more transactions per second.
pub const SHARDS: u32 = 2;
/// The number of partitions that a query reads. Until a rebuild, rows of earlier releases are in the
/// others.
pub const READ_SHARDS: u32 = 16;

const PLACED: &str = "ordersPlaced";
const CONFIRMED: &str = "ordersConfirmed";
const CANCELLED: &str = "ordersCancelled";
const REVENUE: &str = "revenue:";
/// Until a rebuild, the totals of earlier windows contain a counter for each product.
const PRODUCT: &str = "sku:";
/// The maximum number of products in a window's view.
const TOP: usize = 10;

/// The maximum number of windows in a response. With sales in every currency in each window, the
/// response is below Lambda's 6 MB limit.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const MOST_WINDOWS: i64 = 500;

/// The maximum number of rows of products that a response adds up in each shard. All shards together
/// read some 50 MB, which takes a few seconds.
const MOST_PRODUCTS: u32 = 500_000 / SHARDS;

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

    /// Returns the partitions that contain the totals and the products of one shard.
    pub fn partitions(self, shard: u32) -> [String; 2] {
        let totals = match self {
            Self::Minute => "minute",
            Self::Hour | Self::Day => "hour",
        };
        [format!("{totals}#{shard}"), products(shard)]
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
        let (totals, items) = match &decoded {
            Event::Placed(_) => (vec![(PLACED.to_owned(), 1)], [].as_slice()),
            Event::Confirmed { items, total, .. } => (confirmed(*total), items.as_slice()),
            Event::Cancelled { .. } => (vec![(CANCELLED.to_owned(), 1)], [].as_slice()),
            Event::Shipped { .. } => return Ok(vec![]),
        };
        let (shard, hour) = (shard(&event.stream), Window::Hour.start(event.at));
        let totals = [Window::Minute, Window::Hour].map(|window| {
            let [partition, _] = window.partitions(shard);
            CounterChange {
                partition,
                row: window.start(event.at).to_string(),
                add: totals.clone(),
            }
        });
        let minute = (event.at.as_millis() - hour.as_millis()) / Window::Minute.millis();
        let products = items.iter().map(|Item { sku, quantity }| CounterChange {
            partition: products(shard),
            row: format!("{hour}{SEPARATOR}{sku}"),
            add: vec![(format!("{minute:02}"), signed(*quantity))],
        });
        Ok(totals.into_iter().chain(products).collect())
    }
}

/// Separates the hour from the SKU in the sort key of a product's row.
const SEPARATOR: char = '#';

fn products(shard: u32) -> String {
    format!("product{SEPARATOR}{shard}")
}

fn confirmed(total: Money) -> Vec<(String, i64)> {
    let revenue = format!("{REVENUE}{}", total.currency);
    vec![(CONFIRMED.to_owned(), 1), (revenue, signed(total.amount))]
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
    /// `None` if the rows of products are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_products: Option<Vec<Product>>,
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

/// Consecutive windows of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    window: Window,
    first: Timestamp,
    /// The last instant of the last window.
    until: Timestamp,
}

impl Windows {
    /// Creates the windows that contain an instant from `from` to `until`.
    pub fn new(window: Window, from: Timestamp, until: Timestamp) -> Self {
        let end = window.start(until).as_millis() + window.millis();
        Self {
            window,
            first: window.start(from),
            until: Timestamp::from_millis(end - 1),
        }
    }

    /// Returns the number of windows.
    pub fn count(&self) -> i64 {
        (self.until.as_millis() - self.first.as_millis()) / self.window.millis() + 1
    }

    /// Returns the partitions of one shard.
    pub fn partitions(&self, shard: u32) -> [String; 2] {
        self.window.partitions(shard)
    }

    /// Returns the sort keys from which and to which rows are read. The rows of products begin at
    /// the hour.
    pub fn rows(&self) -> [String; 2] {
        [Window::Hour.start(self.first), self.until].map(|at| at.to_string())
    }
}

/// The sums of rows by window.
#[derive(Clone, Debug)]
pub struct Sums {
    windows: Windows,
    by_start: BTreeMap<Timestamp, Counters>,
    products: u32,
}

#[derive(Clone, Debug, Default)]
struct Counters {
    totals: BTreeMap<String, i64>,
    products: BTreeMap<String, i64>,
}

impl Sums {
    pub fn new(windows: Windows) -> Self {
        Self {
            windows,
            by_start: BTreeMap::new(),
            products: 0,
        }
    }

    /// Adds a row with its sort key. Ignores what is outside of the windows. Returns false if the
    /// rows of products are too many for a response.
    pub fn add(&mut self, key: &str, row: &Row) -> Result<bool, Invalid> {
        let (start, sku) = match key.split_once(SEPARATOR) {
            Some((hour, sku)) => (hour, Some(sku)),
            None => (key, None),
        };
        self.products += u32::from(sku.is_some());
        let start: Timestamp = start
            .parse()
            .map_err(|_| Invalid("must begin with the start of a window"))?;
        let counters = row
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_i64()?)));
        for (name, by) in counters {
            match (sku, name.strip_prefix(PRODUCT)) {
                (Some(sku), _) => {
                    let minute: i64 = name
                        .parse()
                        .map_err(|_| Invalid("must count the minutes of an hour"))?;
                    let at = start.as_millis() + minute * Window::Minute.millis();
                    let at = Timestamp::from_millis(at);
                    self.count(at, |window| &mut window.products, sku, by);
                }
                (None, Some(sku)) => self.count(start, |window| &mut window.products, sku, by),
                (None, None) => self.count(start, |window| &mut window.totals, name, by),
            }
        }
        Ok(self.has_all_products())
    }

    fn has_all_products(&self) -> bool {
        self.products < MOST_PRODUCTS
    }

    /// Adds the sums of another shard.
    pub fn join(&mut self, other: Self) {
        self.products = self.products.max(other.products);
        for (start, counters) in other.by_start {
            let sums = self.by_start.entry(start).or_default();
            for (name, by) in counters.totals {
                add(&mut sums.totals, &name, by);
            }
            for (sku, by) in counters.products {
                add(&mut sums.products, &sku, by);
            }
        }
    }

    /// Returns the windows with sales as the API shows them, oldest first.
    pub fn render(self) -> Vec<WindowView> {
        let (window, has_products) = (self.windows.window, self.has_all_products());
        let sums = self.by_start.into_iter();
        sums.map(|(start, counters)| view(window, start, counters, has_products))
            .collect()
    }

    fn count(
        &mut self,
        at: Timestamp,
        counters: impl Fn(&mut Counters) -> &mut BTreeMap<String, i64>,
        name: &str,
        by: i64,
    ) {
        let start = self.windows.window.start(at);
        if self.windows.first <= start && start <= self.windows.until {
            add(counters(self.by_start.entry(start).or_default()), name, by);
        }
    }
}

/// Computes the windows from events, as [`Sums`] computes them from rows.
pub fn fold<'a>(
    window: Window,
    events: impl IntoIterator<Item = &'a RecordedEvent>,
) -> Result<Vec<WindowView>, BoxError> {
    let events = events.into_iter();
    let counted: Vec<_> = events
        .filter(|event| Sales::shard(&event.stream).is_some())
        .collect();
    let times = || counted.iter().map(|event| event.at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return Ok(vec![]);
    };
    let mut sums = Sums::new(Windows::new(window, first, last));
    for event in counted {
        let partitions = window.partitions(shard(&event.stream));
        for count in Sales::counts(event)? {
            if partitions.contains(&count.partition) {
                let counters = count.add.into_iter();
                let counters = counters.map(|(name, by)| (name, by.into())).collect();
                sums.add(&count.row, &counters)?;
            }
        }
    }
    Ok(sums.render())
}

fn add(counters: &mut BTreeMap<String, i64>, name: &str, by: i64) {
    match counters.get_mut(name) {
        Some(sum) => *sum = sum.saturating_add(by),
        None => {
            counters.insert(name.to_owned(), by);
        }
    }
}

fn view(window: Window, start: Timestamp, counters: Counters, has_products: bool) -> WindowView {
    let Counters { totals, products } = counters;
    let count = |name: &str| totals.get(name).copied().unwrap_or(0);
    let products = products.into_iter();
    let mut top_products: Vec<_> = products
        .map(|(sku, quantity)| Product { sku, quantity })
        .collect();
    top_products.sort_by(|a, b| b.quantity.cmp(&a.quantity).then_with(|| a.sku.cmp(&b.sku)));
    top_products.truncate(TOP);
    let revenue = totals.iter().filter_map(|(name, amount)| {
        let currency = name.strip_prefix(REVENUE)?.to_owned();
        let amount = *amount;
        Some(Revenue { amount, currency })
    });
    WindowView {
        start,
        end: Timestamp::from_millis(start.as_millis() + window.millis()),
        orders_placed: count(PLACED),
        orders_confirmed: count(CONFIRMED),
        orders_cancelled: count(CANCELLED),
        revenue: revenue.collect(),
        top_products: has_products.then_some(top_products),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
