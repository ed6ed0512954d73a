//! The relay: it publishes the commits of the DynamoDB Stream on the event bus.
//!
//! Only the relay writes to the bus, so an event is published if and only if it is committed. Each
//! event is published at least once. The events of one stream are published in order, but the bus
//! does not preserve it: consumers have a [version gate](crate::gate).

use std::{
    collections::{HashMap, VecDeque},
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
    /// Returns true for each entry that the bus accepted. A call that failed accepted none.
    fn publish(&self, entries: &[&Entry]) -> impl Future<Output = Vec<bool>> + Send;
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
        if detail.len() + kind.len() + event.source.len() > MAX_BYTES {
            detail = serde_json::to_string(&event.by_reference())?;
        }
        Ok(Self {
            kind,
            stream,
            detail,
            record,
        })
    }

    fn bytes(&self) -> usize {
        self.detail.len() + self.kind.len() + 64
    }
}

/// Publishes entries until the bus has accepted all of them or `backoff` ends. Returns the first
/// record with an unpublished event.
///
/// The events of one stream are published in order: each waits until the bus has accepted the one
/// before it. A call is sent when it is full, or when no pending call could still add entries to
/// it. A stream can therefore wait for one response of another stream, but not in a queue behind
/// it.
pub async fn publish_all(
    publisher: &impl Publisher,
    entries: Vec<Entry>,
    mut backoff: Backoff,
) -> Option<usize> {
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
            return queues.first_record();
        };
        let is_any_refused = queues.take_back(answered);
        is_time_left = if is_any_refused {
            backoff.wait().await.is_ok()
        } else {
            !backoff.left().is_zero()
        };
    }
}

/// Sends one call. Returns true with each entry that the bus accepted; without a response in time,
/// none.
async fn publish(
    publisher: &impl Publisher,
    call: Vec<Turn>,
    limit: Duration,
) -> Vec<(Turn, bool)> {
    let entries: Vec<_> = call.iter().map(|turn| &turn.entry).collect();
    let taken = timeout(limit, publisher.publish(&entries)).await;
    let taken = taken.unwrap_or_default();
    let taken = taken.into_iter().chain(std::iter::repeat(false));
    call.into_iter().zip(taken).collect()
}

/// The unpublished entries of each stream, in order. A stream with an entry in a pending call is
/// not ready.
struct Queues {
    streams: Vec<VecDeque<Entry>>,
    ready: VecDeque<usize>,
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

    /// Returns rejected entries to their queues. The result is true if there were any.
    fn take_back(&mut self, answered: Vec<(Turn, bool)>) -> bool {
        let mut is_any_refused = false;
        for (Turn { stream, entry }, taken) in answered {
            let Some(queue) = self.streams.get_mut(stream) else {
                continue;
            };
            if !taken {
                queue.push_front(entry);
                is_any_refused = true;
            }
            if !queue.is_empty() {
                self.ready.push_back(stream);
            }
        }
        is_any_refused
    }

    fn first_record(&self) -> Option<usize> {
        let first = self.streams.iter().filter_map(VecDeque::front);
        first.map(|entry| entry.record).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A bus that rejects each entry a given number of times, and records the accepted ones.
    #[derive(Default)]
    struct Bus {
        refusals: Mutex<HashMap<String, u32>>,
        taken: Mutex<Vec<String>>,
        calls: Mutex<Vec<usize>>,
    }

    impl Publisher for Bus {
        async fn publish(&self, entries: &[&Entry]) -> Vec<bool> {
            self.calls.lock().unwrap().push(entries.len());
            let mut refusals = self.refusals.lock().unwrap();
            entries
                .iter()
                .map(|entry| match refusals.get_mut(&entry.detail) {
                    Some(left) if *left > 0 => {
                        *left -= 1;
                        false
                    }
                    _ => {
                        self.taken.lock().unwrap().push(entry.detail.clone());
                        true
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
            record,
        }
    }

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(5))
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_was_refused_is_published_again_and_a_stream_keeps_its_order() {
        let bus = Bus::default();
        bus.refusals.lock().unwrap().insert("a1".to_owned(), 2);
        let entries = vec![
            entry("a", "a1", 0),
            entry("a", "a2", 1),
            entry("b", "b1", 2),
        ];
        assert_eq!(publish_all(&bus, entries, backoff()).await, None);
        assert_eq!(*bus.taken.lock().unwrap(), ["b1", "a1", "a2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_record_with_an_unpublished_event_is_reported() {
        let bus = Bus::default();
        bus.refusals
            .lock()
            .unwrap()
            .insert("b1".to_owned(), u32::MAX);
        let entries = vec![
            entry("a", "a1", 0),
            entry("b", "b1", 1),
            entry("c", "c1", 2),
        ];
        assert_eq!(publish_all(&bus, entries, backoff()).await, Some(1));
        assert_eq!(*bus.taken.lock().unwrap(), ["a1", "c1"]);
    }

    struct Slow(Duration);

    impl Publisher for Slow {
        async fn publish(&self, entries: &[&Entry]) -> Vec<bool> {
            tokio::time::sleep(self.0).await;
            vec![true; entries.len()]
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_bus_is_left_in_time_and_what_is_missing_is_reported() {
        let entries = || (0..20).map(|n| entry("a", &format!("a{n}"), n)).collect();
        let second = Slow(Duration::from_secs(1));
        assert_eq!(publish_all(&second, entries(), backoff()).await, Some(5));
        let never = Slow(Duration::from_hours(1));
        assert_eq!(publish_all(&never, entries(), backoff()).await, Some(0));
    }

    #[tokio::test]
    async fn calls_are_filled_by_count_and_by_bytes() {
        let bus = Bus::default();
        let small = (0..12).map(|n| entry(&format!("s{n}"), "x", n));
        let large = (0..3).map(|n| entry(&format!("l{n}"), &"x".repeat(MAX_BYTES / 2 - 100), n));
        let entries = small.chain(large).collect();
        assert_eq!(publish_all(&bus, entries, backoff()).await, None);
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
        assert_eq!(publish_all(&bus, entries, backoff()).await, None);
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
