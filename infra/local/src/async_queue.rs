//! Asynchronous delivery of events to functions: durable, retried, with dead-letter queues.
//!
//! Each function has its own queue, so a backlog delays no other function. The oldest ready work
//! runs first: see `Rank`.
//!
//! Two services take part, and each defines failure differently:
//! - `EventBridge` passes the event to Lambda. If that fails, it retries for up to a day, then
//!   sends the event to the rule's dead-letter queue. An error of the function is not a failure
//!   here.
//!   <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html>
//! - Lambda queues the event and invokes the function, by default up to three times, with pauses of
//!   one and two minutes. Then it sends the event to the function's failure destination.
//!   <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rusqlite::params;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    aws::{Aws, journal::Journal, queues::Attributes},
    hosting::{Hosted, Hosts, InvokeError, live},
    places::{Rank, Requests},
    platform::{Note, Platform},
    template::{ACCOUNT, FunctionSpec, REGION, RuleTarget},
};

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
    id: i64,
    outgoing: Outgoing,
    /// Dropped when the delivery ends.
    ended: Option<oneshot::Sender<()>>,
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

    fn done(&self, id: i64) {
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

/// Processes deliveries until the queue is closed. If dropped, it drops the deliveries in progress;
/// the journal keeps them.
pub(crate) async fn work(
    async_queue: AsyncQueue,
    mut queue: mpsc::UnboundedReceiver<Delivery>,
    hosts: Arc<Hosts>,
    aws: Arc<Aws>,
    platform: Arc<dyn Platform>,
) {
    let mut under_way = JoinSet::new();
    let mut requests = Requests::default();
    while let Some(Delivery {
        id,
        outgoing,
        ended,
    }) = queue.recv().await
    {
        while under_way.try_join_next().is_some() {}
        let Target { function, rule } = &outgoing.target;
        let is_scheduled = hosts
            .get(function)
            .is_some_and(|hosted| hosted.spec.is_scheduled(rule.as_deref()));
        let rank = if is_scheduled {
            Rank::SCHEDULED
        } else {
            requests.rank(id, correlation_of(&outgoing.payload).as_deref())
        };
        let (async_queue, hosts) = (async_queue.clone(), hosts.clone());
        let (aws, platform) = (aws.clone(), platform.clone());
        under_way.spawn(async move {
            let carrier = Carrier {
                aws: &aws,
                platform: platform.as_ref(),
                rank,
            };
            if let Some(hosted) = hosts.get(&outgoing.target.function) {
                carrier.deliver(hosted, &outgoing).await;
            } else {
                tracing::error!(target = ?outgoing.target, "function does not exist");
            }
            async_queue.done(id);
            drop(ended);
        });
    }
}

/// Delivers one event, with retries.
struct Carrier<'a> {
    aws: &'a Aws,
    platform: &'a dyn Platform,
    rank: Rank,
}

struct Failure {
    condition: &'static str,
    /// The number of times that the function was entered.
    invocations: u32,
    last: Option<InvokeError>,
}

impl Carrier<'_> {
    async fn deliver(&self, hosted: &Hosted, outgoing: &Outgoing) {
        let target = hosted.spec.target(outgoing.target.rule.as_deref());
        let Some(target) = target else {
            return self.invoke(hosted, outgoing).await;
        };
        if !self.reach(hosted, target, &outgoing.payload).await {
            return;
        }
        let copies = self
            .platform
            .copies(&hosted.spec.id, &outgoing.payload)
            .into_iter();
        let copies = copies.map(|late| async move {
            sleep(late).await;
            self.invoke(hosted, outgoing).await;
        });
        futures_util::future::join_all(copies).await;
    }

    /// The part of `EventBridge`: passes the event to Lambda or to the rule's dead-letter queue.
    async fn reach(&self, hosted: &Hosted, target: &RuleTarget, payload: &str) -> bool {
        let since = Instant::now();
        let max_age = self.platform.pace(target.max_age);
        let mut retries = 0;
        let exhausted = loop {
            if self.platform.reaches(&hosted.spec.id) {
                return true;
            }
            if retries == target.retries {
                break "MaximumRetryAttempts";
            }
            retries += 1;
            // AWS does not document its backoff. This one grows from 1 to 512 seconds, with jitter.
            let longest = Duration::from_secs(1 << retries.min(9)).mul_f64(self.platform.chance());
            let pause = self.platform.pace(longest);
            if since.elapsed() + pause > max_age {
                break "MaximumEventAgeInSeconds";
            }
            sleep(pause).await;
        };
        let attributes = Attributes::from_iter([
            ("RULE_ARN".to_owned(), rule_arn(target)),
            ("TARGET_ARN".to_owned(), live(&hosted.spec.id)),
            ("ERROR_CODE".to_owned(), "SDK_CLIENT_ERROR".to_owned()),
            (
                "ERROR_MESSAGE".to_owned(),
                "the target was not reached".to_owned(),
            ),
            ("EXHAUSTED_RETRY_CONDITION".to_owned(), exhausted.to_owned()),
            ("RETRY_ATTEMPTS".to_owned(), retries.to_string()),
        ]);
        let event = event_of(payload);
        tracing::error!(
            function = hosted.spec.id,
            event,
            exhausted,
            "moved to dead-letter queue (target unreachable)"
        );
        self.park(
            &hosted.spec.id,
            event.as_deref(),
            target.dead_letters.as_deref(),
            payload,
            &attributes,
        )
        .await;
        false
    }

    /// The part of Lambda: invokes the function until it succeeds or the event becomes a dead
    /// letter.
    async fn invoke(&self, hosted: &Hosted, outgoing: &Outgoing) {
        let request_id = self.platform.new_id().to_string();
        let Err(failure) = self.try_out(hosted, outgoing, &request_id).await else {
            return;
        };
        let payload = outgoing.payload.as_str();
        let event = event_of(payload);
        tracing::error!(
            function = hosted.spec.id,
            event,
            condition = failure.condition,
            error = failure.last.as_ref().map(ToString::to_string),
            "moved to dead-letter queue (retries exhausted)"
        );
        let letter = letter(&hosted.spec, payload, &request_id, &failure, self.platform);
        let queue = self
            .aws
            .roles
            .destination(&hosted.spec.id, hosted.spec.on_failure.as_deref());
        self.park(
            &hosted.spec.id,
            event.as_deref(),
            queue,
            &letter.to_string(),
            &Attributes::new(),
        )
        .await;
    }

    async fn try_out(&self, hosted: &Hosted, outgoing: &Outgoing, id: &str) -> Result<(), Failure> {
        let payload = outgoing.payload.as_str();
        let spec = &hosted.spec;
        let failure = |condition, invocations, last| Failure {
            condition,
            invocations,
            last,
        };
        if spec.reserved == Some(0) {
            return Err(failure("ZeroReservedConcurrency", 0, None));
        }
        let since = Instant::now();
        let max_age = self.platform.pace(spec.max_age);
        let (mut invocations, mut throttles) = (0, 0);
        loop {
            let faults = self.aws.storage_faults();
            let trace = outgoing.trace.as_deref();
            let bytes = payload.as_bytes().to_vec();
            let result = hosted.invoke_in_turn(bytes, id, trace, self.rank).await;
            let (error, wait) = match result {
                Ok(_) => return Ok(()),
                // A throttled event goes back to the queue and uses no retry. Nor does one that
                // failed while the local disk was full, which never happens to DynamoDB and
                // EventBridge.
                Err(error)
                    if matches!(error, InvokeError::Throttled)
                        || self.aws.storage_faults() > faults =>
                {
                    throttles += 1;
                    let wait = Duration::from_secs(1 << (throttles - 1_u32).min(9));
                    (error, wait.min(LONGEST_THROTTLE))
                }
                Err(error) => {
                    invocations += 1;
                    if invocations > spec.retries {
                        return Err(failure("RetriesExhausted", invocations, Some(error)));
                    }
                    (error, RETRY_PAUSE * invocations)
                }
            };
            let wait = self.platform.pace(wait);
            // An event that would be too old at its next attempt expires now.
            if since.elapsed() + wait > max_age {
                return Err(failure("EventAgeExceeded", invocations, Some(error)));
            }
            let event = event_of(payload);
            tracing::warn!(function = spec.id, event, invocations, %error, "invocation failed; retrying");
            self.platform.note(&Note::Retried {
                function: &spec.id,
                event: event.as_deref(),
            });
            sleep(wait).await;
        }
    }

    async fn park(
        &self,
        function: &str,
        event: Option<&str>,
        queue: Option<&str>,
        body: &str,
        attributes: &Attributes,
    ) {
        let Some(queue) = queue else {
            tracing::error!(function, "event dropped: no dead-letter queue");
            return;
        };
        self.platform.note(&Note::DeadLetter { function, event });
        store_letter(self.aws, self.platform, queue, body, attributes).await;
    }
}

/// Stores a dead letter. Retries while the journal cannot be written: the event has no other copy.
pub(crate) async fn store_letter(
    aws: &Aws,
    platform: &dyn Platform,
    queue: &str,
    body: &str,
    attributes: &Attributes,
) {
    let mut pause = RETRY_PAUSE;
    while let Err(error) = aws.queues.send(queue, body, attributes) {
        tracing::error!(%error, queue, "failed to store dead letter; retrying");
        sleep(platform.pace(pause)).await;
        pause = (pause * 2).min(LONGEST_THROTTLE);
    }
}

/// The id of the delivered event, `order-...@3`; `None` for another payload.
fn event_of(payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Delivered {
        detail: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        id: String,
    }
    let delivered: Delivered = serde_json::from_str(payload).ok()?;
    Some(delivered.detail.id)
}

/// The correlation id of the event, which identifies the original request.
fn correlation_of(payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Delivered {
        detail: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        correlationid: String,
    }
    let delivered: Delivered = serde_json::from_str(payload).ok()?;
    Some(delivered.detail.correlationid)
}

/// The pause before the second attempt; the pause before the third is twice as long.
const RETRY_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_THROTTLE: Duration = Duration::from_mins(5);

/// The record of a failed asynchronous invocation.
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>
fn letter(
    spec: &FunctionSpec,
    payload: &str,
    request_id: &str,
    failure: &Failure,
    platform: &dyn Platform,
) -> Value {
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    let mut letter = json!({
        "version": "1.0",
        "timestamp": platform.now(),
        "requestContext": {
            "requestId": request_id,
            "functionArn": live(&spec.id),
            "condition": failure.condition,
            "approximateInvokeCount": failure.invocations,
        },
        "requestPayload": payload,
    });
    let (context, answer) = match &failure.last {
        None => return letter,
        Some(InvokeError::Throttled) => (json!({ "statusCode": 429 }), None),
        Some(error) => (
            json!({
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": "Unhandled",
            }),
            Some(error.payload(request_id)),
        ),
    };
    if let Value::Object(letter) = &mut letter {
        letter.insert("responseContext".to_owned(), context);
        letter.extend(answer.map(|answer| ("responsePayload".to_owned(), answer)));
    }
    letter
}

fn rule_arn(target: &RuleTarget) -> String {
    format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/{}", target.name)
}
