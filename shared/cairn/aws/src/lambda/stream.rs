//! Stream consumers: functions that read the DynamoDB Stream of the event table in batches.
//!
//! The records of a stream of events arrive in order and at least once. A function [reports the
//! lowest failed
//! record](https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html),
//! and Lambda delivers that record and all later ones again.
//!
//! A record that no retry can help must not block its shard, and an unavailable service must move no
//! record into a queue. The cause of a failure distinguishes the two. A function sends a record to
//! the queue of `STREAM_FAILURES_QUEUE` if it cannot read the record, or if the bus rejects the
//! content of an event. Lambda delivers a record again after any other failure.

use std::{
    any::Any,
    collections::BTreeMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use aws_lambda_events::{
    event::dynamodb::{Event, EventRecord},
    event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse},
};
use serde_dynamo::AttributeValue;
use serde_json::{Value, json};

use crate::{
    clients::sqs::Queue,
    lambda::{AppContext, ConfigError, FunctionError, Handler, Invocation, metrics::Metrics},
};
use cairn::{
    commit::Commit,
    dead_letter::{self, Condition, Subject},
    relay::Unhandled,
};

pub(crate) type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// A record that replaces or removes a stored commit.
struct HistoryChange {
    /// `MODIFY` or `REMOVE`.
    operation: String,
    stream: Option<String>,
    version: Option<String>,
    sequence_number: Option<String>,
}

impl From<&EventRecord> for HistoryChange {
    fn from(record: &EventRecord) -> Self {
        let key = |name: &str| match record.change.keys.get(name) {
            Some(AttributeValue::S(text) | AttributeValue::N(text)) => Some(text.clone()),
            _ => None,
        };
        Self {
            operation: record.event_name.clone(),
            stream: key("stream"),
            version: key("version"),
            sequence_number: record.change.sequence_number.clone(),
        }
    }
}

impl HistoryChange {
    fn log(&self) {
        tracing::error!(
            operation = self.operation,
            stream = self.stream,
            version = self.version,
            sequence_number = self.sequence_number,
            "history changed"
        );
    }
}

/// Creates a stream consumer. `read` converts each commit, with the index of its record; it must
/// not depend on anything else. `handle` receives the results, and returns the records that it did
/// not handle.
pub(crate) fn reader<T, F>(
    app: &AppContext,
    read: impl Fn(&Commit, usize) -> Result<Vec<T>, ReadError> + Send + Sync + 'static,
    handle: impl Fn(Vec<T>, Invocation) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    T: Send + 'static,
    F: Future<Output = Unhandled> + Send + 'static,
{
    let failures = app.queue("STREAM_FAILURES_QUEUE")?;
    let parts = Arc::new((app.clone(), read, handle, failures));
    Ok(Handler::new(move |payload, invocation| {
        let parts = parts.clone();
        async move {
            let (app, read, handle, failures) = parts.as_ref();
            let batch: Event = serde_json::from_slice(&payload)?;
            let (mut all, mut changes) = (vec![], 0);
            let mut refused = BTreeMap::new();
            for (index, record) in batch.records.iter().enumerate() {
                if record.event_name != "INSERT" {
                    HistoryChange::from(record).log();
                    changes += 1;
                    continue;
                }
                match caught(|| commit(record).and_then(|commit| read(&commit, index))) {
                    Ok(some) => all.extend(some),
                    Err(error) => {
                        refused.insert(index, (Condition::Unreadable, error.to_string()));
                    }
                }
            }
            if changes > 0 {
                app.emit(Metrics::default().count("HistoryChanged", changes));
            }
            let function = invocation.function.clone();
            let Unhandled { failed, rejected } = handle(all, invocation).await;
            // A redrive delivers one record alone, and no event source mapping reads its report.
            if failed.is_some() && batch.records.len() == 1 {
                return Err(FunctionError::new("the record was not handled"));
            }
            let rejected = rejected
                .into_iter()
                .map(|(index, reason)| (index, (Condition::Rejected, reason)));
            refused.extend(rejected);
            // Lambda delivers the others again.
            let end = failed.unwrap_or(batch.records.len());
            for (index, (condition, error)) in refused.range(..end) {
                if let Some(record) = batch.records.get(*index) {
                    send_to_queue(failures, &function, record, *condition, error).await?;
                }
            }
            let failed = failed.and_then(|index| batch.records.get(index));
            let mut answer = DynamoDbEventResponse::default();
            answer.batch_item_failures = failed
                .map(|record| {
                    let mut failure = DynamoDbBatchItemFailure::default();
                    failure
                        .item_identifier
                        .clone_from(&record.change.sequence_number);
                    failure
                })
                .into_iter()
                .collect();
            Ok(serde_json::to_vec(&answer)?)
        }
    }))
}

/// Converts a panic into an error.
fn caught<T>(read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(panic_message(&*panic).into()))
}

/// Returns the error of a function that panicked.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the function panicked: {}", text.unwrap_or("no message"))
}

fn commit(record: &EventRecord) -> Result<Commit, ReadError> {
    let commit = serde_dynamo::from_item(record.change.new_image.clone());
    commit.map_err(ReadError::from)
}

/// Returns the reason if an event is a stream record that is not a commit, and that therefore no
/// stream consumer can handle.
pub fn unreadable(event: &Value) -> Option<String> {
    let batch: Event = serde_json::from_value(event.clone()).ok()?;
    let [record] = batch.records.as_slice() else {
        return None;
    };
    let error = commit(record).err()?;
    let body = json!({ "requestPayload": event }).to_string();
    let subject = Subject::from_message(&body, &BTreeMap::new());
    Some(format!(
        "the record {subject} is not a commit: {error}; delete its dead letter with a reason"
    ))
}

async fn send_to_queue(
    failures: &Queue,
    function: &str,
    record: &EventRecord,
    condition: Condition,
    error: &str,
) -> Result<(), FunctionError> {
    let record = serde_json::to_value(record)?;
    let letter = dead_letter::from_record(function, &record, condition, error).to_string();
    let subject = Subject::from_message(&letter, &BTreeMap::new());
    tracing::error!(
        stream = subject.stream,
        version = subject.version,
        sequence_number = subject.sequence_number,
        ?condition,
        error,
        "stream record sent to queue"
    );
    failures.send(letter).await?;
    Ok(())
}
