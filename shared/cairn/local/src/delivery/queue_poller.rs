//! Delivers the messages of a queue to a function, and deletes those that it has handled.
//!
//! Messages of a failed batch become visible again, and a queue with a redrive policy moves them to
//! its dead-letter queue after the allowed receives. Messages that the function does not report as
//! failed are deleted.
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::failed_items;
use crate::{
    aws::Aws,
    host::{Hosted, InvokeError},
    names::{REGION, queue_arn, queue_url},
    platform::Platform,
    template::QueueMapping,
};

/// The batches that are invoked at the same time. Lambda starts with five.
pub(crate) const BATCHES: usize = 5;
/// The most messages of one `ReceiveMessage`, which is the largest local batch.
const MOST_MESSAGES: usize = 10;
/// The pause before an unreadable queue is read again.
const UNREADABLE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct QueuePoller {
    pub(crate) aws: Arc<Aws>,
    pub(crate) mapping: QueueMapping,
    pub(crate) platform: Arc<dyn Platform>,
}

impl QueuePoller {
    /// Runs until it is dropped. Its messages then become visible again.
    pub(crate) async fn run(self, hosted: &Hosted) {
        let queue = self.mapping.queue.as_str();
        let request = json!({
            "QueueUrl": queue_url(queue),
            "MaxNumberOfMessages": self.mapping.batch_size.min(MOST_MESSAGES),
            "WaitTimeSeconds": 20,
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        });
        let request = request.to_string();
        loop {
            let answer = self.aws.queues.receive_message(&request).await;
            if answer.status != 200 {
                tracing::error!(queue, error = answer.body, "the queue cannot be read");
                sleep(UNREADABLE_PAUSE).await;
                continue;
            }
            let received: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            if let Some(messages) = received.get("Messages").and_then(Value::as_array) {
                self.deliver(hosted, messages).await;
            }
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
        for message in messages {
            let id = message.get("MessageId").and_then(Value::as_str);
            if id.is_some_and(|id| failed.contains(id)) {
                self.release(message);
            } else {
                self.delete(message);
            }
        }
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

    fn delete(&self, message: &Value) {
        let request = json!({
            "QueueUrl": queue_url(&self.mapping.queue),
            "ReceiptHandle": message.get("ReceiptHandle"),
        });
        let answer = self.aws.queues.call("DeleteMessage", &request.to_string());
        if answer.status != 200 {
            tracing::error!(error = answer.body, "a handled message is delivered again");
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
