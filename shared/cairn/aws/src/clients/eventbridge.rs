//! The relay's publisher for Amazon EventBridge.
//!
//! A successful call can contain failed entries. Each entry has [its own
//! result](https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html), and the
//! publisher reports each.
//!
//! The publisher passes the trace context of each event on, so the trace continues in [the targets
//! of the event](https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-related-service-xray.html).

use aws_sdk_eventbridge::{
    Client,
    config::Builder,
    error::ProvideErrorMetadata,
    types::{PutEventsRequestEntry, PutEventsResultEntry},
};

use crate::{
    context::{AppContext, ConfigError, client_config},
    trace,
};
use cairn::relay::{Entry, EntryResult, Publisher};

/// The error codes of an entry whose content is invalid. The other codes concern the service, or a
/// permission that many entries need.
/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsResultEntry.html>
const INVALID_ENTRY: [&str; 2] = ["InvalidArgument", "MalformedDetail"];

/// The error code of a call in which at least one entry is invalid.
/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/CommonErrors.html>
const INVALID_CALL: &str = "ValidationException";

/// A bus, and the source of the events.
#[derive(Clone, Debug)]
pub struct EventBridge {
    client: Client,
    bus: String,
    source: String,
}

impl AppContext {
    /// Returns the event bus of `EVENT_BUS`, with `EVENT_SOURCE` as the source of its events.
    pub fn bus(&self) -> Result<EventBridge, ConfigError> {
        let config = client_config!(Builder, &self.aws);
        Ok(EventBridge::new(
            Client::from_conf(config),
            self.variable("EVENT_BUS")?,
            self.variable("EVENT_SOURCE")?,
        ))
    }
}

impl EventBridge {
    /// Creates a publisher to the bus with this name or ARN.
    pub fn new(client: Client, bus: String, source: String) -> Self {
        Self {
            client,
            bus,
            source,
        }
    }

    /// Returns the `source` of the events.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// EventBridge rejected a whole call because of an entry in it.
struct InvalidCall(String);

impl EventBridge {
    async fn put(&self, entries: &[&Entry]) -> Result<Vec<EntryResult>, InvalidCall> {
        let request = entries.iter().map(|entry| {
            PutEventsRequestEntry::builder()
                .event_bus_name(&self.bus)
                .source(&self.source)
                .detail_type(&entry.kind)
                .resources(&entry.stream)
                .detail(&entry.detail)
                .set_trace_header(entry.traceparent.as_deref().and_then(trace::to_header))
                .build()
        });
        let sent = self
            .client
            .put_events()
            .set_entries(Some(request.collect()))
            .send()
            .await;
        match sent {
            // Results have the order of the entries.
            Ok(answer) => {
                if answer.failed_entry_count() > 0 {
                    tracing::warn!(
                        failed = answer.failed_entry_count(),
                        "PutEvents rejected entries"
                    );
                }
                Ok(answer.entries().iter().map(result).collect())
            }
            Err(error) => {
                let error = error.into_service_error();
                tracing::warn!(%error, "PutEvents failed");
                match error.code() {
                    Some(INVALID_CALL) => Err(InvalidCall(reason(INVALID_CALL, error.message()))),
                    _ => Ok(vec![]),
                }
            }
        }
    }
}

fn result(entry: &PutEventsResultEntry) -> EntryResult {
    match entry.error_code() {
        None => EntryResult::Accepted,
        Some(code) if INVALID_ENTRY.contains(&code) => {
            EntryResult::Rejected(reason(code, entry.error_message()))
        }
        Some(_) => EntryResult::Failed,
    }
}

fn reason(code: &str, message: Option<&str>) -> String {
    let message = message.unwrap_or_default();
    format!("EventBridge rejected an event of the record: {code}: {message}")
}

impl Publisher for EventBridge {
    /// If EventBridge rejects the whole call as invalid, sends each entry alone to find the invalid
    /// one.
    async fn publish(&self, entries: &[&Entry]) -> Vec<EntryResult> {
        let InvalidCall(reason) = match self.put(entries).await {
            Ok(results) => return results,
            Err(invalid) => invalid,
        };
        if entries.len() == 1 {
            return vec![EntryResult::Rejected(reason)];
        }
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            results.push(match self.put(&[*entry]).await {
                Ok(results) => results.into_iter().next().unwrap_or(EntryResult::Failed),
                Err(InvalidCall(reason)) => EntryResult::Rejected(reason),
            });
        }
        results
    }
}
