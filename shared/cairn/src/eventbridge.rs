//! The relay's publisher on Amazon EventBridge.
//!
//! A call that succeeds may have failed entries: each entry has [an answer of its
//! own](https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html), and each is reported.

use aws_sdk_eventbridge::{Client, types::PutEventsRequestEntry};

use crate::relay::{Entry, Publisher};

/// A bus, written to as one source.
#[derive(Clone, Debug)]
pub struct EventBridge {
    client: Client,
    bus: String,
    source: String,
}

impl EventBridge {
    /// The bus of this name or ARN.
    pub fn new(client: Client, bus: String, source: String) -> Self {
        Self {
            client,
            bus,
            source,
        }
    }

    /// What the events' `source` is.
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
            // Answers come in the order of the entries; a refused one has no id but a code.
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
