//! The payload of a consumer: an event of an EventBridge rule, or the messages of a queue with such
//! events.
//!
//! The function [reports the messages that it did not
//! handle](https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html). They
//! become visible again; the others are deleted.

use serde::Deserialize;
use serde_json::json;

use super::FunctionError;
use cairn::cloudevent::CloudEvent;

/// The origin of the events of an invocation.
#[derive(Debug)]
pub(super) enum Source {
    /// A rule, which delivers one event.
    Rule,
    /// A queue. A message with this id contains each of the events.
    Queue(Vec<String>),
}

/// An event that was not handled.
pub(super) struct Failure {
    /// The index of the event in its invocation.
    pub(super) index: usize,
    /// The id of the event, if it was read.
    pub(super) event: Option<String>,
    pub(super) error: FunctionError,
}

#[derive(Deserialize)]
struct Invoked {
    #[serde(rename = "Records")]
    messages: Option<Vec<Message>>,
    detail: Option<CloudEvent>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

impl Source {
    /// Returns the events of a payload in their order. One that cannot be read is an error.
    pub(super) fn read(payload: &[u8]) -> (Self, Vec<Result<CloudEvent, FunctionError>>) {
        match serde_json::from_slice(payload) {
            Ok(Invoked {
                messages: Some(messages),
                ..
            }) => {
                let events = messages
                    .iter()
                    .map(|message| event(serde_json::from_str(&message.body)));
                let events = events.collect();
                let ids = messages.into_iter().map(|message| message.id);
                (Self::Queue(ids.collect()), events)
            }
            invoked => (Self::Rule, vec![event(invoked)]),
        }
    }

    /// Returns the id of the message with an event. It is the same in each delivery.
    pub(super) fn message(&self, index: usize) -> Option<&str> {
        match self {
            Self::Rule => None,
            Self::Queue(messages) => messages.get(index).map(String::as_str),
        }
    }

    /// Returns the answer to the invocation.
    ///
    /// # Errors
    /// Returns the failure of the event of a rule.
    pub(super) fn answer(&self, failures: Vec<Failure>) -> Result<Vec<u8>, FunctionError> {
        let mut failed = vec![];
        for Failure {
            index,
            event,
            error,
        } in failures
        {
            let Some(message) = self.message(index) else {
                return Err(error);
            };
            tracing::warn!(message, failed = event, %error, "message failed");
            failed.push(json!({ "itemIdentifier": message }));
        }
        match self {
            Self::Rule => Ok(b"null".to_vec()),
            Self::Queue(_) => Ok(serde_json::to_vec(&json!({ "batchItemFailures": failed }))?),
        }
    }
}

fn event(invoked: serde_json::Result<Invoked>) -> Result<CloudEvent, FunctionError> {
    let problem = match invoked {
        Ok(Invoked {
            detail: Some(event),
            ..
        }) => return Ok(event),
        Ok(_) => "it has no detail".to_owned(),
        Err(error) => error.to_string(),
    };
    let text = format!("the delivery is not a known event: {problem}");
    Err(FunctionError::new(text))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn delivery(version: u64) -> Value {
        let detail = json!({
            "specversion": "1.0", "id": format!("order-7@{version}"), "source": "cairn",
            "type": "OrderPlaced", "subject": "order-7", "time": "2026-11-30T12:00:00Z",
            "datacontenttype": "application/json", "dataschema": "OrderPlaced/1",
            "streamversion": version, "correlationid": "c", "data": { "n": version },
        });
        json!({ "version": "0", "detail-type": "OrderPlaced", "source": "cairn", "detail": detail })
    }

    fn message(id: &str, body: &str) -> Value {
        json!({ "messageId": id, "body": body, "eventSource": "aws:sqs", "attributes": {} })
    }

    type Events = Vec<Result<CloudEvent, FunctionError>>;

    fn read(payload: &Value) -> (Source, Events) {
        Source::read(payload.to_string().as_bytes())
    }

    fn answer((source, events): (Source, Events)) -> Result<Value, String> {
        let failures = events.into_iter().enumerate().filter_map(|(index, event)| {
            Some(Failure {
                index,
                event: None,
                error: event.err()?,
            })
        });
        let answer = source.answer(failures.collect());
        let answer = answer.map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    #[test]
    fn a_message_that_is_no_event_fails_alone() {
        let messages = [
            message("m1", &delivery(1).to_string()),
            message("m2", "no JSON"),
            message("m3", "{}"),
            message("m4", &delivery(2).to_string()),
        ];
        let read = read(&json!({ "Records": messages }));
        let versions = read.1.iter().flatten().map(|event| event.streamversion);
        assert_eq!(versions.collect::<Vec<_>>(), [1, 2]);
        let failed = json!([{ "itemIdentifier": "m2" }, { "itemIdentifier": "m3" }]);
        assert_eq!(answer(read), Ok(json!({ "batchItemFailures": failed })));
    }

    #[test]
    fn a_batch_without_failures_reports_none_and_an_event_has_no_report() {
        let batch = json!({ "Records": [message("m1", &delivery(1).to_string())] });
        let none = json!({ "batchItemFailures": [] });
        assert_eq!(answer(read(&batch)), Ok(none));
        assert_eq!(answer(read(&delivery(1))), Ok(Value::Null));
    }

    #[test]
    fn the_failure_of_an_event_that_a_rule_delivers_is_that_of_the_invocation() {
        let error = answer(read(&json!({ "detail": 7 }))).unwrap_err();
        let expected = "the delivery is not a known event: ";
        assert!(error.starts_with(expected), "{error}");
    }
}
