//! Dead letters: failed invocations, with the data for a redrive.
//!
//! Four sources write dead letters, each in its own form:
//! - Lambda, for an asynchronous invocation that failed permanently
//!   (<https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>);
//! - EventBridge, for an event that a rule could not deliver
//!   (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html>);
//! - SQS, for a message of another queue that was received too often. The message itself moves, and
//!   SQS returns the ARN of its queue as the attribute [`SOURCE_QUEUE`]
//!   (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html>);
//! - a stream consumer, for a record that it cannot handle ([`from_record`]).
//!
//! A dead letter contains the failed invocation, so a redrive invokes the function again, or sends
//! the message to its queue. The time of the redrive does not matter, because every function
//! handles duplicate deliveries.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::stream::StreamId;

/// The maximum number of bytes of a record that a dead letter contains. Of a larger record, it
/// contains the key only. The rest of a message of 256 KB is for the metadata.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const MAX_RECORD_BYTES: usize = 200 * 1024;

/// The system attribute of a message that SQS moved from another queue: the ARN of that queue.
pub const SOURCE_QUEUE: &str = "DeadLetterQueueSourceArn";

/// A dead letter that can be redriven.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The ARN of the function that failed, or of the queue of its messages.
    pub function: String,
    /// The payload of the invocation.
    pub event: Value,
    /// The error of the last attempt.
    pub error: String,
    /// The number of attempts; 0 for a message of a queue, whose policy sets the number.
    pub attempts: u64,
    /// The stream and version, if the payload is an event of this system.
    pub event_ref: Option<(StreamId, u64)>,
    /// The ARNs of other functions that could not read the same record.
    pub other_readers: Vec<String>,
}

/// A message is not a dead letter that can be redriven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} missing")]
pub struct NotADeadLetter(&'static str);

impl DeadLetter {
    /// Parses the body and the attributes of a message.
    ///
    /// # Errors
    /// Returns an error if the message names no function or contains no payload, such as Lambda's
    /// pointer into a DynamoDB Stream.
    pub fn parse(
        body: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<Self, NotADeadLetter> {
        let mut body: Value =
            serde_json::from_str(body).map_err(|_| NotADeadLetter("JSON body"))?;
        if let Some(function) = attributes.get("TARGET_ARN") {
            let attribute = |name: &str| attributes.get(name).cloned().unwrap_or_default();
            return Ok(Self {
                function: function.clone(),
                event_ref: event_ref(&body),
                error: format!(
                    "{}: {}",
                    attribute("ERROR_CODE"),
                    attribute("ERROR_MESSAGE")
                ),
                attempts: attribute("RETRY_ATTEMPTS").parse().unwrap_or(0),
                event: body,
                other_readers: vec![],
            });
        }
        if let Some(queue) = attributes.get(SOURCE_QUEUE) {
            return Ok(Self {
                function: queue.clone(),
                event_ref: event_ref(&body),
                error: "received too often".to_owned(),
                attempts: 0,
                event: body,
                other_readers: vec![],
            });
        }
        let event = body.get_mut("requestPayload").map(Value::take);
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
        let function = text("/requestContext/functionArn");
        let function = function.ok_or(NotADeadLetter("target function"))?;
        let event = event.ok_or(NotADeadLetter("event"))?;
        let error = text("/responsePayload/errorMessage").or(text("/requestContext/condition"));
        let attempts = body.pointer("/requestContext/approximateInvokeCount");
        Ok(Self {
            function: function.to_owned(),
            event_ref: event_ref(&event),
            error: error.unwrap_or_default().to_owned(),
            attempts: attempts.and_then(Value::as_u64).unwrap_or(1),
            other_readers: other_readers(&body),
            event,
        })
    }

    /// Returns true if the dead letter is for a function with this name, logical id or ARN. The
    /// logical id suffices because `CloudFormation` names a function `<stack>-<id>-<random>`. The
    /// logical id of the queue of `ProjectSalesFunction` is `ProjectSalesQueue`.
    pub fn is_for(&self, function: &str) -> bool {
        is_named(&self.function, function)
    }

    /// Returns the name of the queue to which a redrive sends the event; `None` if it invokes the
    /// function.
    pub fn queue(&self) -> Option<&str> {
        queue_of(&self.function)
    }
}

fn queue_of(arn: &str) -> Option<&str> {
    arn.contains(":sqs:").then(|| arn.rsplit(':').next())?
}

fn is_named(arn: &str, function: &str) -> bool {
    if let Some(queue) = queue_of(arn) {
        let stem = function.strip_suffix("Function");
        let is_own = |part: &str| stem.is_some() && part.strip_suffix("Queue") == stem;
        let is_part = |part: &str| part == function || is_own(part);
        return arn == function || queue == function || queue.split('-').any(is_part);
    }
    let name = arn.split(":function:").last().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    arn == function || name.split('-').any(|part| part == function) || name == function
}

/// The function and record that a message of the dead-letter queue is about, as far as it names
/// them. Messages that cannot be redriven have a subject too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// The ARN of the function, or of the queue of its messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The stream of the event or record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The version in the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The sequence number in the DynamoDB Stream; of a pointer to several records, that of the
    /// first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence_number: Option<String>,
}

impl Subject {
    /// Returns the subject of a message with this body and these attributes.
    pub fn from_message(body: &str, attributes: &BTreeMap<String, String>) -> Self {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |pointers: &[&str]| {
            let mut texts = pointers
                .iter()
                .map(|pointer| body.pointer(pointer)?.as_str());
            texts.find_map(|text| text.map(str::to_owned))
        };
        let number = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64);
        let version = text(&[
            "/keys/version/N",
            "/requestPayload/Records/0/dynamodb/Keys/version/N",
        ]);
        let function = attributes.get("TARGET_ARN");
        let function = function.or_else(|| attributes.get(SOURCE_QUEUE));
        Self {
            function: function
                .cloned()
                .or_else(|| text(&["/requestContext/functionArn"])),
            stream: text(&[
                "/keys/stream/S",
                "/requestPayload/Records/0/dynamodb/Keys/stream/S",
                "/requestPayload/detail/subject",
                "/detail/subject",
            ]),
            version: version
                .and_then(|version| version.parse().ok())
                .or_else(|| number("/requestPayload/detail/streamversion"))
                .or_else(|| number("/detail/streamversion")),
            sequence_number: text(&[
                "/sequenceNumber",
                "/requestPayload/Records/0/dynamodb/SequenceNumber",
                "/DDBStreamBatchInfo/startSequenceNumber",
            ]),
        }
    }

    /// Returns true if the subject names a function with this name, logical id or ARN.
    pub fn is_for(&self, function: &str) -> bool {
        let own = self.function.as_ref();
        own.is_some_and(|own| is_named(own, function))
    }
}

/// `order-1@3 (sequence number 000111)`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stream.as_deref().unwrap_or("of an unknown stream"))?;
        if let Some(version) = self.version {
            write!(f, "@{version}")?;
        }
        match &self.sequence_number {
            Some(number) => write!(f, " (sequence number {number})"),
            None => Ok(()),
        }
    }
}

/// Adds the other readers of an unreadable record to the dead letter of one of them, and returns
/// the new body.
pub fn for_readers(body: &str, readers: &BTreeSet<String>) -> String {
    let mut body: Value = serde_json::from_str(body).unwrap_or_default();
    let own = body.pointer("/requestContext/functionArn").cloned();
    let others = readers.iter().map(|reader| Value::from(reader.as_str()));
    let others: Vec<_> = others
        .filter(|reader| Some(reader) != own.as_ref())
        .collect();
    if let Value::Object(letter) = &mut body {
        letter.insert(OTHER_READERS.to_owned(), others.into());
    }
    body.to_string()
}

const OTHER_READERS: &str = "otherReaders";

fn other_readers(body: &Value) -> Vec<String> {
    let readers = body.get(OTHER_READERS).and_then(Value::as_array);
    let readers = readers.into_iter().flatten().filter_map(Value::as_str);
    readers.map(str::to_owned).collect()
}

/// The stream and version of an event as a rule or a DynamoDB Stream delivers it.
fn event_ref(event: &Value) -> Option<(StreamId, u64)> {
    if let Some(detail) = event.get("detail") {
        let stream = detail.get("subject")?.as_str()?.parse().ok()?;
        return Some((stream, detail.get("streamversion")?.as_u64()?));
    }
    let keys = event.pointer("/Records/0/dynamodb/Keys")?;
    let stream = keys.pointer("/stream/S")?.as_str()?.parse().ok()?;
    Some((stream, keys.pointer("/version/N")?.as_str()?.parse().ok()?))
}

/// The reason why a stream consumer does not handle a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Condition {
    /// The consumer cannot read the record.
    Unreadable,
    /// The bus or the table to which the consumer writes rejects the content of the record.
    Rejected,
}

/// Creates the dead letter of a stream record that a function cannot handle.
///
/// It has the form of Lambda's dead letters, so a redrive handles both. A record that is too large
/// for a message is left out; its key is always present.
pub fn from_record(function: &str, record: &Value, condition: Condition, error: &str) -> Value {
    let keys = record.pointer("/dynamodb/Keys");
    let mut letter = json!({
        "version": "1.0",
        "requestContext": {
            "functionArn": function,
            "condition": condition,
            "approximateInvokeCount": 1,
        },
        "keys": keys,
        "sequenceNumber": record.pointer("/dynamodb/SequenceNumber"),
        "responsePayload": { "errorMessage": error },
    });
    if record.to_string().len() <= MAX_RECORD_BYTES
        && let Value::Object(letter) = &mut letter
    {
        letter.insert("requestPayload".to_owned(), json!({ "Records": [record] }));
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:lambda:us-east-1:1:function:shop-ProjectOrdersFunction-8QZ";

    fn delivery() -> Value {
        json!({ "detail": { "subject": "order-1", "streamversion": 3 } })
    }

    #[test]
    fn a_dead_letter_of_a_function_says_everything() {
        let body = json!({
            "requestContext": { "functionArn": ARN, "condition": "RetriesExhausted", "approximateInvokeCount": 3 },
            "requestPayload": delivery(),
            "responsePayload": { "errorMessage": "no" },
        });
        let letter = DeadLetter::parse(&body.to_string(), &BTreeMap::new()).unwrap();
        assert_eq!(
            letter,
            DeadLetter {
                function: ARN.to_owned(),
                event: delivery(),
                error: "no".to_owned(),
                attempts: 3,
                event_ref: Some(("order-1".parse().unwrap(), 3)),
                other_readers: vec![],
            }
        );
        assert!(letter.is_for("ProjectOrdersFunction") && letter.is_for(ARN));
        assert!(!letter.is_for("ProjectStockFunction") && !letter.is_for("Orders"));
    }

    #[test]
    fn a_dead_letter_of_a_rule_says_everything() {
        let attributes = [
            ("TARGET_ARN", ARN),
            ("ERROR_CODE", "THROTTLING"),
            ("ERROR_MESSAGE", "rate exceeded"),
            ("RETRY_ATTEMPTS", "185"),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let letter = DeadLetter::parse(&delivery().to_string(), &attributes.into()).unwrap();
        assert_eq!(letter.error, "THROTTLING: rate exceeded");
        assert_eq!((letter.attempts, &letter.event), (185, &delivery()));
        assert_eq!(letter.event_ref, Some(("order-1".parse().unwrap(), 3)));
    }

    #[test]
    fn a_message_of_a_queue_is_for_its_function_and_returns_to_the_queue() {
        let arn = "arn:aws:sqs:us-east-1:1:shop-ProjectSalesQueue-8QZ".to_owned();
        let attributes = BTreeMap::from([(SOURCE_QUEUE.to_owned(), arn.clone())]);
        let body = delivery().to_string();
        let letter = DeadLetter::parse(&body, &attributes).unwrap();
        assert_eq!(letter.queue(), Some("shop-ProjectSalesQueue-8QZ"));
        assert_eq!(letter.event_ref, Some(("order-1".parse().unwrap(), 3)));
        for named in ["ProjectSalesFunction", "ProjectSalesQueue", &arn] {
            assert!(letter.is_for(named), "{named}");
            assert!(Subject::from_message(&body, &attributes).is_for(named));
        }
        for other in ["ProjectStockFunction", "Sales"] {
            assert!(!letter.is_for(other), "{other}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_kept_unless_it_is_too_large() {
        let record = |text: &str| {
            let keys = json!({ "stream": { "S": "order-1" }, "version": { "N": "3" } });
            json!({ "dynamodb": { "Keys": keys, "NewImage": { "events": { "S": text } } } })
        };
        let parse = |record| {
            let letter = from_record(ARN, &record, Condition::Unreadable, "no commit");
            DeadLetter::parse(&letter.to_string(), &BTreeMap::new())
        };
        let letter = parse(record("x")).unwrap();
        assert_eq!(letter.event, json!({ "Records": [record("x")] }));
        assert_eq!(letter.event_ref, Some(("order-1".parse().unwrap(), 3)));
        let large = parse(record(&"x".repeat(MAX_RECORD_BYTES)));
        assert_eq!(large, Err(NotADeadLetter("event")));
    }

    #[test]
    fn every_dead_letter_names_its_subject() {
        let subject = |body: &Value| Subject::from_message(&body.to_string(), &BTreeMap::new());
        for (stream, shown) in [("order-x", "order-x@1"), ("no stream id", "no stream id@1")] {
            for size in [1, MAX_RECORD_BYTES] {
                let keys = json!({ "stream": { "S": stream }, "version": { "N": "1" } });
                let image = json!({ "text": { "S": "x".repeat(size) } });
                let change = json!({ "Keys": keys, "NewImage": image, "SequenceNumber": "42" });
                let record = json!({ "dynamodb": change });
                let letter = from_record(ARN, &record, Condition::Rejected, "no commit");
                let subject = subject(&letter);
                assert_eq!(subject.to_string(), format!("{shown} (sequence number 42)"));
                assert!(subject.is_for("ProjectOrdersFunction"));
            }
        }
        let pointer = json!({ "DDBStreamBatchInfo": { "startSequenceNumber": "7" } });
        let shown = "of an unknown stream (sequence number 7)";
        assert_eq!(subject(&pointer).to_string(), shown);
        let event = json!({ "requestPayload": delivery() });
        assert_eq!(subject(&event).to_string(), "order-1@3");
        assert_eq!(subject(&Value::Null), Subject::default());
    }

    #[test]
    fn one_dead_letter_names_every_reader_of_its_record() {
        let record = json!({ "dynamodb": { "Keys": {} } });
        let readers = ["a", "b", "c"].map(str::to_owned).into();
        let letter = from_record("b", &record, Condition::Unreadable, "no commit").to_string();
        let letter = for_readers(&letter, &readers);
        let letter = DeadLetter::parse(&letter, &BTreeMap::new()).unwrap();
        assert_eq!(
            (&*letter.function, letter.other_readers),
            ("b", vec!["a".into(), "c".into()])
        );
    }

    #[test]
    fn a_pointer_into_a_dynamodb_stream_cannot_be_redriven() {
        let pointer = json!({
            "requestContext": { "functionArn": ARN },
            "DDBStreamBatchInfo": { "startSequenceNumber": "1" },
        });
        assert!(DeadLetter::parse(&pointer.to_string(), &BTreeMap::new()).is_err());
    }
}
