//! The relay's publisher for Amazon EventBridge.
//!
//! A successful call can contain failed entries. Each entry has [its own
//! result](https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html), and the
//! publisher reports each.

use aws_sdk_eventbridge::{Client, types::PutEventsRequestEntry};

use crate::relay::{Entry, Publisher};

/// A bus, and the source of the events.
#[derive(Clone, Debug)]
pub struct EventBridge {
    client: Client,
    bus: String,
    source: String,
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

impl Publisher for EventBridge {
    async fn publish(&self, entries: &[&Entry]) -> Vec<bool> {
        let request = entries.iter().map(|entry| {
            PutEventsRequestEntry::builder()
                .event_bus_name(&self.bus)
                .source(&self.source)
                .detail_type(&entry.kind)
                .resources(&entry.stream)
                .detail(&entry.detail)
                .build()
        });
        let sent = self
            .client
            .put_events()
            .set_entries(Some(request.collect()))
            .send()
            .await;
        match sent {
            // Results have the order of the entries; a failed one has an error code.
            Ok(answer) => {
                if answer.failed_entry_count() > 0 {
                    tracing::warn!(
                        failed = answer.failed_entry_count(),
                        "PutEvents rejected entries"
                    );
                }
                let answers = answer.entries().iter();
                answers.map(|entry| entry.error_code().is_none()).collect()
            }
            Err(error) => {
                let error = error.into_service_error();
                tracing::warn!(%error, "PutEvents failed");
                vec![false; entries.len()]
            }
        }
    }
}
