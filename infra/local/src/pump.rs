//! Hands the records of a table's stream to a function, in order, and keeps its place.
//!
//! A batch that fails is tried again, halved where the mapping says so; a single record that
//! fails for good goes to the mapping's failure destination as a pointer, and the stream goes on.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html>

use std::{sync::Arc, time::Duration};

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use crate::{
    aws::{Aws, journal::Journal},
    deliveries::{Hosted, InvokeError},
    template::Mapping,
};

/// How long a stream that cannot be read is left alone.
const UNREADABLE_PAUSE: Duration = Duration::from_millis(100);

/// A stream's way to its function.
#[derive(Debug)]
pub struct Pump {
    /// The services.
    pub aws: Arc<Aws>,
    /// Where the position is kept.
    pub journal: Arc<Journal>,
    /// The mapping.
    pub mapping: Mapping,
    /// Up to which count of writes to the table everything has been handed over.
    pub caught_up: watch::Sender<u64>,
}

impl Pump {
    /// Runs until the table's writes end.
    pub async fn run(self, hosted: &Hosted) {
        let Some(mut writes) = self.aws.dynamo.writes(&self.mapping.table) else {
            tracing::error!(table = self.mapping.table, "the table has no stream");
            return;
        };
        let mut position = self.position(&hosted.spec.id);
        loop {
            let seen = *writes.borrow_and_update();
            let Some(batch) = self.records(position.as_deref()) else {
                sleep(UNREADABLE_PAUSE).await;
                continue;
            };
            if batch.is_empty() {
                self.caught_up.send_replace(seen);
                if writes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            position = self.hand_over(hosted, &batch).await.or(position);
            if let Some(position) = &position {
                self.keep(&hosted.spec.id, position);
            }
        }
    }

    /// Hands over a batch, and returns the place of the last record that is done with.
    async fn hand_over(&self, hosted: &Hosted, batch: &[Value]) -> Option<String> {
        let mut done = None;
        let mut rest = batch;
        let mut size = batch.len();
        let mut attempt = 0;
        while !rest.is_empty() {
            let (part, later) = rest.split_at(size.min(rest.len()));
            let left = match self.invoke(hosted, part).await {
                Ok(left) => left,
                Err(error) => {
                    tracing::warn!(function = hosted.spec.id, records = part.len(), %error, "failed");
                    if self.mapping.bisects {
                        size = (part.len() / 2).max(1);
                    }
                    part
                }
            };
            let handled = part.len() - left.len();
            if let Some(last) = handled.checked_sub(1).and_then(|index| part.get(index)) {
                done = Some(sequence(last).to_owned());
                attempt = 0;
            }
            rest = rest.get(handled..).unwrap_or(later);
            if left.is_empty() {
                continue;
            }
            attempt += 1;
            match rest.first() {
                Some(poison) if attempt > self.mapping.retries => {
                    self.park(hosted, poison);
                    done = Some(sequence(poison).to_owned());
                    rest = rest.get(1..).unwrap_or_default();
                    attempt = 0;
                }
                Some(_) | None => sleep(Duration::from_millis(50 << attempt.min(5))).await,
            }
        }
        done
    }

    /// Invokes the function with some records, and returns those that it did not handle.
    async fn invoke<'a>(
        &self,
        hosted: &Hosted,
        records: &'a [Value],
    ) -> Result<&'a [Value], InvokeError> {
        let payload = json!({ "Records": records }).to_string().into_bytes();
        let request_id = uuid::Uuid::new_v4().to_string();
        let answer = hosted.invoke(payload, &request_id).await?;
        if !self.mapping.reports_failures {
            return Ok(&[]);
        }
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let failures = answer.get("batchItemFailures").and_then(Value::as_array);
        let lowest = failures
            .into_iter()
            .flatten()
            .map(|failure| failure.get("itemIdentifier").and_then(Value::as_str))
            // Without an identifier, or with an unknown one, the whole batch has failed.
            .map(|id| {
                records
                    .iter()
                    .position(|record| Some(sequence(record)) == id)
                    .unwrap_or(0)
            })
            .min();
        Ok(lowest
            .and_then(|index| records.get(index..))
            .unwrap_or_default())
    }

    fn park(&self, hosted: &Hosted, record: &Value) {
        tracing::error!(
            function = hosted.spec.id,
            sequence = sequence(record),
            "failed for good"
        );
        let pointer = json!({
            "requestContext": { "functionArn": hosted.spec.id, "condition": "RetryAttemptsExhausted" },
            "DDBStreamBatchInfo": {
                "startSequenceNumber": sequence(record),
                "endSequenceNumber": sequence(record),
                "streamArn": record.get("eventSourceARN"),
            },
        });
        if let Some(queue) = &self.mapping.on_failure
            && let Err(error) = self.aws.queues.send(queue, &pointer.to_string())
        {
            tracing::error!(%error, queue, "a dead letter is lost");
        }
    }

    /// The next records, oldest first; `None` while the stream cannot be read.
    fn records(&self, after: Option<&str>) -> Option<Vec<Value>> {
        let table = &self.mapping.table;
        let call = |operation: &str, request: Value| -> Option<Value> {
            let target = format!("DynamoDBStreams_20120810.{operation}");
            let answer = self
                .aws
                .call("stream", &target, request.to_string().as_bytes());
            serde_json::from_str(&answer.body).ok()
        };
        let arn = dynoxide::streams::stream_arn(table, "latest");
        let mut request = json!({
            "StreamArn": arn,
            "ShardId": dynoxide::streams::shard_id(table),
            "ShardIteratorType": "TRIM_HORIZON",
        });
        if let (Some(after), Value::Object(request)) = (after, &mut request) {
            request.insert(
                "ShardIteratorType".to_owned(),
                "AFTER_SEQUENCE_NUMBER".into(),
            );
            request.insert("SequenceNumber".to_owned(), after.into());
        }
        let records = call("GetShardIterator", request).and_then(|answer| {
            let iterator = answer.get("ShardIterator")?.clone();
            let request = json!({ "ShardIterator": iterator, "Limit": self.mapping.batch_size });
            let mut answer = call("GetRecords", request)?;
            serde_json::from_value::<Vec<Value>>(answer.get_mut("Records")?.take()).ok()
        });
        let Some(mut records) = records else {
            tracing::error!(table, "the stream cannot be read");
            return None;
        };
        for record in &mut records {
            if let Value::Object(record) = record {
                record.insert("eventSourceARN".to_owned(), arn.as_str().into());
            }
        }
        Some(records)
    }

    fn position(&self, function: &str) -> Option<String> {
        let position = self.journal.connection().query_row(
            "SELECT sequence FROM positions WHERE function = ?1",
            [function],
            |row| row.get(0),
        );
        position.optional().unwrap_or_else(|error| {
            tracing::error!(%error, "the position cannot be read: the stream starts over");
            None
        })
    }

    fn keep(&self, function: &str, sequence: &str) {
        let kept = self.journal.connection().execute(
            "INSERT INTO positions (function, sequence) VALUES (?1, ?2)
             ON CONFLICT (function) DO UPDATE SET sequence = excluded.sequence",
            params![function, sequence],
        );
        // An older position repeats records at the next start, which does no harm.
        if let Err(error) = kept {
            tracing::error!(%error, "the position cannot be kept");
        }
    }
}

fn sequence(record: &Value) -> &str {
    record
        .pointer("/dynamodb/SequenceNumber")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
