//! The relay: it publishes the commits of the DynamoDB Stream on the event bus.
//!
//! Only the relay writes to the bus, so an event is published if and only if it is committed. Each
//! event is published at least once. The events of one stream are published in order, but the bus
//! does not preserve it: consumers have a [version gate](crate::gate).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::timeout;

use crate::{cloudevent::CloudEvent, retry::Backoff};

/// The maximum number of entries per call.
/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>
pub const MAX_ENTRIES: usize = 10;

/// The maximum number of bytes per call and per entry, with room for what the bus adds.
///
/// The limit was 256 KB until January 2026, and is 1 MB since. Every region and AWS emulator
/// accepts 256 KB.
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html>
pub const MAX_BYTES: usize = 256 * 1024 - 4 * 1024;

const IN_FLIGHT: usize = 4;

/// An event bus.
pub trait Publisher: Send + Sync {
    /// Publishes up to [`MAX_ENTRIES`] entries with at most [`MAX_BYTES`] in total.
    ///
    /// Returns the result of each entry, in the order of the entries. The publisher may leave out
    /// results; the entries without a result have [failed](EntryResult::Failed).
    fn publish(&self, entries: &[&Entry]) -> impl Future<Output = Vec<EntryResult>> + Send;
}

/// The result of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryResult {
    /// The bus accepted the entry.
    Accepted,
    /// The bus did not accept the entry, for a reason that is not in the entry: the bus is
    /// unavailable, throttles, or denies a permission. A later call may succeed.
    Failed,
    /// The bus rejected the content of the entry, for this reason. Every call will reject it.
    Rejected(String),
}

/// The records of a batch that were not handled, by their index in the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unhandled {
    /// The first record that must be delivered again, with all later records.
    pub failed: Option<usize>,
    /// The records that a retry cannot help, each with the reason.
    pub rejected: BTreeMap<usize, String>,
}

/// An event in the form of the bus.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The type of the event.
    pub kind: String,
    /// The stream of the event.
    pub stream: String,
    /// The JSON of the envelope.
    pub detail: String,
    /// The W3C trace context of the event.
    pub traceparent: Option<String>,
    /// The index of its record in the batch.
    pub record: usize,
}

impl Entry {
    /// Creates the entry of an envelope. If the entry would be too large, the envelope contains a
    /// reference instead of the event.
    ///
    /// # Errors
    /// Returns an error if the envelope cannot be serialized.
    pub fn new(event: CloudEvent, record: usize) -> Result<Self, serde_json::Error> {
        let mut detail = serde_json::to_string(&event)?;
        let (kind, stream) = (event.kind.clone(), event.subject.to_string());
        let traceparent = event.traceparent.clone();
        if detail.len() + kind.len() + event.source.len() > MAX_BYTES {
            detail = serde_json::to_string(&event.by_reference())?;
        }
        Ok(Self {
            kind,
            stream,
            detail,
            traceparent,
            record,
        })
    }

    fn bytes(&self) -> usize {
        self.detail.len() + self.kind.len() + 64
    }
}

/// Publishes entries until the bus has accepted or rejected all of them, or `backoff` ends. Returns
/// the records with unpublished events.
///
/// A rejected entry does not delay the later events of its stream.
///
/// The events of one stream are published in order: each waits until the bus has accepted the one
/// before it. A call is sent when it is full, or when no pending call could still add entries to
/// it. A stream can therefore wait for one response of another stream, but not in a queue behind
/// it.
pub async fn publish_all(
    publisher: &impl Publisher,
    entries: Vec<Entry>,
    mut backoff: Backoff,
) -> Unhandled {
    let mut queues = Queues::new(entries);
    let mut calls = FuturesUnordered::new();
    let mut is_time_left = true;
    loop {
        while is_time_left && calls.len() < IN_FLIGHT {
            match queues.next_call(calls.is_empty()) {
                Some(call) => calls.push(publish(publisher, call, backoff.left())),
                None => break,
            }
        }
        let Some(answered) = calls.next().await else {
            return queues.unhandled();
        };
        let has_any_failed = queues.take_back(answered);
        is_time_left = if has_any_failed {
            backoff.wait().await.is_ok()
        } else {
            !backoff.left().is_zero()
        };
    }
}

/// Sends one call. Without a response in time, all its entries have failed.
async fn publish(
    publisher: &impl Publisher,
    call: Vec<Turn>,
    limit: Duration,
) -> Vec<(Turn, EntryResult)> {
    let entries: Vec<_> = call.iter().map(|turn| &turn.entry).collect();
    let results = timeout(limit, publisher.publish(&entries)).await;
    let results = results.unwrap_or_default().into_iter();
    let results = results.chain(std::iter::repeat(EntryResult::Failed));
    call.into_iter().zip(results).collect()
}

/// The unpublished entries of each stream, in order. A stream with an entry in a pending call is
/// not ready.
struct Queues {
    streams: Vec<VecDeque<Entry>>,
    ready: VecDeque<usize>,
    rejected: BTreeMap<usize, String>,
}

/// The next entry of a stream, and the index of the stream.
struct Turn {
    stream: usize,
    entry: Entry,
}

impl Queues {
    fn new(entries: Vec<Entry>) -> Self {
        let mut indexes = HashMap::new();
        let mut streams: Vec<VecDeque<Entry>> = vec![];
        for entry in entries {
            let next = streams.len();
            let index = *indexes.entry(entry.stream.clone()).or_insert(next);
            match streams.get_mut(index) {
                Some(stream) => stream.push_back(entry),
                None => streams.push(VecDeque::from([entry])),
            }
        }
        Self {
            ready: (0..streams.len()).collect(),
            streams,
            rejected: BTreeMap::new(),
        }
    }

    /// Returns the next call if it is full or `need_not_be_full` is set.
    fn next_call(&mut self, need_not_be_full: bool) -> Option<Vec<Turn>> {
        let (mut count, mut bytes) = (0, 0);
        let mut is_full = false;
        for index in &self.ready {
            let next = self.streams.get(*index).and_then(VecDeque::front);
            bytes += next.map_or(0, Entry::bytes);
            is_full = count == MAX_ENTRIES || (count > 0 && bytes > MAX_BYTES);
            if is_full {
                break;
            }
            count += 1;
        }
        if count == 0 || !(is_full || count == MAX_ENTRIES || need_not_be_full) {
            return None;
        }
        let call = self.ready.drain(..count).filter_map(|stream| {
            let entry = self.streams.get_mut(stream)?.pop_front()?;
            Some(Turn { stream, entry })
        });
        Some(call.collect())
    }

    /// Returns failed entries to their queues. The result is true if there were any.
    fn take_back(&mut self, answered: Vec<(Turn, EntryResult)>) -> bool {
        let mut has_any_failed = false;
        for (Turn { stream, entry }, result) in answered {
            let Some(queue) = self.streams.get_mut(stream) else {
                continue;
            };
            match result {
                EntryResult::Accepted => {}
                EntryResult::Failed => {
                    queue.push_front(entry);
                    has_any_failed = true;
                }
                EntryResult::Rejected(reason) => {
                    self.rejected.entry(entry.record).or_insert(reason);
                }
            }
            if !queue.is_empty() {
                self.ready.push_back(stream);
            }
        }
        has_any_failed
    }

    fn unhandled(self) -> Unhandled {
        let first = self.streams.iter().filter_map(VecDeque::front);
        Unhandled {
            failed: first.map(|entry| entry.record).min(),
            rejected: self.rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A bus on which each entry fails a given number of times, and which records the accepted ones.
    #[derive(Default)]
    struct Bus {
        failures: Mutex<HashMap<String, u32>>,
        /// The entry whose content the bus rejects.
        rejects: Option<&'static str>,
        taken: Mutex<Vec<String>>,
        calls: Mutex<Vec<usize>>,
    }

    impl Publisher for Bus {
        async fn publish(&self, entries: &[&Entry]) -> Vec<EntryResult> {
            self.calls.lock().unwrap().push(entries.len());
            let mut failures = self.failures.lock().unwrap();
            entries
                .iter()
                .map(|entry| match failures.get_mut(&entry.detail) {
                    _ if self.rejects == Some(entry.detail.as_str()) => {
                        EntryResult::Rejected("malformed".to_owned())
                    }
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        EntryResult::Failed
                    }
                    _ => {
                        self.taken.lock().unwrap().push(entry.detail.clone());
                        EntryResult::Accepted
                    }
                })
                .collect()
        }
    }

    fn entry(stream: &str, detail: &str, record: usize) -> Entry {
        Entry {
            kind: "Happened".to_owned(),
            stream: stream.to_owned(),
            detail: detail.to_owned(),
            traceparent: None,
            record,
        }
    }

    fn failed(record: usize) -> Unhandled {
        Unhandled {
            failed: Some(record),
            rejected: BTreeMap::new(),
        }
    }

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(5))
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_was_refused_is_published_again_and_a_stream_keeps_its_order() {
        let bus = Bus::default();
        bus.failures.lock().unwrap().insert("a1".to_owned(), 2);
        let entries = vec![
            entry("a", "a1", 0),
            entry("a", "a2", 1),
            entry("b", "b1", 2),
        ];
        assert_eq!(
            publish_all(&bus, entries, backoff()).await,
            Unhandled::default()
        );
        assert_eq!(*bus.taken.lock().unwrap(), ["b1", "a1", "a2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_record_with_an_unpublished_event_is_reported() {
        let bus = Bus::default();
        bus.failures
            .lock()
            .unwrap()
            .insert("b1".to_owned(), u32::MAX);
        let entries = vec![
            entry("a", "a1", 0),
            entry("b", "b1", 1),
            entry("c", "c1", 2),
        ];
        assert_eq!(publish_all(&bus, entries, backoff()).await, failed(1));
        assert_eq!(*bus.taken.lock().unwrap(), ["a1", "c1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_entry_is_sent_once_and_delays_no_other() {
        let bus = Bus {
            rejects: Some("a1"),
            ..Bus::default()
        };
        let entries = vec![
            entry("a", "a1", 0),
            entry("a", "a2", 0),
            entry("a", "a3", 1),
            entry("b", "b1", 2),
        ];
        let rejected = BTreeMap::from([(0, "malformed".to_owned())]);
        let unhandled = publish_all(&bus, entries, backoff()).await;
        assert_eq!((unhandled.failed, unhandled.rejected), (None, rejected));
        assert_eq!(*bus.taken.lock().unwrap(), ["b1", "a2", "a3"]);
        assert_eq!(*bus.calls.lock().unwrap(), [2, 1, 1]);
    }

    struct Slow(Duration);

    impl Publisher for Slow {
        async fn publish(&self, entries: &[&Entry]) -> Vec<EntryResult> {
            tokio::time::sleep(self.0).await;
            vec![EntryResult::Accepted; entries.len()]
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_bus_is_left_in_time_and_what_is_missing_is_reported() {
        let entries = || (0..20).map(|n| entry("a", &format!("a{n}"), n)).collect();
        let second = Slow(Duration::from_secs(1));
        assert_eq!(publish_all(&second, entries(), backoff()).await, failed(5));
        let never = Slow(Duration::from_secs(3600));
        assert_eq!(publish_all(&never, entries(), backoff()).await, failed(0));
    }

    #[tokio::test]
    async fn calls_are_filled_by_count_and_by_bytes() {
        let bus = Bus::default();
        let small = (0..12).map(|n| entry(&format!("s{n}"), "x", n));
        let large = (0..3).map(|n| entry(&format!("l{n}"), &"x".repeat(MAX_BYTES / 2 - 100), n));
        let entries = small.chain(large).collect();
        assert_eq!(
            publish_all(&bus, entries, backoff()).await,
            Unhandled::default()
        );
        assert_eq!(*bus.calls.lock().unwrap(), [10, 3, 2]);
    }

    /// Few streams do not result in half-empty calls, and no event overtakes another of its stream.
    #[tokio::test]
    async fn the_streams_of_a_batch_fill_calls_together_and_each_keeps_its_order() {
        let bus = Bus::default();
        let mut entries = vec![];
        for n in 0..4 {
            entries
                .extend((0..25).map(|s| entry(&format!("s{s}"), &format!("s{s}@{n}"), 25 * n + s)));
        }
        assert_eq!(
            publish_all(&bus, entries, backoff()).await,
            Unhandled::default()
        );
        assert_eq!(*bus.calls.lock().unwrap(), [10; 10]);
        let taken = bus.taken.lock().unwrap();
        for s in 0..25 {
            let of_stream = taken
                .iter()
                .filter(|taken| taken.starts_with(&format!("s{s}@")));
            let expected: Vec<_> = (0..4).map(|n| format!("s{s}@{n}")).collect();
            assert_eq!(of_stream.cloned().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn an_event_too_large_for_the_bus_goes_by_reference() {
        let event: CloudEvent = serde_json::from_value(serde_json::json!({
            "specversion": "1.0", "id": "order-1@2", "source": "test", "type": "Big",
            "subject": "order-1", "time": "2026-11-23T09:30:00.000Z",
            "datacontenttype": "application/json", "dataschema": "Big/1",
            "streamversion": 2, "correlationid": "c",
        }))
        .unwrap();
        let data = serde_json::value::to_raw_value(&"x".repeat(MAX_BYTES)).unwrap();
        let entry = Entry::new(
            CloudEvent {
                data: Some(data),
                ..event
            },
            0,
        )
        .unwrap();
        let sent: CloudEvent = serde_json::from_str(&entry.detail).unwrap();
        assert_eq!(
            (sent.data.is_none(), sent.dataref.as_deref()),
            (true, Some("order-1/2"))
        );
        assert!(sent.recorded().unwrap().is_none());
    }
}
