//! The queue of asynchronous deliveries to functions: durable in the journal until each has ended.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::params;
use tokio::sync::{mpsc, oneshot, watch};

use super::journal::Journal;

#[derive(Clone, Debug)]
pub struct AsyncQueue {
    journal: Arc<Journal>,
    queue: mpsc::UnboundedSender<Delivery>,
    outstanding: Arc<watch::Sender<usize>>,
}

#[derive(Debug, Clone)]
pub struct Outgoing {
    pub target: Target,
    pub payload: String,
    /// The tracing header of X-Ray.
    pub trace: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub function: String,
    /// The name of the rule or schedule among the function's events; `None` for a direct
    /// invocation.
    pub rule: Option<String>,
}

/// A delivery in progress, identified by its row in the journal.
#[derive(Debug)]
pub struct Delivery {
    pub(crate) id: i64,
    pub(crate) outgoing: Outgoing,
    /// Dropped when the delivery ends.
    pub(crate) ended: Option<oneshot::Sender<()>>,
}

impl AsyncQueue {
    pub fn new(journal: Arc<Journal>) -> (Self, mpsc::UnboundedReceiver<Delivery>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let async_queue = Self {
            journal,
            queue,
            outstanding: Arc::new(watch::Sender::new(0)),
        };
        (async_queue, receiver)
    }

    pub fn outstanding(&self) -> watch::Receiver<usize> {
        self.outstanding.subscribe()
    }

    /// Returns the number of unfinished deliveries per function.
    pub fn waiting(&self) -> rusqlite::Result<BTreeMap<String, u64>> {
        let connection = self.journal.connection();
        let mut counts = connection
            .prepare_cached("SELECT function, COUNT(*) FROM deliveries GROUP BY function")?;
        let counts = counts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        counts.collect()
    }

    /// Accepts deliveries. They are durable when this returns.
    pub fn accept(&self, outgoing: Vec<Outgoing>) -> rusqlite::Result<()> {
        if outgoing.is_empty() {
            return Ok(());
        }
        let ids = self.record(&outgoing)?;
        for (id, outgoing) in ids.into_iter().zip(outgoing) {
            self.enqueue(id, outgoing, None);
        }
        Ok(())
    }

    /// Accepts one delivery. The returned future completes when the delivery has ended.
    pub(crate) fn accept_one(
        &self,
        outgoing: Outgoing,
    ) -> rusqlite::Result<impl Future<Output = ()> + use<>> {
        let (ended, end) = oneshot::channel();
        let ids = self.record(std::slice::from_ref(&outgoing))?;
        for (id, (outgoing, ended)) in ids.into_iter().zip([(outgoing, ended)]) {
            self.enqueue(id, outgoing, Some(ended));
        }
        Ok(async {
            // The sender never sends: its drop marks the end.
            let _ = end.await;
        })
    }

    /// The number of failed writes of deliveries: see [`Journal::faults`].
    pub(crate) fn faults(&self) -> u64 {
        self.journal.faults()
    }

    /// Writes deliveries to the journal, all or none.
    fn record(&self, outgoing: &[Outgoing]) -> rusqlite::Result<Vec<i64>> {
        let ids = self.insert(outgoing);
        ids.inspect_err(|error| self.journal.report(error))
    }

    fn insert(&self, outgoing: &[Outgoing]) -> rusqlite::Result<Vec<i64>> {
        let mut ids = Vec::with_capacity(outgoing.len());
        let mut connection = self.journal.connection();
        let transaction = connection.transaction()?;
        for delivery in outgoing {
            let Target { function, rule } = &delivery.target;
            transaction
                .prepare_cached(
                    "INSERT INTO deliveries (function, rule, payload, trace)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![function, rule, delivery.payload, delivery.trace])?;
            ids.push(transaction.last_insert_rowid());
        }
        transaction.commit()?;
        Ok(ids)
    }

    /// Resumes the deliveries of an earlier process and returns their number.
    pub fn resume(&self) -> rusqlite::Result<usize> {
        let left: Vec<_> = {
            let connection = self.journal.connection();
            let mut statement = connection
                .prepare("SELECT id, function, rule, payload, trace FROM deliveries ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                let (function, rule) = (row.get(1)?, row.get(2)?);
                let target = Target { function, rule };
                let outgoing = Outgoing {
                    target,
                    payload: row.get(3)?,
                    trace: row.get(4)?,
                };
                Ok((row.get(0)?, outgoing))
            })?;
            rows.collect::<Result<_, _>>()?
        };
        let count = left.len();
        for (id, outgoing) in left {
            self.enqueue(id, outgoing, None);
        }
        Ok(count)
    }

    fn enqueue(&self, id: i64, outgoing: Outgoing, ended: Option<oneshot::Sender<()>>) {
        self.outstanding.send_modify(|count| *count += 1);
        // The receiver is closed only when the system stops; the journal keeps the delivery.
        let _ = self.queue.send(Delivery {
            id,
            outgoing,
            ended,
        });
    }

    pub(crate) fn done(&self, id: i64) {
        let deleted = {
            let connection = self.journal.connection();
            connection
                .prepare_cached("DELETE FROM deliveries WHERE id = ?1")
                .and_then(|mut delete| delete.execute([id]))
        };
        // A delivery that stays in the journal is repeated at the next start, which is harmless.
        if let Err(error) = deleted {
            self.journal.report(&error);
        }
        self.outstanding
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}
