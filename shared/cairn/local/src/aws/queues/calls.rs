//! The operations of SQS that a template's queues need.
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Operations.html>

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use cairn::dead_letter::SOURCE_QUEUE;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    attributes::{self, MessageAttributes, md5_of},
    store::{Change, Outgoing, Queues, Received, receipt_of},
};
use crate::{
    aws::call::Answer,
    names::{ACCOUNT, queue_arn, queue_url},
    template::Queue,
};

/// The most bytes of a message, and of the messages of a batch together.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const MAX_BYTES: usize = 1024 * 1024;
const MAX_ENTRIES: usize = 10;

/// A refused call: the error code of the JSON protocol, and a message.
struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    fn value(value: impl std::fmt::Display, parameter: &str, reason: &str) -> Self {
        Self::new(
            INVALID,
            format!("Value {value} for parameter {parameter} is invalid. Reason: {reason}"),
        )
    }

    fn missing(parameter: &str) -> Self {
        Self::new(
            MISSING,
            format!("The request must contain the parameter {parameter}."),
        )
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(INTERNAL, error.to_string())
    }
}

const INVALID: &str = "InvalidParameterValueException";
const MISSING: &str = "MissingRequiredParameterException";
const INTERNAL: &str = "InternalFailure";

/// Converts an error type of the JSON protocol to the code of the query protocol, by which most
/// SDKs identify the error.
/// <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#compatibility-with-awsjson>
pub(crate) fn query_code(kind: &str) -> Option<String> {
    let kind = kind.strip_prefix(NAMESPACE)?;
    Some(match kind {
        INVALID => "InvalidParameterValue".to_owned(),
        MISSING => "MissingParameter".to_owned(),
        "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue".to_owned(),
        INTERNAL | "InvalidMessageContents" | "ReceiptHandleIsInvalid" | "InvalidAttributeName" => {
            kind.to_owned()
        }
        _ => format!("AWS.SimpleQueueService.{kind}"),
    })
}

const NAMESPACE: &str = "com.amazonaws.sqs#";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendMessage {
    message_body: Option<String>,
    delay_seconds: Option<i64>,
    message_attributes: Option<MessageAttributes>,
    message_system_attributes: Option<MessageAttributes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveMessage {
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    #[serde(default)]
    message_attribute_names: Vec<String>,
    #[serde(default)]
    message_system_attribute_names: Vec<String>,
    #[serde(default)]
    attribute_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receipt {
    receipt_handle: Option<String>,
    visibility_timeout: Option<i64>,
}

#[derive(Deserialize)]
struct Entry<T> {
    #[serde(rename = "Id")]
    id: Option<String>,
    #[serde(flatten)]
    call: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetQueueAttributes {
    #[serde(default)]
    attribute_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListQueues {
    #[serde(default)]
    queue_name_prefix: String,
    max_results: Option<i64>,
    next_token: Option<String>,
}

impl Queues {
    /// Answers a call without waiting; `Queues::receive_message` waits.
    pub fn call(&self, operation: &str, body: &str) -> Answer {
        self.bill(body.len());
        self.attempt(operation, body)
    }

    fn attempt(&self, operation: &str, body: &str) -> Answer {
        match self.answer(operation, body) {
            Ok(Some(body)) => Answer::ok(&body),
            Ok(None) => Answer::unavailable("sqs", operation),
            Err(Refusal { code, message }) => {
                let status = if code == INTERNAL { 500 } else { 400 };
                Answer::error(status, &format!("{NAMESPACE}{code}"), &message)
            }
        }
    }

    /// Answers a call of `ReceiveMessage`, and waits for a message as long as the call requests.
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html>
    pub(crate) async fn receive_message(&self, body: &str) -> Answer {
        match self.wait_of(body) {
            Some((queue, wait)) => self.receive_within(queue, wait, body).await,
            None => self.call("ReceiveMessage", body),
        }
    }

    /// Answers a call of `ReceiveMessage` for a queue, and waits this long for a message.
    pub(crate) async fn receive_within(&self, queue: &str, wait: Duration, body: &str) -> Answer {
        let mut arrivals = self.arrivals.subscribe();
        let end = Instant::now() + wait;
        loop {
            arrivals.mark_unchanged();
            let answer = self.attempt("ReceiveMessage", body);
            let now = Instant::now();
            if answer.status != 200 || answer.body != EMPTY || now >= end {
                self.bill(answer.body.len());
                return answer;
            }
            let next = self.until_visible(queue).ok().flatten();
            let next = next.map_or(end, |next| end.min(now + next.max(SHORTEST_WAIT)));
            // An arrival and the timeout both lead to another attempt.
            let _ = timeout_at(next, arrivals.changed()).await;
        }
    }

    fn wait_of(&self, body: &str) -> Option<(&str, Duration)> {
        let queue = self.named(&serde_json::from_str(body).ok()?).ok()?;
        let request: ReceiveMessage = serde_json::from_str(body).ok()?;
        let wait = request.wait_time_seconds.unwrap_or(queue.wait_s);
        let wait = u64::try_from(wait).ok().filter(|wait| *wait <= 20)?;
        Some((&queue.name, Duration::from_secs(wait)))
    }

    fn answer(&self, operation: &str, body: &str) -> Result<Option<Value>, Refusal> {
        let request: Value = read(body)?;
        let queue = || self.named(&request);
        Ok(Some(match operation {
            "ListQueues" => self.list(&read(body)?)?,
            "GetQueueUrl" => json!({ "QueueUrl": queue_url(&queue()?.name) }),
            "GetQueueAttributes" => self.attributes(queue()?, &read(body)?)?,
            "SendMessage" => {
                let (queue, call): (_, SendMessage) = (queue()?, read(body)?);
                let size = call.check(queue)?;
                if size > queue.max_bytes {
                    return Err(too_long(queue.max_bytes));
                }
                self.take(queue, &call)?.into()
            }
            "SendMessageBatch" => self.send_batch(queue()?, body)?,
            "ReceiveMessage" => self.receive_now(queue()?, &read(body)?)?,
            "DeleteMessage" => {
                let (queue, call): (_, Receipt) = (queue()?, read(body)?);
                let receipt = call.receipt()?;
                self.delete(&queue.name, (&receipt.0, &receipt.1))?;
                json!({})
            }
            "DeleteMessageBatch" => {
                let queue = queue()?;
                one_by_one(entries(body)?, |call: &Receipt| {
                    let receipt = call.receipt()?;
                    self.delete(&queue.name, (&receipt.0, &receipt.1))?;
                    Ok(Map::new())
                })
            }
            "ChangeMessageVisibility" => {
                self.change(queue()?, &read(body)?)?;
                json!({})
            }
            "ChangeMessageVisibilityBatch" => {
                let queue = queue()?;
                one_by_one(entries(body)?, |call: &Receipt| {
                    self.change(queue, call).map(|()| Map::new())
                })
            }
            "PurgeQueue" => {
                self.purge(&queue()?.name)?;
                json!({})
            }
            _ => return Ok(None),
        }))
    }

    fn named(&self, request: &Value) -> Result<&Queue, Refusal> {
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let name = text("QueueName").or_else(|| text("QueueUrl")?.rsplit('/').next());
        let name = name.ok_or_else(|| Refusal::missing("QueueUrl"))?;
        let known = self.known.iter().find(|known| known.name == name);
        known.ok_or_else(|| {
            Refusal::new(
                "QueueDoesNotExist",
                format!("The specified queue does not exist: {name}"),
            )
        })
    }

    fn list(&self, call: &ListQueues) -> Result<Value, Refusal> {
        let most = in_range(call.max_results, 1..=1_000, "MaxResults")?.unwrap_or(1_000);
        let mut names: Vec<_> = self.names.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.retain(|name| name.starts_with(&call.queue_name_prefix));
        if let Some(after) = &call.next_token {
            names.retain(|name| *name > after.as_str());
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let next = (names.len() > most && call.max_results.is_some()).then(|| names.get(most - 1));
        let urls: Vec<_> = names
            .iter()
            .take(most)
            .map(|name| queue_url(name))
            .collect();
        Ok(match next.flatten() {
            Some(next) => json!({ "QueueUrls": urls, "NextToken": next }),
            None => json!({ "QueueUrls": urls }),
        })
    }

    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html>
    fn attributes(&self, queue: &Queue, call: &GetQueueAttributes) -> Result<Value, Refusal> {
        if call.attribute_names.is_empty() {
            return Ok(json!({}));
        }
        let depths = self.depths(&queue.name)?;
        let all = [
            ("QueueArn", queue_arn(&queue.name)),
            ("ApproximateNumberOfMessages", depths.visible.to_string()),
            (
                "ApproximateNumberOfMessagesNotVisible",
                depths.in_flight.to_string(),
            ),
            (
                "ApproximateNumberOfMessagesDelayed",
                depths.delayed.to_string(),
            ),
            ("CreatedTimestamp", self.since_s.to_string()),
            ("LastModifiedTimestamp", self.since_s.to_string()),
            ("VisibilityTimeout", queue.visibility_s.to_string()),
            ("MaximumMessageSize", queue.max_bytes.to_string()),
            ("MessageRetentionPeriod", queue.retention_s.to_string()),
            ("DelaySeconds", queue.delay_s.to_string()),
            ("ReceiveMessageWaitTimeSeconds", queue.wait_s.to_string()),
            ("SqsManagedSseEnabled", "true".to_owned()),
        ];
        // Attributes that SQS knows and the queues of this system lack.
        let absent = [
            "Policy",
            "RedrivePolicy",
            "RedriveAllowPolicy",
            "KmsMasterKeyId",
        ];
        let is_known = |name: &str| {
            name == "All" || absent.contains(&name) || all.iter().any(|(known, _)| *known == name)
        };
        if let Some(unknown) = call.attribute_names.iter().find(|name| !is_known(name)) {
            let message = format!("Unknown Attribute {unknown}.");
            return Err(Refusal::new("InvalidAttributeName", message));
        }
        let asked = |name: &str| {
            call.attribute_names
                .iter()
                .any(|asked| asked == "All" || asked == name)
        };
        let asked = all.into_iter().filter(|(name, _)| asked(name));
        let asked: Map<_, _> = asked
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        Ok(json!({ "Attributes": asked }))
    }

    fn take(&self, queue: &Queue, call: &SendMessage) -> Result<Map<String, Value>, Refusal> {
        let none = MessageAttributes::new();
        let attributes = call.message_attributes.as_ref().unwrap_or(&none);
        let system = call.message_system_attributes.as_ref().unwrap_or(&none);
        let body = call.message_body.as_deref().unwrap_or_default();
        let delay = call.delay_seconds.unwrap_or(queue.delay_s);
        let message = Outgoing {
            body,
            attributes,
            trace: system.get(TRACE).and_then(|trace| trace.as_text()),
            delay: seconds(delay),
        };
        let id = self.put(&queue.name, &message)?;
        let mut answer = Map::from_iter([
            ("MessageId".to_owned(), id.into()),
            (
                "MD5OfMessageBody".to_owned(),
                md5_of(body.as_bytes()).into(),
            ),
        ]);
        let digests = [
            ("MD5OfMessageAttributes", attributes::digest(attributes)),
            ("MD5OfMessageSystemAttributes", attributes::digest(system)),
        ];
        for (name, digest) in digests {
            answer.extend(digest.map(|digest| (name.to_owned(), digest.into())));
        }
        Ok(answer)
    }

    fn send_batch(&self, queue: &Queue, body: &str) -> Result<Value, Refusal> {
        let entries: Vec<Entry<SendMessage>> = entries(body)?;
        let total: usize = entries.iter().map(|entry| entry.call.size()).sum();
        if total > MAX_BYTES {
            let message = format!(
                "Batch requests cannot be longer than {MAX_BYTES} bytes. You have sent {total} bytes."
            );
            return Err(Refusal::new("BatchRequestTooLong", message));
        }
        Ok(one_by_one(entries, |call| {
            if call.check(queue)? > queue.max_bytes {
                return Err(too_long(queue.max_bytes));
            }
            self.take(queue, call)
        }))
    }

    fn receive_now(&self, queue: &Queue, call: &ReceiveMessage) -> Result<Value, Refusal> {
        let most = in_range(call.max_number_of_messages, 1..=10, "MaxNumberOfMessages")?;
        let hidden = in_range(call.visibility_timeout, HIDDEN_S, "VisibilityTimeout")?;
        in_range(call.wait_time_seconds, 0..=20, "WaitTimeSeconds")?;
        let hidden = seconds(hidden.unwrap_or(queue.visibility_s));
        let messages = self.receive(&queue.name, most.unwrap_or(1), hidden)?;
        if messages.is_empty() {
            return Ok(json!({}));
        }
        let messages: Vec<_> = messages
            .into_iter()
            .map(|message| message.into_json(call))
            .collect();
        Ok(json!({ "Messages": messages }))
    }

    fn change(&self, queue: &Queue, call: &Receipt) -> Result<(), Refusal> {
        let receipt = call.receipt()?;
        let hidden = in_range(call.visibility_timeout, HIDDEN_S, "VisibilityTimeout")?;
        let hidden = hidden.ok_or_else(|| Refusal::missing("VisibilityTimeout"))?;
        match self.hide(&queue.name, (&receipt.0, &receipt.1), seconds(hidden))? {
            Change::Done => Ok(()),
            Change::NotInFlight => Err(Refusal::new(
                "MessageNotInflight",
                "the message is visible: it was received too long ago",
            )),
            Change::NoSuchReceipt => Err(Refusal::value(
                call.receipt_handle.as_deref().unwrap_or_default(),
                "ReceiptHandle",
                "Message does not exist or is not available for visibility timeout change.",
            )),
        }
    }
}

/// The only system attribute that a sender may set.
const TRACE: &str = "AWSTraceHeader";
const HIDDEN_S: RangeInclusive<i64> = 0..=43_200;
const EMPTY: &str = "{}";
/// The clock counts milliseconds, so a message may become visible up to one later.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

impl SendMessage {
    /// The bytes that count: the body, and the attributes with their names and types.
    fn size(&self) -> usize {
        let body = self.message_body.as_ref().map_or(0, String::len);
        let attributes = self.message_attributes.as_ref();
        body + attributes.map_or(0, |attributes| {
            attributes::check(attributes).unwrap_or_default()
        })
    }

    fn check(&self, queue: &Queue) -> Result<usize, Refusal> {
        let body = self.message_body.as_deref().unwrap_or_default();
        if body.is_empty() {
            return Err(Refusal::missing("MessageBody"));
        }
        if let Some(odd) = body.chars().find(|char| !is_xml(*char)) {
            let message = format!("the body contains {odd:?}, which is not a character of XML 1.0");
            return Err(Refusal::new("InvalidMessageContents", message));
        }
        in_range(
            self.delay_seconds.or(Some(queue.delay_s)),
            0..=900,
            "DelaySeconds",
        )?;
        let attributes = [&self.message_attributes, &self.message_system_attributes];
        for attributes in attributes.into_iter().flatten() {
            attributes::check(attributes).map_err(|problem| Refusal::new(INVALID, problem))?;
        }
        let mut system = self.message_system_attributes.iter().flatten();
        if let Some((unknown, _)) = system.find(|(name, _)| *name != TRACE) {
            let message = format!("{unknown} is not a system attribute that a sender may set");
            return Err(Refusal::new(INVALID, message));
        }
        Ok(self.size())
    }
}

impl Receipt {
    fn receipt(&self) -> Result<(String, String), Refusal> {
        let handle = self.receipt_handle.as_deref();
        let handle = handle.ok_or_else(|| Refusal::missing("ReceiptHandle"))?;
        receipt_of(handle).ok_or_else(|| {
            let message =
                format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
            Refusal::new("ReceiptHandleIsInvalid", message)
        })
    }
}

impl Received {
    fn into_json(self, call: &ReceiveMessage) -> Value {
        let mut message = Map::from_iter([
            ("MessageId".to_owned(), self.id.into()),
            ("ReceiptHandle".to_owned(), self.receipt.into()),
            ("MD5OfBody".to_owned(), md5_of(self.body.as_bytes()).into()),
            ("Body".to_owned(), self.body.into()),
        ]);
        let attributes = attributes::asked(self.attributes, &call.message_attribute_names);
        if let Some(digest) = attributes::digest(&attributes) {
            message.insert("MD5OfMessageAttributes".to_owned(), digest.into());
            message.insert("MessageAttributes".to_owned(), json!(attributes));
        }
        let names = [&call.message_system_attribute_names, &call.attribute_names];
        let asked = |name: &str| {
            let mut names = names.into_iter().flatten();
            names.any(|asked| asked == "All" || asked == name)
        };
        let system = [
            ("SenderId", Some(ACCOUNT.to_owned())),
            ("SentTimestamp", Some(self.sent_at_ms.to_string())),
            ("ApproximateReceiveCount", Some(self.receives.to_string())),
            (
                "ApproximateFirstReceiveTimestamp",
                Some(self.first_received_at_ms.to_string()),
            ),
            (TRACE, self.trace),
            (SOURCE_QUEUE, self.source.as_deref().map(queue_arn)),
        ];
        let system: Map<_, _> = system
            .into_iter()
            .filter(|(name, _)| asked(name))
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect();
        if !system.is_empty() {
            message.insert("Attributes".to_owned(), system.into());
        }
        Value::Object(message)
    }
}

fn entries<T: DeserializeOwned>(body: &str) -> Result<Vec<Entry<T>>, Refusal> {
    #[derive(Deserialize)]
    struct Batch<T> {
        #[serde(rename = "Entries", default = "Vec::new")]
        entries: Vec<Entry<T>>,
    }
    let Batch { entries } = read::<Batch<T>>(body)?;
    if entries.is_empty() {
        let message = "There should be at least one entry in the request.";
        return Err(Refusal::new("EmptyBatchRequest", message));
    }
    if entries.len() > MAX_ENTRIES {
        let message = format!(
            "Maximum number of entries per request are {MAX_ENTRIES}. You have sent {}.",
            entries.len()
        );
        return Err(Refusal::new("TooManyEntriesInBatchRequest", message));
    }
    let mut ids = BTreeSet::new();
    for entry in &entries {
        let id = entry.id.as_deref().ok_or_else(|| Refusal::missing("Id"))?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if id.is_empty() || id.len() > 80 || !id.bytes().all(is_allowed) {
            let message = "A batch entry id can only contain alphanumeric characters, hyphens and \
                           underscores. It can be at most 80 letters long.";
            return Err(Refusal::new("InvalidBatchEntryId", message));
        }
        if !ids.insert(id) {
            let message = format!("Id {id} repeated.");
            return Err(Refusal::new("BatchEntryIdsNotDistinct", message));
        }
    }
    Ok(entries)
}

/// Executes each entry of a batch. A refused entry does not stop the others.
fn one_by_one<T>(
    entries: Vec<Entry<T>>,
    each: impl Fn(&T) -> Result<Map<String, Value>, Refusal>,
) -> Value {
    let (mut done, mut failed) = (vec![], vec![]);
    for Entry { id, call } in entries {
        match each(&call) {
            Ok(mut answer) => {
                answer.insert("Id".to_owned(), id.into());
                done.push(Value::Object(answer));
            }
            Err(Refusal { code, message }) => failed.push(json!({
                "Id": id,
                "SenderFault": code != INTERNAL,
                "Code": query_code(&format!("{NAMESPACE}{code}")),
                "Message": message,
            })),
        }
    }
    json!({ "Successful": done, "Failed": failed })
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Refusal> {
    serde_json::from_str(body)
        .map_err(|error| Refusal::new("SerializationException", error.to_string()))
}

fn in_range(
    value: Option<i64>,
    range: RangeInclusive<i64>,
    parameter: &str,
) -> Result<Option<i64>, Refusal> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (least, most) = range.into_inner();
            let reason = format!("Must be between {least} and {most}, if provided.");
            Err(Refusal::value(value, parameter, &reason))
        }
        value => Ok(value),
    }
}

fn too_long(max_bytes: usize) -> Refusal {
    let message = format!(
        "One or more parameters are invalid. Reason: Message must be shorter than {max_bytes} bytes."
    );
    Refusal::new(INVALID, message)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// True if a message may contain the character.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn is_xml(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}
