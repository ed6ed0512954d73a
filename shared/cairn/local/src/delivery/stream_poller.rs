//! Delivers the records of a table's `DynamoDB` Stream to a function in order, and stores the
//! position.
//!
//! A failed batch is retried, and halved if the mapping requires it. A batch that fails permanently or
//! becomes too old goes to the mapping's failure destination as a pointer, and the delivery
//! continues. Records that the function reports as handled are not delivered again.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html>
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{failed_items, messages::store, retention::Retention};
use crate::{
    aws::{
        Aws,
        dynamo::{Page, StreamRecord},
        journal::Journal,
        queues::Attributes,
    },
    host::{Hosted, InvokeError},
    names::stream_arn,
    platform::{Note, Platform},
    template::Mapping,
};

/// The pause before an unreadable stream is read again.
const UNREADABLE_PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest pause before a batch is retried. AWS documents neither.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The most records that one `GetRecords` returns.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html>
const MOST_RECORDS: usize = 1_000;

/// The number of records after which those that no mapping needs are removed.
const TRIM_EVERY: usize = 1_000;

#[derive(Debug)]
pub(crate) struct StreamPoller {
    pub aws: Arc<Aws>,
    /// The journal, which stores the position.
    pub journal: Arc<Journal>,
    pub mapping: Mapping,
    pub retention: Arc<Retention>,
    pub platform: Arc<dyn Platform>,
    /// The number of table writes whose records are delivered; `None` until the backlog of an
    /// earlier process is delivered.
    pub caught_up: watch::Sender<Option<u64>>,
}

/// Records that are delivered together, and the number of failed attempts.
#[derive(Clone, Copy)]
struct Part<'a> {
    records: &'a [StreamRecord],
    failures: u32,
}

impl StreamPoller {
    /// Runs until the table's writes end.
    pub(crate) async fn run(self, hosted: &Hosted) {
        let Some(mut writes) = self.aws.dynamo.writes(&self.mapping.table) else {
            return;
        };
        let consumer = hosted.spec.consumer(&self.mapping);
        let mut position = self.position(&consumer);
        let mut untrimmed = 0;
        loop {
            let seen = *writes.borrow_and_update();
            let Some(page) = self.records(position.as_deref()) else {
                sleep(UNREADABLE_PAUSE).await;
                continue;
            };
            if !page.records.is_empty() {
                self.deliver(hosted, &page.records).await;
            }
            if let Some(last) = &page.last {
                self.keep(&consumer, last);
                position = Some(last.clone());
            }
            untrimmed += page.read;
            if untrimmed >= TRIM_EVERY {
                self.retention.trim();
                untrimmed = 0;
            }
            // A page that is not full is the last one.
            if page.is_full {
                continue;
            }
            self.caught_up.send_replace(Some(seen));
            if writes.changed().await.is_err() {
                return;
            }
            let poll = self.platform.poll();
            if !poll.is_zero() {
                sleep(poll).await;
            }
        }
    }

    /// Delivers a batch, until each record is handled or sent to the failure destination.
    async fn deliver(&self, hosted: &Hosted, batch: &[StreamRecord]) {
        let since = Instant::now();
        let mut pause = FIRST_PAUSE;
        // A stack: the next part is the last element.
        let mut parts = vec![Part::new(batch)];
        while let Some(part) = parts.pop() {
            let too_old = self.mapping.max_age.map(|age| self.platform.pace(age));
            if too_old.is_some_and(|age| since.elapsed() > age) {
                self.park(hosted, &part, "RecordAgeExceeded").await;
                continue;
            }
            let faults = self.aws.storage_faults();
            match self.invoke(hosted, part.records).await {
                Ok([]) => continue,
                Ok(rest) if rest.len() < part.records.len() => {
                    tracing::warn!(
                        function = hosted.spec.id,
                        left = rest.len(),
                        "handled in part"
                    );
                    pause = FIRST_PAUSE;
                    parts.push(Part::new(rest));
                }
                // A throttled batch did not run, which uses no retry.
                Err(InvokeError::Throttled) => parts.push(part),
                // A failure while the local disk was full uses no retry either.
                Err(_) | Ok(_) if self.aws.storage_faults() > faults => parts.push(part),
                failed => {
                    let error = failed.err().map(|error| error.to_string());
                    let records = part.records.len();
                    tracing::warn!(
                        function = hosted.spec.id,
                        records,
                        error,
                        "batch failed; retrying"
                    );
                    self.retry(hosted, part, &mut parts).await;
                }
            }
            sleep(self.platform.pace(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Handles a part that failed as a whole. Halving uses no retry.
    async fn retry<'a>(&self, hosted: &Hosted, part: Part<'a>, parts: &mut Vec<Part<'a>>) {
        if self.mapping.bisects && part.records.len() > 1 {
            let (first, second) = part.records.split_at(part.records.len() / 2);
            parts.extend([Part::new(second), Part::new(first)]);
            return;
        }
        let part = Part {
            failures: part.failures + 1,
            ..part
        };
        if self
            .mapping
            .retries
            .is_some_and(|retries| part.failures > retries)
        {
            self.park(hosted, &part, "RetryAttemptsExhausted").await;
        } else {
            parts.push(part);
        }
    }

    /// Invokes the function with some records, and returns those that it did not handle.
    async fn invoke<'a>(
        &self,
        hosted: &Hosted,
        records: &'a [StreamRecord],
    ) -> Result<&'a [StreamRecord], InvokeError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Batch<'a> {
            records: &'a [StreamRecord],
        }
        let payload = serde_json::to_vec(&Batch { records });
        let payload = payload.map_err(|error| InvokeError::Failed(error.to_string()))?;
        let request_id = self.platform.new_id().to_string();
        let answer = hosted.invoke(payload, &request_id).await?;
        if !self.mapping.reports_failures {
            return Ok(&[]);
        }
        let Some(failures) = failed_items(&answer) else {
            return Ok(records);
        };
        let lowest = failures
            .into_iter()
            // Without an identifier, or with an unknown one, the whole batch failed.
            .map(|id| {
                records
                    .iter()
                    .position(|record| Some(&record.sequence) == id.as_ref())
                    .unwrap_or(0)
            })
            .min();
        Ok(lowest
            .and_then(|index| records.get(index..))
            .unwrap_or_default())
    }

    async fn park(&self, hosted: &Hosted, part: &Part<'_>, condition: &str) {
        let edge = |record: Option<&StreamRecord>| record.map(|record| record.sequence.clone());
        let (first, last) = (edge(part.records.first()), edge(part.records.last()));
        let function = hosted.spec.id.as_str();
        tracing::error!(
            function,
            first,
            last,
            condition,
            "moved to failure destination (retries exhausted)"
        );
        let pointer = json!({
            "version": "1.0",
            "timestamp": self.platform.now(),
            "requestContext": {
                "requestId": self.platform.new_id(),
                "functionArn": hosted.spec.alias_arn(),
                "condition": condition,
                "approximateInvokeCount": part.failures.max(1),
            },
            "DDBStreamBatchInfo": {
                "shardId": dynoxide::streams::shard_id(&self.mapping.table),
                "startSequenceNumber": first,
                "endSequenceNumber": last,
                "batchSize": part.records.len(),
                "streamArn": stream_arn(&self.mapping.table),
            },
        });
        self.platform.note(&Note::DeadLetter {
            function,
            event: None,
        });
        let on_failure = self.mapping.on_failure.as_deref();
        let Some(queue) = self.aws.roles.destination(function, on_failure) else {
            return;
        };
        let (platform, pointer) = (self.platform.as_ref(), pointer.to_string());
        store(
            &self.aws,
            platform,
            queue,
            &pointer,
            &Attributes::new(),
            None,
        )
        .await;
    }

    fn limit(&self) -> usize {
        self.mapping.batch_size.min(MOST_RECORDS)
    }

    /// Returns the next records, oldest first; `None` if the stream cannot be read.
    fn records(&self, after: Option<&str>) -> Option<Arc<Page>> {
        let table = &self.mapping.table;
        let page = self.aws.dynamo.records(table, after, self.limit());
        if page.is_none() {
            tracing::error!(table, "the stream cannot be read");
        }
        page
    }

    fn position(&self, consumer: &str) -> Option<String> {
        self.journal.position(consumer).unwrap_or_else(|error| {
            tracing::error!(%error, "the position cannot be read: the stream starts over");
            None
        })
    }

    fn keep(&self, consumer: &str, sequence: &str) {
        // An older position repeats records at the next start, which is harmless.
        if let Err(error) = self.journal.store_position(consumer, sequence) {
            self.journal.report(&error);
        }
    }
}

impl<'a> Part<'a> {
    fn new(records: &'a [StreamRecord]) -> Self {
        Self {
            records,
            failures: 0,
        }
    }
}
