//! Delivers the messages of a queue to a function, and deletes those that it has handled.
//!
//! A batch waits for more messages until it is full or its window ends. Messages of a failed batch
//! become visible again, and a queue with a redrive policy moves them to its dead-letter queue
//! after the allowed receives. Messages that the function does not report as failed are deleted.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::{failed_items, worker::event_of};
use crate::{
    aws::{Answer, Aws},
    host::{
        Hosted, InvokeError,
        sdk::{Refusal, undergo},
    },
    names::{REGION, queue_arn, queue_url},
    platform::{Note, Platform},
    template::QueueMapping,
};

/// The most messages of one call.
const MOST_MESSAGES: usize = 10;
/// The time for which a call waits for the first message of a batch.
const LONG_POLL: Duration = Duration::from_secs(20);
const NO_ANSWER: Refusal = (504, "Timeout", "no answer");
/// The pause before an unreadable queue is read again.
const UNREADABLE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct QueuePoller {
    pub(crate) aws: Arc<Aws>,
    pub(crate) mapping: QueueMapping,
    pub(crate) platform: Arc<dyn Platform>,
    /// The turn to collect a batch. Without it, chance would decide which poller receives a message,
    /// and a simulation could not be repeated.
    pub(crate) turn: Arc<Mutex<()>>,
}

impl QueuePoller {
    /// Runs until it is dropped. Its messages then become visible again.
    pub(crate) async fn run(self, hosted: &Hosted) {
        loop {
            let batch = {
                let _turn = self.turn.lock().await;
                self.collect().await
            };
            self.deliver(hosted, &batch).await;
        }
    }

    /// Waits for a message, and for more until the batch is full or its window ends.
    async fn collect(&self) -> Vec<Value> {
        let size = self.mapping.batch_size;
        let mut batch = vec![];
        while batch.is_empty() {
            batch = self.receive(size, LONG_POLL).await;
        }
        let end = Instant::now() + self.platform.pace(self.mapping.window);
        while batch.len() < size && Instant::now() < end {
            let left = end - Instant::now();
            batch.append(&mut self.receive(size - batch.len(), left).await);
        }
        batch
    }

    /// Receives messages in one call, which waits this long for the first.
    async fn receive(&self, most: usize, wait: Duration) -> Vec<Value> {
        let queue = self.mapping.queue.as_str();
        let request = json!({
            "QueueUrl": queue_url(queue),
            "MaxNumberOfMessages": most.min(MOST_MESSAGES),
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        });
        let request = request.to_string();
        let received = self.aws.queues.receive_within(queue, wait, &request);
        let answer = self.undergo("ReceiveMessage", received).await;
        if answer.status != 200 {
            tracing::error!(queue, error = answer.body, "the queue cannot be read");
            sleep(UNREADABLE_PAUSE).await;
            return vec![];
        }
        let mut received: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        match received.get_mut("Messages").map(Value::take) {
            Some(Value::Array(messages)) => messages,
            _ => vec![],
        }
    }

    async fn deliver(&self, hosted: &Hosted, messages: &[Value]) {
        let arn = queue_arn(&self.mapping.queue);
        let records: Vec<_> = messages
            .iter()
            .map(|message| record(message, &arn))
            .collect();
        let payload = json!({ "Records": records }).to_string().into_bytes();
        let request_id = self.platform.new_id().to_string();
        let result = hosted.invoke(payload, &request_id).await;
        if let Err(error) = &result {
            let (function, messages) = (hosted.spec.id.as_str(), messages.len());
            tracing::warn!(function, messages, %error, "batch failed; retrying");
        }
        let failed = self.failed(messages, result);
        let is_failed = |message: &&Value| {
            let id = message.get("MessageId").and_then(Value::as_str);
            id.is_some_and(|id| failed.contains(id))
        };
        let (failed, handled): (Vec<_>, Vec<_>) = messages.iter().partition(is_failed);
        for message in failed {
            self.tell(&hosted.spec.id, message);
            self.release(message);
        }
        for messages in handled.chunks(MOST_MESSAGES) {
            self.delete(messages).await;
        }
    }

    /// Makes a call with the faults of the platform.
    async fn undergo(&self, operation: &str, call: impl Future<Output = Answer>) -> Answer {
        let decision = self.platform.call(&self.mapping.queue, operation);
        let refused = |(status, kind, message)| Answer::error(status, kind, message);
        let throttled = (400, "RequestThrottled", "Rate exceeded");
        undergo(decision, throttled, refused, || refused(NO_ANSWER), call).await
    }

    /// Returns the ids of the messages that the function did not handle.
    fn failed(&self, messages: &[Value], result: Result<Vec<u8>, InvokeError>) -> BTreeSet<String> {
        let ids = messages
            .iter()
            .filter_map(|message| message.get("MessageId")?.as_str());
        let all: BTreeSet<_> = ids.map(str::to_owned).collect();
        let Ok(answer) = result else {
            return all;
        };
        if !self.mapping.reports_failures {
            return BTreeSet::new();
        }
        let Some(failures) = failed_items(&answer) else {
            return all;
        };
        let ids = failures
            .into_iter()
            .map(|id| id.filter(|id| all.contains(id)));
        // Without an identifier, or with an unknown one, the whole batch failed.
        ids.collect::<Option<_>>().unwrap_or(all)
    }

    /// Notes that a message failed, and whether it becomes a dead letter.
    fn tell(&self, function: &str, message: &Value) {
        let received = message.pointer("/Attributes/ApproximateReceiveCount");
        let received = received.and_then(|count| count.as_str()?.parse().ok());
        let allowed = self.aws.queues.receives(&self.mapping.queue);
        let is_last = allowed.is_some_and(|allowed| received.unwrap_or(0) >= allowed);
        let body = message.get("Body").and_then(Value::as_str);
        let event = body.and_then(event_of);
        let event = event.as_deref();
        self.platform.note(&if is_last {
            Note::DeadLetter { function, event }
        } else {
            Note::Retried { function, event }
        });
    }

    /// Makes a message visible after the local duration of the queue's visibility timeout.
    fn release(&self, message: &Value) {
        let hidden = self
            .platform
            .pace(self.aws.queues.visibility(&self.mapping.queue));
        let handle = message.get("ReceiptHandle").and_then(Value::as_str);
        let handle = handle.unwrap_or_default();
        if let Err(error) = self.aws.queues.release(&self.mapping.queue, handle, hidden) {
            tracing::error!(%error, "a message stays hidden until its visibility timeout");
        }
    }

    async fn delete(&self, messages: &[&Value]) {
        let entries = messages.iter().enumerate().map(|(id, message)| {
            json!({ "Id": id.to_string(), "ReceiptHandle": message.get("ReceiptHandle") })
        });
        let request = json!({
            "QueueUrl": queue_url(&self.mapping.queue),
            "Entries": entries.collect::<Vec<_>>(),
        });
        let request = request.to_string();
        let deleted = async { self.aws.queues.call("DeleteMessageBatch", &request) };
        let answer = self.undergo("DeleteMessageBatch", deleted).await;
        let deleted: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let failed = deleted.get("Failed").and_then(Value::as_array);
        if failed.is_none_or(|failed| !failed.is_empty()) {
            tracing::error!(error = answer.body, "handled messages are delivered again");
        }
    }
}

/// Returns a message in the form in which Lambda delivers it.
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>
fn record(message: &Value, arn: &str) -> Value {
    let attributes = message.get("MessageAttributes").and_then(Value::as_object);
    let attribute = |(name, value): (&String, &Value)| {
        let value = json!({
            "stringValue": value.get("StringValue"),
            "binaryValue": value.get("BinaryValue"),
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": value.get("DataType"),
        });
        (name.clone(), value)
    };
    let attributes: Map<_, _> = attributes.into_iter().flatten().map(attribute).collect();
    json!({
        "messageId": message.get("MessageId"),
        "receiptHandle": message.get("ReceiptHandle"),
        "body": message.get("Body"),
        "attributes": message.get("Attributes"),
        "messageAttributes": attributes,
        "md5OfBody": message.get("MD5OfBody"),
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": REGION,
    })
}
