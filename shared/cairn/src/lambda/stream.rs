//! The relay's function: it reads the event table's stream and publishes what it finds.

use std::sync::Arc;

use aws_lambda_events::{
    event::dynamodb::{Event, EventRecord},
    event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse},
};

use crate::{
    cloudevent::CloudEvent,
    commit::Commit,
    lambda::{ConfigError, Environment, Function, FunctionError, patience},
    relay::{Entry, publish_all},
    retry::Tries,
    sqs::Queue,
};

/// The function that publishes every commit of a batch.
///
/// What the bus does not take is reported as the lowest failed sequence number, so the batch goes
/// on from there. A record that is no commit goes to the queue that `RELAY_FAILURES_QUEUE` names,
/// with a pointer to it, and does not hold up the rest.
///
/// # Errors
/// When a setting is missing.
pub fn relay(environment: &Environment) -> Result<Function, ConfigError> {
    let bus = environment.bus()?;
    let failures = environment.queue("RELAY_FAILURES_QUEUE")?;
    let relay = Arc::new((bus, failures));
    Ok(Function::new(move |payload, invocation| {
        let relay = relay.clone();
        async move {
            let (bus, failures) = relay.as_ref();
            let batch: Event = serde_json::from_slice(&payload).map_err(FunctionError::new)?;
            let mut entries = vec![];
            for (index, record) in batch.records.iter().enumerate() {
                if record.event_name != "INSERT" {
                    continue;
                }
                match published(record, index, bus.source()) {
                    Ok(events) => entries.extend(events),
                    Err(error) => park(failures, record, &error.to_string()).await?,
                }
            }
            let events = entries.len();
            let failed = publish_all(bus, entries, Tries::lasting(patience(&invocation))).await;
            tracing::info!(records = batch.records.len(), events, ?failed, "relayed");
            let mut answer = DynamoDbEventResponse::default();
            answer.batch_item_failures = failed
                .and_then(|index| batch.records.get(index))
                .map(|record| {
                    let mut failure = DynamoDbBatchItemFailure::default();
                    failure
                        .item_identifier
                        .clone_from(&record.change.sequence_number);
                    failure
                })
                .into_iter()
                .collect();
            serde_json::to_vec(&answer).map_err(FunctionError::new)
        }
    }))
}

fn published(
    record: &EventRecord,
    index: usize,
    source: &str,
) -> Result<Vec<Entry>, Box<dyn std::error::Error + Send + Sync>> {
    let commit: Commit = serde_dynamo::from_item(record.change.new_image.clone())?;
    commit
        .recorded()
        .map(|event| Ok(Entry::new(CloudEvent::new(source, &event), index)?))
        .collect()
}

async fn park(failures: &Queue, record: &EventRecord, error: &str) -> Result<(), FunctionError> {
    let sequence = record.change.sequence_number.as_deref().unwrap_or_default();
    tracing::error!(sequence, error, "a record is no commit");
    let pointer = serde_json::json!({
        "stream": record.event_source_arn,
        "sequenceNumber": sequence,
        "keys": record.change.keys,
        "error": error,
    });
    failures
        .send(pointer.to_string())
        .await
        .map_err(FunctionError::new)
}
