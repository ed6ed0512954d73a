//! The state outside the tables that must survive the process: deliveries in progress, stream
//! positions and queued messages.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, OptionalExtension, params};

#[derive(Debug)]
pub struct Journal {
    connection: Mutex<Connection>,
    file: PathBuf,
    faults: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    #[error("its version is {found}, but this program reads versions up to {}", STEPS.len())]
    Newer { found: usize },
}

/// The schema migrations. Each runs once per file; `user_version` counts those that have run.
const STEPS: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS deliveries (
         id INTEGER PRIMARY KEY, function TEXT NOT NULL, payload TEXT NOT NULL);
     CREATE TABLE IF NOT EXISTS positions (
         function TEXT PRIMARY KEY, sequence TEXT NOT NULL) WITHOUT ROWID;
     CREATE TABLE IF NOT EXISTS messages (
         id INTEGER PRIMARY KEY, queue TEXT NOT NULL, body TEXT NOT NULL,
         visible_at_ms INTEGER NOT NULL, receives INTEGER NOT NULL);
     CREATE INDEX IF NOT EXISTS messages_by_queue ON messages (queue, visible_at_ms);",
    "ALTER TABLE deliveries ADD COLUMN rule TEXT;
     ALTER TABLE messages ADD COLUMN attributes TEXT NOT NULL DEFAULT '{}';",
    // Adds message ids, receipts and typed attributes.
    "CREATE TABLE messages_3 (
         id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, message TEXT NOT NULL UNIQUE,
         body TEXT NOT NULL, attributes TEXT NOT NULL, trace TEXT, sent_at_ms INTEGER NOT NULL,
         visible_at_ms INTEGER NOT NULL, receives INTEGER NOT NULL,
         first_received_at_ms INTEGER, receipt TEXT);
     INSERT INTO messages_3 (id, queue, message, body, attributes, sent_at_ms, visible_at_ms, receives)
         SELECT id, queue, lower(hex(randomblob(16))), body,
             (SELECT json_group_object(key, json_object('DataType', 'String', 'StringValue', value))
              FROM json_each(attributes)),
             CAST(strftime('%s') AS INTEGER) * 1000, visible_at_ms, receives
         FROM messages;
     DROP TABLE messages;
     ALTER TABLE messages_3 RENAME TO messages;
     CREATE INDEX messages_by_queue ON messages (queue, visible_at_ms);",
    "ALTER TABLE deliveries ADD COLUMN trace TEXT;",
    "ALTER TABLE messages ADD COLUMN source TEXT;",
];

impl Journal {
    /// Opens the journal, in a file or in memory.
    pub fn open(file: Option<&Path>) -> Result<Self, OpenError> {
        let mut connection = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        // As for the tables: survives a killed process without a sync per write.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        let taken: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if taken > STEPS.len() {
            return Err(OpenError::Newer { found: taken });
        }
        for (step, sql) in STEPS.iter().enumerate().skip(taken) {
            let transaction = connection.transaction()?;
            transaction.execute_batch(sql)?;
            transaction.pragma_update(None, "user_version", step + 1)?;
            transaction.commit()?;
        }
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self {
            connection: Mutex::new(connection),
            file: file.unwrap_or(Path::new(":memory:")).to_owned(),
            faults: AtomicU64::default(),
        })
    }

    /// Logs and counts a failed write: see [`faults`](Self::faults).
    pub(crate) fn report(&self, error: &rusqlite::Error) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let file = self.file.display();
        tracing::error!(%file, %error, "the journal cannot be written");
    }

    /// The number of failed writes. A delivery that fails while it grows uses no retry, because the
    /// local disk failed and not the function.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The sequence number of the last stream record that a consumer handled; `None` before the
    /// first.
    pub(crate) fn position(&self, consumer: &str) -> rusqlite::Result<Option<String>> {
        self.connection()
            .prepare_cached("SELECT sequence FROM positions WHERE function = ?1")?
            .query_row([consumer], |row| row.get(0))
            .optional()
    }

    pub(crate) fn store_position(&self, consumer: &str, sequence: &str) -> rusqlite::Result<()> {
        self.connection()
            .prepare_cached(
                "INSERT INTO positions (function, sequence) VALUES (?1, ?2)
                 ON CONFLICT (function) DO UPDATE SET sequence = excluded.sequence",
            )?
            .execute(params![consumer, sequence])
            .map(drop)
    }

    /// Makes everything that is written survive a power cut: a checkpoint syncs the log.
    pub(crate) fn sync(&self) -> rusqlite::Result<()> {
        self.connection()
            .execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
    }

    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
