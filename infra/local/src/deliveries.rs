//! Asynchronous invocations: taken durably, tried again, and parked when they fail for good.
//!
//! As Lambda's own queue does: two retries by default, one and two minutes later, then the
//! function's failure destination. Here the minutes are seconds.
//! <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use cairn::lambda::{Function, Invocation};
use futures_util::FutureExt;
use rusqlite::params;
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    aws::{Aws, journal::Journal},
    template::{ACCOUNT, FunctionSpec, REGION},
};

/// Where deliveries are handed in.
#[derive(Clone, Debug)]
pub struct Deliveries {
    journal: Arc<Journal>,
    queue: mpsc::UnboundedSender<Delivery>,
    outstanding: Arc<watch::Sender<usize>>,
    disturb: bool,
}

/// An event on its way to a function.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The function's logical id.
    pub function: String,
    /// The event.
    pub payload: String,
}

/// A delivery under way. `id` is its place in the journal; a duplicate has none.
#[derive(Debug)]
pub struct Delivery {
    id: Option<i64>,
    outgoing: Outgoing,
}

/// A function in this process.
#[derive(Debug)]
pub struct Hosted {
    /// What the template says of it.
    pub spec: FunctionSpec,
    function: Function,
    slots: Semaphore,
}

/// How many asynchronous invocations of one function run at once: what waits, waits in the queue.
const CONCURRENCY: usize = 8;

impl Deliveries {
    /// A queue, and where it is worked off. With `disturb` every delivery comes twice, late, and in
    /// no order.
    pub fn new(journal: Arc<Journal>, disturb: bool) -> (Self, mpsc::UnboundedReceiver<Delivery>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let deliveries = Self {
            journal,
            queue,
            outstanding: Arc::new(watch::Sender::new(0)),
            disturb,
        };
        (deliveries, receiver)
    }

    /// How many deliveries are not done.
    pub fn outstanding(&self) -> watch::Receiver<usize> {
        self.outstanding.subscribe()
    }

    /// Takes deliveries. When this returns, they survive the process.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn accept(&self, outgoing: Vec<Outgoing>) -> rusqlite::Result<()> {
        if outgoing.is_empty() {
            return Ok(());
        }
        let mut ids = Vec::with_capacity(outgoing.len());
        {
            let mut connection = self.journal.connection();
            let transaction = connection.transaction()?;
            for delivery in &outgoing {
                transaction
                    .prepare_cached("INSERT INTO deliveries (function, payload) VALUES (?1, ?2)")?
                    .execute(params![delivery.function, delivery.payload])?;
                ids.push(transaction.last_insert_rowid());
            }
            transaction.commit()?;
        }
        for (id, outgoing) in ids.into_iter().zip(outgoing) {
            if self.disturb {
                self.enqueue(None, outgoing.clone());
            }
            self.enqueue(Some(id), outgoing);
        }
        Ok(())
    }

    /// Takes up what an earlier process left.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn resume(&self) -> rusqlite::Result<usize> {
        let left: Vec<_> = {
            let connection = self.journal.connection();
            let mut statement =
                connection.prepare("SELECT id, function, payload FROM deliveries ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                let (function, payload) = (row.get(1)?, row.get(2)?);
                Ok((row.get(0)?, Outgoing { function, payload }))
            })?;
            rows.collect::<Result<_, _>>()?
        };
        let count = left.len();
        for (id, outgoing) in left {
            self.enqueue(Some(id), outgoing);
        }
        Ok(count)
    }

    fn enqueue(&self, id: Option<i64>, outgoing: Outgoing) {
        self.outstanding.send_modify(|count| *count += 1);
        // The receiver is gone only when the system stops; the journal has the delivery.
        let _ = self.queue.send(Delivery { id, outgoing });
    }

    fn done(&self, id: Option<i64>) {
        if let Some(id) = id {
            let connection = self.journal.connection();
            let deleted = connection
                .prepare_cached("DELETE FROM deliveries WHERE id = ?1")
                .and_then(|mut delete| delete.execute([id]));
            // Left in the journal it is delivered again at the next start, which does no harm.
            if let Err(error) = deleted {
                tracing::error!(%error, "a delivery stays in the journal");
            }
        }
        self.outstanding
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Works deliveries off until the queue is closed. Dropped, it drops those under way: the journal
/// has them.
pub(crate) async fn work(
    deliveries: Deliveries,
    mut queue: mpsc::UnboundedReceiver<Delivery>,
    functions: Arc<HashMap<String, Hosted>>,
    aws: Arc<Aws>,
) {
    let mut under_way = JoinSet::new();
    while let Some(Delivery { id, outgoing }) = queue.recv().await {
        while under_way.try_join_next().is_some() {}
        let (deliveries, functions, aws) = (deliveries.clone(), functions.clone(), aws.clone());
        under_way.spawn(async move {
            if deliveries.disturb {
                sleep(Duration::from_millis(fastrand::u64(0..40))).await;
            }
            if let Some(hosted) = functions.get(&outgoing.function) {
                deliver(hosted, &outgoing, &aws).await;
            } else {
                tracing::error!(
                    function = outgoing.function,
                    "there is no such function any more"
                );
            }
            deliveries.done(id);
        });
    }
}

async fn deliver(hosted: &Hosted, outgoing: &Outgoing, aws: &Aws) {
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut attempt = 0;
    let error = loop {
        attempt += 1;
        let result = {
            let Ok(_slot) = hosted.slots.acquire().await else {
                return;
            };
            hosted
                .invoke(outgoing.payload.clone().into_bytes(), &request_id)
                .await
        };
        match result {
            Ok(_) => return,
            Err(error) if attempt > hosted.spec.retries => break error,
            Err(error) => {
                tracing::warn!(function = hosted.spec.id, attempt, %error, "will be tried again");
                sleep(Duration::from_secs(attempt.into())).await;
            }
        }
    };
    tracing::error!(function = hosted.spec.id, %error, "failed for good");
    let Some(queue) = &hosted.spec.on_failure else {
        return;
    };
    let payload: serde_json::Value = serde_json::from_str(&outgoing.payload).unwrap_or_default();
    let record = json!({
        "version": "1.0",
        "timestamp": cairn::Timestamp::now(),
        "requestContext": {
            "requestId": request_id,
            "functionArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", hosted.spec.id),
            "condition": "RetriesExhausted",
            "approximateInvokeCount": attempt,
        },
        "requestPayload": payload,
        "responseContext": { "statusCode": 200, "functionError": "Unhandled" },
        "responsePayload": { "errorMessage": error.to_string() },
    });
    if let Err(error) = aws.queues.send(queue, &record.to_string()) {
        tracing::error!(%error, queue, "a dead letter is lost");
    }
}

/// Why an invocation failed.
#[derive(Debug)]
pub enum InvokeError {
    /// There is no such function.
    Unknown,
    /// The function returned an error.
    Failed(String),
    /// It panicked.
    Panicked,
    /// It took too long.
    TimedOut(u64),
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such function"),
            Self::Failed(error) => f.write_str(error),
            Self::Panicked => f.write_str("the function panicked"),
            Self::TimedOut(seconds) => write!(f, "the function took longer than {seconds} s"),
        }
    }
}

impl Hosted {
    /// A function as the template describes it.
    pub fn new(spec: FunctionSpec, function: Function) -> Self {
        Self {
            spec,
            function,
            slots: Semaphore::new(CONCURRENCY),
        }
    }

    /// Invokes the function, within its time.
    ///
    /// # Errors
    /// When it fails, panics or takes too long.
    pub async fn invoke(&self, payload: Vec<u8>, request_id: &str) -> Result<Vec<u8>, InvokeError> {
        let limit = Duration::from_secs(self.spec.timeout_s);
        let invocation = Invocation {
            request_id: request_id.to_owned(),
            remaining: limit,
        };
        let call = std::panic::AssertUnwindSafe(self.function.invoke(payload, invocation));
        match timeout(limit, call.catch_unwind()).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(InvokeError::Failed(error.to_string())),
            Ok(Err(_)) => Err(InvokeError::Panicked),
            Err(_) => Err(InvokeError::TimedOut(self.spec.timeout_s)),
        }
    }
}
