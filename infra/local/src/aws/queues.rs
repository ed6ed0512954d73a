//! Queues and their messages, in the journal.
//!
//! A message has one id for its life, and a receipt for each time that it is received. Both are random and
//! never used again: a message can be deleted by its latest receipt only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use rusqlite::{OptionalExtension, params};
use tokio::sync::watch;

use crate::{
    aws::journal::Journal,
    platform::Platform,
    template::{ACCOUNT, Queue},
};

mod attributes;
mod calls;

pub(crate) use calls::query_code;

use attributes::{MessageAttribute, MessageAttributes};

/// The queues.
#[derive(Debug)]
pub struct Queues {
    journal: Arc<Journal>,
    known: Vec<Queue>,
    names: Vec<String>,
    platform: Arc<dyn Platform>,
    since_s: i64,
    /// Changes whenever a message may have become visible.
    arrivals: watch::Sender<()>,
}

/// The attributes of a message, all of them text.
pub type Attributes = BTreeMap<String, String>;

/// The beginning of the URLs of queues, as templates and functions know them.
pub(crate) const ORIGIN: &str = "http://127.0.0.1:4566";

/// The URL of a queue. Only its last part says which one it is.
pub fn url(name: &str) -> String {
    format!("{ORIGIN}/{ACCOUNT}/{name}")
}

/// A message to be sent.
#[derive(Debug)]
struct Outgoing<'a> {
    body: &'a str,
    attributes: &'a MessageAttributes,
    trace: Option<&'a str>,
    delay: Duration,
}

/// A message that was received.
#[derive(Debug)]
struct Received {
    id: String,
    receipt: String,
    body: String,
    attributes: MessageAttributes,
    trace: Option<String>,
    sent_at_ms: i64,
    first_received_at_ms: i64,
    receives: i64,
}

/// The number of messages of a queue in each state.
#[derive(Debug)]
struct Depths {
    visible: u64,
    in_flight: u64,
    delayed: u64,
}

/// The outcome of a change of a message's visibility.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Done,
    NotInFlight,
    NoSuchReceipt,
}

impl Queues {
    /// The queues of a template.
    pub fn new(journal: Arc<Journal>, queues: Vec<Queue>, platform: Arc<dyn Platform>) -> Self {
        Self {
            journal,
            names: queues.iter().map(|queue| queue.name.clone()).collect(),
            known: queues,
            since_s: platform.now().as_millis() / 1_000,
            platform,
            arrivals: watch::Sender::new(()),
        }
    }

    /// Puts a message into a queue.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn send(&self, queue: &str, body: &str, attributes: &Attributes) -> rusqlite::Result<()> {
        let attributes = attributes
            .iter()
            .map(|(name, text)| (name.clone(), MessageAttribute::text(text)))
            .collect();
        let message = Outgoing {
            body,
            attributes: &attributes,
            trace: None,
            delay: Duration::ZERO,
        };
        self.put(queue, &message).map(drop)
    }

    /// The names of the queues.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of messages that a queue holds, visible or not.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn depth(&self, queue: &str) -> rusqlite::Result<u64> {
        self.journal.connection().query_row(
            "SELECT COUNT(*) FROM messages WHERE queue = ?1",
            [queue],
            |row| row.get(0),
        )
    }

    /// The bodies and attributes of all messages of a queue, oldest first, visible or not.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn messages(&self, queue: &str) -> rusqlite::Result<Vec<(String, Attributes)>> {
        let connection = self.journal.connection();
        let mut messages = connection
            .prepare_cached("SELECT body, attributes FROM messages WHERE queue = ?1 ORDER BY id")?;
        let messages = messages.query_map([queue], |row| {
            let attributes: String = row.get(1)?;
            Ok((row.get(0)?, attributes::texts(&attributes)))
        })?;
        messages.collect()
    }

    /// The latest messages of a queue with their ids, newest first, visible or not.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn latest(
        &self,
        queue: &str,
        most: u32,
    ) -> rusqlite::Result<Vec<(String, String, Attributes)>> {
        let connection = self.journal.connection();
        let mut messages = connection.prepare_cached(
            "SELECT message, body, attributes FROM messages WHERE queue = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let messages = messages.query_map(params![queue, most], |row| {
            let attributes: String = row.get(2)?;
            Ok((row.get(0)?, row.get(1)?, attributes::texts(&attributes)))
        })?;
        messages.collect()
    }

    /// Puts a message into a queue, and returns its id.
    fn put(&self, queue: &str, message: &Outgoing<'_>) -> rusqlite::Result<String> {
        let id = self.platform.new_id().to_string();
        let now = self.platform.now().as_millis();
        // Without a delay it is visible whatever the clock says later.
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

    /// Receives the oldest visible messages, and hides them for a while.
    fn receive(&self, queue: &str, most: i64, hidden: Duration) -> rusqlite::Result<Vec<Received>> {
        let now = self.platform.now().as_millis();
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
                         receives",
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
                    })
                })?;
            messages.push(message);
        }
        transaction.commit()?;
        Ok(messages)
    }

    /// Deletes a message by its latest receipt. An older one, or that of a message that is gone, deletes nothing.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteMessage.html>
    fn delete(&self, queue: &str, (message, receipt): (&str, &str)) -> rusqlite::Result<()> {
        self.journal
            .connection()
            .prepare_cached(
                "DELETE FROM messages WHERE queue = ?1 AND message = ?2 AND receipt = ?3",
            )?
            .execute(params![queue, message, receipt])
            .map(drop)
    }

    /// Hides a message that was received for another while.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html>
    fn hide(
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

    fn purge(&self, queue: &str) -> rusqlite::Result<()> {
        let connection = self.journal.connection();
        let deleted = connection.execute("DELETE FROM messages WHERE queue = ?1", [queue]);
        deleted.map(drop)
    }

    fn depths(&self, queue: &str) -> rusqlite::Result<Depths> {
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

    /// The time until the next hidden message becomes visible; `None` where none is hidden.
    fn until_visible(&self, queue: &str) -> rusqlite::Result<Option<Duration>> {
        let next: Option<i64> = self.journal.connection().query_row(
            "SELECT MIN(visible_at_ms) FROM messages WHERE queue = ?1",
            [queue],
            |row| row.get(0),
        )?;
        let now = self.platform.now().as_millis();
        Ok(next.map(|next| Duration::from_millis(u64::try_from(next - now).unwrap_or(0))))
    }
}

/// A receipt handle: a message and the receipt of one time that it was received.
fn handle(message: &str, receipt: &str) -> String {
    BASE64_STANDARD.encode(format!("{message}:{receipt}"))
}

/// The message and the receipt of a handle.
fn receipt_of(handle: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64_STANDARD.decode(handle).ok()?).ok()?;
    let (message, receipt) = text.split_once(':')?;
    Some((message.to_owned(), receipt.to_owned()))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
