//! What must outlive this process besides the tables: deliveries under way, positions in streams,
//! and messages in queues.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::Connection;

/// An `SQLite` database of our own.
#[derive(Debug)]
pub struct Journal {
    connection: Mutex<Connection>,
    file: PathBuf,
    faults: AtomicU64,
}

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `SQLite` reports an error.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// A later version of this program has written it.
    #[error("it is of version {found}, and this program reads versions up to {}", STEPS.len())]
    Newer {
        /// The version of the file.
        found: usize,
    },
}

/// How the tables came to be what they are. Each step is taken once in a file's life; `user_version`
/// says how many have been.
const STEPS: [&str; 3] = [
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
    // Messages with ids of their own, receipts, and attributes with types.
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
];

impl Journal {
    /// Opens the journal, in a file or in memory.
    ///
    /// # Errors
    /// When the file is no such database.
    pub fn open(file: Option<&Path>) -> Result<Self, OpenError> {
        let mut connection = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        // As for the tables: safe against a killed process, at no cost for every write.
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

    /// Logs that a write failed and names the file, and counts it: see [`faults`](Self::faults).
    pub(crate) fn report(&self, error: &rusqlite::Error) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let file = self.file.display();
        tracing::error!(%file, %error, "the journal cannot be written");
    }

    /// The number of writes that have failed. A delivery that fails meanwhile fails because of this machine's disk, not of the
    /// function, and that uses up no retry.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The connection. One caller at a time.
    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
