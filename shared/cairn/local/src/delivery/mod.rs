//! Delivery of events and stream records to functions, with the failure behaviour of AWS.

mod messages;
pub(crate) mod queue_poller;
pub(crate) mod retention;
pub(crate) mod schedule;
pub(crate) mod stream_poller;
pub(crate) mod worker;

use serde_json::Value;

/// Returns the identifiers of the items that a function reports as failed, each `None` if it is
/// missing. An answer that is no report returns `None`, and its whole batch failed.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
fn failed_items(answer: &[u8]) -> Option<Vec<Option<String>>> {
    if answer.is_empty() {
        return Some(vec![]);
    }
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let failures = match answer.get("batchItemFailures") {
        None | Some(Value::Null) => return Some(vec![]),
        Some(failures) => failures.as_array()?,
    };
    let id = |failure: &Value| Some(failure.get("itemIdentifier")?.as_str()?.to_owned());
    Some(failures.iter().map(id).collect())
}
