//! The log of each consumer's deliveries, for the page and for tests.
//!
//! Functions report their deliveries in metrics lines. The counts cover everything since the start;
//! only the latest single deliveries are kept.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cairn_local::platform::{Note, Observer};
use serde::{Deserialize, Serialize};

/// The most orders whose deliveries are kept, and the most deliveries of one order.
const MOST_ORDERS: usize = 500;
const MOST_OF_ONE: usize = 400;
const MOST_SKUS: usize = 200;
/// The most deliveries that wait for [`DeliveryLog::take`], which is called many times a second.
const MOST_FRESH: usize = 1_000;

#[derive(Debug, Default)]
pub struct DeliveryLog(Mutex<Book>);

/// The counts of one consumer since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStats {
    /// Events applied in order.
    pub applied: u64,
    /// Deliveries of events that were already applied.
    pub duplicates: u64,
    /// Events that arrived early; the missing events were read from the store.
    pub caught_up: u64,
    /// Events read from the store.
    pub missing: u64,
    /// Failed invocations that were retried.
    pub retried: u64,
    /// Deliveries that became dead letters.
    pub dead_letters: u64,
    /// The largest lag in milliseconds since the last [`DeliveryLog::take`]; `None` without
    /// deliveries.
    pub lag_ms: Option<u64>,
    /// The latest lag since the start, in milliseconds.
    pub latest_lag_ms: Option<u64>,
}

/// A delivery to a consumer and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The sequence number in the log, from 1.
    pub n: u64,
    pub consumer: String,
    /// The event, such as `order-...@3`.
    pub event: String,
    /// `applied`, `duplicate` or `caught-up`; `failed` before a retry, otherwise `dead-letter`.
    pub outcome: String,
    /// The number of missing events that were read from the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<u64>,
    /// The age of the event in milliseconds, if the consumer reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Book {
    latest: u64,
    stats: BTreeMap<String, ConsumerStats>,
    fresh: Vec<Delivery>,
    by_order: HashMap<String, Vec<Delivery>>,
    /// The orders in `by_order`, oldest first.
    orders: VecDeque<String>,
    skus: BTreeSet<String>,
}

/// The fields of a metrics line that concern deliveries.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    consumer_lag: Option<u64>,
    relay_lag: Option<u64>,
    event: Option<String>,
    outcome: Option<String>,
    gap: Option<u64>,
}

impl Observer for DeliveryLog {
    fn emit(&self, function: &str, line: &str) {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            return;
        };
        let Some(lag_ms) = line.consumer_lag.or(line.relay_lag) else {
            return;
        };
        let mut book = self.book();
        let stats = book.stats(function);
        stats.lag_ms = stats.lag_ms.max(Some(lag_ms));
        stats.latest_lag_ms = Some(lag_ms);
        let (Some(event), Some(outcome)) = (line.event, line.outcome) else {
            return;
        };
        match outcome.as_str() {
            "duplicate" => stats.duplicates += 1,
            "caught-up" => {
                stats.caught_up += 1;
                stats.missing += line.gap.unwrap_or_default();
            }
            _ => stats.applied += 1,
        }
        let n = book.next();
        book.keep(Delivery {
            n,
            consumer: function.to_owned(),
            event,
            outcome,
            gap: line.gap,
            lag_ms: Some(lag_ms),
        });
    }

    fn note(&self, note: &Note<'_>) {
        let mut book = self.book();
        let (function, event, outcome) = match *note {
            Note::Retried { function, event } => {
                book.stats(function).retried += 1;
                (function, event, "failed")
            }
            Note::DeadLetter { function, event } => {
                book.stats(function).dead_letters += 1;
                (function, event, "dead-letter")
            }
            Note::Waits { .. }
            | Note::Changed { .. }
            | Note::Crashed { .. }
            | Note::Failed { .. }
            | Note::Throttled { .. } => return,
        };
        let Some(event) = event else { return };
        let n = book.next();
        book.keep(Delivery {
            n,
            consumer: function.to_owned(),
            event: event.to_owned(),
            outcome: outcome.to_owned(),
            gap: None,
            lag_ms: None,
        });
    }
}

impl DeliveryLog {
    /// Returns the counts of each consumer, and the first deliveries since the last call up to a
    /// limit.
    pub fn take(&self) -> (BTreeMap<String, ConsumerStats>, Vec<Delivery>) {
        let mut book = self.book();
        let stats = book.stats.clone();
        for stats in book.stats.values_mut() {
            stats.lag_ms = None;
        }
        (stats, std::mem::take(&mut book.fresh))
    }

    pub fn stats(&self) -> BTreeMap<String, ConsumerStats> {
        self.book().stats.clone()
    }

    /// Returns the latest deliveries of an order's events.
    pub fn of_order(&self, order: &str) -> Vec<Delivery> {
        let book = self.book();
        book.by_order.get(order).cloned().unwrap_or_default()
    }

    /// The SKUs whose stock has changed.
    pub fn skus(&self) -> BTreeSet<String> {
        self.book().skus.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn stats(&mut self, consumer: &str) -> &mut ConsumerStats {
        self.stats.entry(consumer.to_owned()).or_default()
    }

    fn next(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    fn keep(&mut self, delivery: Delivery) {
        if let Some(order) = order_of(&delivery.event) {
            if !self.by_order.contains_key(order) {
                if self.orders.len() == MOST_ORDERS
                    && let Some(oldest) = self.orders.pop_front()
                {
                    self.by_order.remove(&oldest);
                }
                self.orders.push_back(order.to_owned());
            }
            let of_order = self.by_order.entry(order.to_owned()).or_default();
            if of_order.len() < MOST_OF_ONE {
                of_order.push(delivery.clone());
            }
        } else if let Some((sku, _)) = stock_of(&delivery.event)
            && self.skus.len() < MOST_SKUS
        {
            self.skus.insert(sku.to_owned());
        }
        if self.fresh.len() < MOST_FRESH {
            self.fresh.push(delivery);
        }
    }
}

/// The order of an event: the key of its stream, as in `payment-<order>@2`.
fn order_of(event: &str) -> Option<&str> {
    let (stream, _) = event.rsplit_once('@')?;
    let (category, key) = stream.split_once('-')?;
    (category != "stock").then_some(key)
}

/// The SKU and the version of a stock event, as in `stock-TEA-01@2`.
fn stock_of(event: &str) -> Option<(&str, &str)> {
    event.strip_prefix("stock-")?.rsplit_once('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &str, outcome: &str) -> String {
        serde_json::json!({ "ConsumerLag": 5, "Event": event, "Outcome": outcome, "Gap": 2 })
            .to_string()
    }

    #[test]
    fn what_consumers_tell_is_counted_and_the_worst_lag_is_of_the_time_since_it_was_asked_for() {
        let delivery_log = DeliveryLog::default();
        delivery_log.emit("A", &line("order-1@1", "applied"));
        delivery_log.emit("A", &line("order-1@4", "caught-up"));
        delivery_log.emit("A", &line("order-1@4", "duplicate"));
        delivery_log.emit("A", "no figures");
        delivery_log.emit("Relay", r#"{"RelayLag":7}"#);
        for event in [None, Some("order-1@5")] {
            delivery_log.note(&Note::Retried {
                function: "A",
                event,
            });
        }
        let (stats, fresh) = delivery_log.take();
        let expected = ConsumerStats {
            applied: 1,
            duplicates: 1,
            caught_up: 1,
            missing: 2,
            retried: 2,
            dead_letters: 0,
            lag_ms: Some(5),
            latest_lag_ms: Some(5),
        };
        assert_eq!(stats.get("A"), Some(&expected));
        assert_eq!(stats.get("Relay").and_then(|stats| stats.lag_ms), Some(7));
        let told: Vec<_> = fresh
            .iter()
            .map(|one| (one.n, one.outcome.as_str()))
            .collect();
        let expected = [
            (1, "applied"),
            (2, "caught-up"),
            (3, "duplicate"),
            (4, "failed"),
        ];
        assert_eq!(told, expected);
        let (stats, fresh) = delivery_log.take();
        let lags = |stats: &ConsumerStats| (stats.lag_ms, stats.latest_lag_ms);
        assert_eq!(stats.get("A").map(lags), Some((None, Some(5))));
        assert!(fresh.is_empty());
        assert_eq!(delivery_log.of_order("1").len(), 4);
    }

    #[test]
    fn what_it_keeps_is_bounded() {
        let delivery_log = DeliveryLog::default();
        for order in 0..2 * MOST_ORDERS {
            for _ in 0..2 {
                delivery_log.emit("A", &line(&format!("order-{order}@1"), "applied"));
            }
        }
        for _ in 0..2 * MOST_OF_ONE {
            delivery_log.emit("A", &line("order-last@1", "duplicate"));
            delivery_log.emit("A", &line("stock-TEA-01@1", "applied"));
        }
        assert!(delivery_log.of_order("0").is_empty());
        assert_eq!(delivery_log.of_order("last").len(), MOST_OF_ONE);
        let book = delivery_log.book();
        assert_eq!(book.by_order.len(), MOST_ORDERS);
        assert_eq!(book.orders.len(), MOST_ORDERS);
        assert_eq!(book.fresh.len(), MOST_FRESH);
        assert_eq!(Vec::from_iter(&book.skus), ["TEA-01"]);
    }
}
