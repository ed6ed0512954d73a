//! CloudEvents 1.0 envelopes, as the relay publishes them and consumers read them.
//!
//! See the [JSON event
//! format](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    commit::RecordedEvent, event::StoredEvent, metadata::Metadata, stream::StreamId,
    timestamp::Timestamp,
};

/// An event in the JSON format of CloudEvents 1.0, with extension attributes in lower case.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent {
    /// The version of the CloudEvents specification: always `1.0`.
    #[schemars(extend("enum" = ["1.0"]))]
    pub specversion: String,
    /// The stream and the version, such as `order-<uuid>@3`. It is unique within the source.
    pub id: String,
    /// The system that published the event.
    pub source: String,
    /// The type of the event, such as `OrderPlaced`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The stream of the event, such as `order-<uuid>`.
    #[schemars(with = "String")]
    pub subject: StreamId,
    /// The time of the commit.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// The media type of `data`: always `application/json`.
    #[schemars(extend("enum" = ["application/json"]))]
    pub datacontenttype: String,
    /// The type and the schema version of `data`, such as `OrderPlaced/1`.
    pub dataschema: String,
    /// The version of the stream after this event, from 1. CloudEvents limits integers to 2^31-1.
    #[schemars(range(min = 1))]
    pub streamversion: u64,
    /// The correlation ID of the request that led to the event.
    pub correlationid: String,
    /// The ID of the event or the request that caused the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub causationid: Option<String>,
    /// The W3C trace context of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub traceparent: Option<String>,
    /// True if the commit was restored from a backup after its first publication. A consumer with
    /// effects of its own, such as an email, skips the event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// The data of the event. It is absent where `dataref` is present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub data: Option<Box<RawValue>>,
    /// The stream and the version of an event that is too large for the bus: `order-<uuid>/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub dataref: Option<String>,
}

/// An envelope is inconsistent.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
#[error("the event {id} is malformed: {reason}")]
pub struct Malformed {
    id: String,
    reason: &'static str,
}

impl CloudEvent {
    const SPECVERSION: &str = "1.0";

    /// Creates the envelope of a recorded event.
    pub fn new(source: &str, recorded: &RecordedEvent) -> Self {
        let metadata = recorded.metadata.clone();
        Self {
            specversion: Self::SPECVERSION.to_owned(),
            id: recorded.id(),
            source: source.to_owned(),
            kind: recorded.event.name.clone(),
            subject: recorded.stream.clone(),
            time: recorded.at,
            datacontenttype: "application/json".to_owned(),
            dataschema: format!("{}/{}", recorded.event.name, recorded.event.schema),
            streamversion: recorded.version,
            correlationid: metadata.correlation,
            causationid: metadata.causation,
            traceparent: metadata.traceparent,
            restored: false,
            data: Some(recorded.event.data.clone()),
            dataref: None,
        }
    }

    /// Replaces the data with a reference to the stored event.
    #[must_use]
    pub fn by_reference(mut self) -> Self {
        self.dataref = Some(format!("{}/{}", self.subject, self.streamversion));
        self.data = None;
        self
    }

    /// Returns the recorded event, or `None` if the envelope has a reference only.
    ///
    /// # Errors
    /// Returns an error if `specversion` is not `1.0`, `dataschema` names no schema version,
    /// `streamversion` is 0, or the envelope has neither data nor a reference.
    pub fn recorded(&self) -> Result<Option<RecordedEvent>, Malformed> {
        let malformed = |reason| Malformed {
            id: self.id.chars().take(128).collect(),
            reason,
        };
        if self.specversion != Self::SPECVERSION {
            return Err(malformed("this release reads only specversion 1.0"));
        }
        let schema = self
            .dataschema
            .rsplit_once('/')
            .and_then(|(_, schema)| schema.parse().ok())
            .ok_or_else(|| malformed("dataschema does not end in /<schema version>"))?;
        if self.streamversion == 0 {
            return Err(malformed("streamversion counts from 1"));
        }
        let Some(data) = &self.data else {
            return match self.dataref {
                Some(_) => Ok(None),
                None => Err(malformed("it has neither data nor dataref")),
            };
        };
        Ok(Some(RecordedEvent {
            stream: self.subject.clone(),
            version: self.streamversion,
            at: self.time,
            metadata: Metadata {
                correlation: self.correlationid.clone(),
                causation: self.causationid.clone(),
                actor: None,
                traceparent: self.traceparent.clone(),
            },
            event: StoredEvent {
                name: self.kind.clone(),
                schema,
                data: data.clone(),
            },
        }))
    }
}
