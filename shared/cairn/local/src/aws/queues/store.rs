//! Queues and their messages, stored in the journal.
//!
//! A message keeps one id and gets a new receipt each time it is received. Both are random and
//! never reused. Only the latest receipt can delete a message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use cairn::dead_letter::SOURCE_QUEUE;
use rusqlite::{OptionalExtension, Row, params};
use tokio::sync::watch;

use super::attributes::{self, Attributes, MessageAttribute, MessageAttributes};
use crate::{aws::journal::Journal, names::queue_arn, platform::Platform, template::Queue};

#[derive(Debug)]
pub struct Queues {
    journal: Arc<Journal>,
    pub(super) known: Vec<Queue>,
    pub(super) names: Vec<String>,
    platform: Arc<dyn Platform>,
    pub(super) since_s: i64,
    /// Changes whenever a message may have become visible.
    pub(super) arrivals: watch::Sender<()>,
    /// Changes whenever a message has left its queue.
    departures: watch::Sender<()>,
    requests: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) body: &'a str,
    pub(super) attributes: &'a MessageAttributes,
    pub(super) trace: Option<&'a str>,
    pub(super) delay: Duration,
}

#[derive(Debug)]
pub(super) struct Received {
    pub(super) id: String,
    pub(super) receipt: String,
    pub(super) body: String,
    pub(super) attributes: MessageAttributes,
    pub(super) trace: Option<String>,
    pub(super) sent_at_ms: i64,
    pub(super) first_received_at_ms: i64,
    pub(super) receives: i64,
    /// The queue from which the message was moved.
    pub(super) source: Option<String>,
}

#[derive(Debug)]
pub(super) struct Depths {
    pub(super) visible: u64,
    pub(super) in_flight: u64,
    pub(super) delayed: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Done,
    NotInFlight,
    NoSuchReceipt,
}

impl Queues {
    pub fn new(journal: Arc<Journal>, queues: Vec<Queue>, platform: Arc<dyn Platform>) -> Self {
        Self {
            journal,
            names: queues.iter().map(|queue| queue.name.clone()).collect(),
            known: queues,
            since_s: platform.now().as_millis() / 1_000,
            platform,
            arrivals: watch::Sender::new(()),
            departures: watch::Sender::new(()),
            requests: AtomicU64::default(),
        }
    }

    /// Returns the number of requests that SQS bills.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts a request with this payload: one for each 64 KB.
    /// <https://aws.amazon.com/sqs/pricing/>
    pub(super) fn bill(&self, bytes: usize) {
        let chunks = bytes.div_ceil(64 * 1024).max(1);
        self.requests.fetch_add(chunks as u64, Ordering::Relaxed);
    }

    pub fn send(&self, queue: &str, body: &str, attributes: &Attributes) -> rusqlite::Result<()> {
        self.send_traced(queue, body, attributes, None)
    }

    pub(crate) fn send_traced(
        &self,
        queue: &str,
        body: &str,
        attributes: &Attributes,
        trace: Option<&str>,
    ) -> rusqlite::Result<()> {
        let attributes = attributes
            .iter()
            .map(|(name, text)| (name.clone(), MessageAttribute::text(text)))
            .collect();
        let message = Outgoing {
            body,
            attributes: &attributes,
            trace,
            delay: Duration::ZERO,
        };
        self.bill(body.len());
        self.put(queue, &message).map(drop)
    }

    /// Makes the messages visible that a consumer of an earlier process received.
    pub(crate) fn resume(&self, queue: &str) -> rusqlite::Result<()> {
        let visible = "UPDATE messages SET visible_at_ms = 0 WHERE queue = ?1 AND receives > 0";
        let connection = self.journal.connection();
        connection.execute(visible, [queue]).map(drop)
    }

    /// Waits until a queue has no messages, visible or not.
    pub(crate) async fn emptied(&self, queue: &str) {
        let mut departures = self.departures.subscribe();
        while self.depth(queue).is_ok_and(|depth| depth > 0) {
            let _ = departures.changed().await;
        }
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the number of messages in a queue, visible or not.
    pub fn depth(&self, queue: &str) -> rusqlite::Result<u64> {
        self.journal.connection().query_row(
            "SELECT COUNT(*) FROM messages WHERE queue = ?1",
            [queue],
            |row| row.get(0),
        )
    }

    /// Returns the bodies and attributes of all messages, oldest first, visible or not.
    pub fn messages(&self, queue: &str) -> rusqlite::Result<Vec<(String, Attributes)>> {
        let connection = self.journal.connection();
        let mut messages = connection.prepare_cached(
            "SELECT body, attributes, source FROM messages WHERE queue = ?1 ORDER BY id",
        )?;
        let messages = messages.query_map([queue], |row| Ok((row.get(0)?, texts(row)?)))?;
        messages.collect()
    }

    /// Returns the latest messages with their ids, newest first, visible or not.
    pub fn latest(
        &self,
        queue: &str,
        most: u32,
    ) -> rusqlite::Result<Vec<(String, String, Attributes)>> {
        let connection = self.journal.connection();
        let mut messages = connection.prepare_cached(
            "SELECT message, body, attributes, source FROM messages WHERE queue = ?1
             ORDER BY id DESC LIMIT ?2",
        )?;
        let messages = messages.query_map(params![queue, most], |row| {
            Ok((row.get(0)?, row.get(1)?, texts(row)?))
        })?;
        messages.collect()
    }

    pub(super) fn put(&self, queue: &str, message: &Outgoing<'_>) -> rusqlite::Result<String> {
        let id = self.platform.new_id().to_string();
        let now = self.platform.now().as_millis();
        // Without a delay, the message is visible even if the clock is set back.
        let visible_at = match millis(message.delay) {
            0 => 0,
            delay => now + delay,
        };
        self.journal
            .connection()
            .prepare_cached(
                "INSERT INTO messages
                     (queue, message, body, attributes, trace, sent_at_ms, visible_at_ms, receives)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
            )?
            .execute(params![
                queue,
                id,
                message.body,
                attributes::stored(message.attributes),
                message.trace,
                now,
                visible_at,
            ])?;
        self.arrivals.send_replace(());
        Ok(id)
    }

    /// Returns the number of receives after which a queue moves a message to its dead-letter queue.
    pub(crate) fn receives(&self, queue: &str) -> Option<u32> {
        let mut known = self.known.iter();
        let known = known.find(|known| known.name == queue)?;
        Some(known.redrive.as_ref()?.receives)
    }

    /// Returns the visibility timeout of a queue.
    pub(crate) fn visibility(&self, queue: &str) -> Duration {
        let mut known = self.known.iter();
        let known = known.find(|known| known.name == queue);
        let seconds = known.map_or(0, |known| known.visibility_s);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// Changes the time for which a message with this receipt handle is hidden.
    pub(crate) fn release(
        &self,
        queue: &str,
        handle: &str,
        hidden: Duration,
    ) -> rusqlite::Result<()> {
        let receipt = receipt_of(handle).unwrap_or_default();
        self.hide(queue, (&receipt.0, &receipt.1), hidden).map(drop)
    }

    /// Moves the visible messages that were received too often to the dead-letter queue.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html>
    fn redrive(&self, queue: &str, now: i64) -> rusqlite::Result<()> {
        let known = self.known.iter().find(|known| known.name == queue);
        let Some(redrive) = known.and_then(|known| known.redrive.as_ref()) else {
            return Ok(());
        };
        let moved = self.journal.connection().execute(
            "UPDATE messages SET queue = ?1, visible_at_ms = 0, receives = 0, receipt = NULL,
                 source = ?2
             WHERE queue = ?2 AND visible_at_ms <= ?3 AND receives >= ?4",
            params![redrive.queue, queue, now, redrive.receives],
        )?;
        if moved > 0 {
            tracing::warn!(
                queue,
                moved,
                "moved to dead-letter queue (received too often)"
            );
            self.arrivals.send_replace(());
            self.departures.send_replace(());
        }
        Ok(())
    }

    /// Receives the oldest visible messages and hides them for the time `hidden`.
    pub(super) fn receive(
        &self,
        queue: &str,
        most: i64,
        hidden: Duration,
    ) -> rusqlite::Result<Vec<Received>> {
        let now = self.platform.now().as_millis();
        self.redrive(queue, now)?;
        let mut connection = self.journal.connection();
        let transaction = connection.transaction()?;
        let ids: Vec<i64> = transaction
            .prepare_cached(
                "SELECT id FROM messages WHERE queue = ?1 AND visible_at_ms <= ?2
                 ORDER BY id LIMIT ?3",
            )?
            .query_map(params![queue, now, most], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut messages = Vec::with_capacity(ids.len());
        for id in ids {
            let receipt = self.platform.new_id().to_string();
            let message = transaction
                .prepare_cached(
                    "UPDATE messages SET visible_at_ms = ?2, receipt = ?3, receives = receives + 1,
                         first_received_at_ms = COALESCE(first_received_at_ms, ?4)
                     WHERE id = ?1
                     RETURNING message, body, attributes, trace, sent_at_ms, first_received_at_ms,
                         receives, source",
                )?
                .query_row(params![id, now + millis(hidden), receipt, now], |row| {
                    let id: String = row.get(0)?;
                    let attributes: String = row.get(2)?;
                    Ok(Received {
                        receipt: handle(&id, &receipt),
                        id,
                        body: row.get(1)?,
                        attributes: attributes::parsed(&attributes),
                        trace: row.get(3)?,
                        sent_at_ms: row.get(4)?,
                        first_received_at_ms: row.get(5)?,
                        receives: row.get(6)?,
                        source: row.get(7)?,
                    })
                })?;
            messages.push(message);
        }
        transaction.commit()?;
        Ok(messages)
    }

    /// Deletes a message by its latest receipt. An older receipt, or one of a deleted message, has
    /// no effect.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteMessage.html>
    pub(super) fn delete(
        &self,
        queue: &str,
        (message, receipt): (&str, &str),
    ) -> rusqlite::Result<()> {
        self.journal
            .connection()
            .prepare_cached(
                "DELETE FROM messages WHERE queue = ?1 AND message = ?2 AND receipt = ?3",
            )?
            .execute(params![queue, message, receipt])?;
        self.departures.send_replace(());
        Ok(())
    }

    /// Changes the time for which a received message is hidden.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html>
    pub(super) fn hide(
        &self,
        queue: &str,
        (message, receipt): (&str, &str),
        hidden: Duration,
    ) -> rusqlite::Result<Change> {
        let now = self.platform.now().as_millis();
        let connection = self.journal.connection();
        let found = connection
            .prepare_cached(
                "SELECT id, visible_at_ms FROM messages
                 WHERE queue = ?1 AND message = ?2 AND receipt = ?3",
            )?
            .query_row(params![queue, message, receipt], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let id = match found {
            None => return Ok(Change::NoSuchReceipt),
            Some((_, visible_at)) if visible_at <= now => return Ok(Change::NotInFlight),
            Some((id, _)) => id,
        };
        connection
            .prepare_cached("UPDATE messages SET visible_at_ms = ?2 WHERE id = ?1")?
            .execute([id, now + millis(hidden)])?;
        self.arrivals.send_replace(());
        Ok(Change::Done)
    }

    pub(super) fn purge(&self, queue: &str) -> rusqlite::Result<()> {
        let connection = self.journal.connection();
        connection.execute("DELETE FROM messages WHERE queue = ?1", [queue])?;
        self.departures.send_replace(());
        Ok(())
    }

    pub(super) fn depths(&self, queue: &str) -> rusqlite::Result<Depths> {
        let now = self.platform.now().as_millis();
        self.journal.connection().query_row(
            "SELECT COUNT(*) FILTER (WHERE visible_at_ms <= ?2),
                    COUNT(*) FILTER (WHERE visible_at_ms > ?2 AND receives > 0),
                    COUNT(*) FILTER (WHERE visible_at_ms > ?2 AND receives = 0)
             FROM messages WHERE queue = ?1",
            params![queue, now],
            |row| {
                Ok(Depths {
                    visible: row.get(0)?,
                    in_flight: row.get(1)?,
                    delayed: row.get(2)?,
                })
            },
        )
    }

    /// Returns the time until the next hidden message becomes visible; `None` without hidden
    /// messages.
    pub(super) fn until_visible(&self, queue: &str) -> rusqlite::Result<Option<Duration>> {
        let next: Option<i64> = self.journal.connection().query_row(
            "SELECT MIN(visible_at_ms) FROM messages WHERE queue = ?1",
            [queue],
            |row| row.get(0),
        )?;
        let now = self.platform.now().as_millis();
        Ok(next.map(|next| Duration::from_millis(u64::try_from(next - now).unwrap_or(0))))
    }
}

/// Returns the text attributes of a row, with the source of a message that was moved.
fn texts(row: &Row<'_>) -> rusqlite::Result<Attributes> {
    let attributes: String = row.get("attributes")?;
    let source: Option<String> = row.get("source")?;
    let source = source.map(|queue| (SOURCE_QUEUE.to_owned(), queue_arn(&queue)));
    Ok(attributes::texts(&attributes)
        .into_iter()
        .chain(source)
        .collect())
}

/// Encodes a message id and a receipt as a receipt handle.
fn handle(message: &str, receipt: &str) -> String {
    BASE64_STANDARD.encode(format!("{message}:{receipt}"))
}

/// Decodes a receipt handle.
pub(super) fn receipt_of(handle: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64_STANDARD.decode(handle).ok()?).ok()?;
    let (message, receipt) = text.split_once(':')?;
    Some((message.to_owned(), receipt.to_owned()))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
