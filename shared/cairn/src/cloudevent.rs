//! CloudEvents 1.0 envelopes: what the bus carries, and what consumers read back.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    commit::{RecordedEvent, StoredEvent},
    stream::StreamId,
    timestamp::Timestamp,
};

/// One event in its CloudEvents JSON form, with our extensions in lower case as the
/// specification asks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent {
    /// Always `1.0`.
    #[schemars(extend("enum" = ["1.0"]))]
    pub specversion: String,
    /// `order-<uuid>@3`: the stream and the version. Unique within the source.
    pub id: String,
    /// The system that published it.
    pub source: String,
    /// The stored type name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The stream.
    #[schemars(with = "String")]
    pub subject: StreamId,
    /// When it was committed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// Always `application/json`.
    #[schemars(extend("enum" = ["application/json"]))]
    pub datacontenttype: String,
    /// `OrderPlaced/1`: the type and the schema version of `data`.
    pub dataschema: String,
    /// The event's place in its stream, from 1. An integer, which the specification bounds at 2^31-1.
    #[schemars(range(min = 1))]
    pub streamversion: u64,
    /// The request that this follows from.
    pub correlationid: String,
    /// The event or request that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub causationid: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub traceparent: Option<String>,
    /// The event itself, unless `dataref` stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub data: Option<Box<RawValue>>,
    /// Where the event is, when it is too large for the bus: its stream and version in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub dataref: Option<String>,
}

/// An envelope that does not hold together.
#[derive(Debug, thiserror::Error)]
#[error("the event {id} is malformed: {reason}")]
pub struct Malformed {
    id: String,
    reason: &'static str,
}

impl CloudEvent {
    /// The envelope of a recorded event.
    pub fn new(source: &str, recorded: &RecordedEvent) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id: recorded.id(),
            source: source.to_owned(),
            kind: recorded.event.name.clone(),
            subject: recorded.stream.clone(),
            time: recorded.at,
            datacontenttype: "application/json".to_owned(),
            dataschema: format!("{}/{}", recorded.event.name, recorded.event.schema),
            streamversion: recorded.version,
            correlationid: recorded.correlation.clone(),
            causationid: recorded.causation.clone(),
            traceparent: recorded.traceparent.clone(),
            data: Some(recorded.event.data.clone()),
            dataref: None,
        }
    }

    /// The same envelope with a reference in place of the event.
    #[must_use]
    pub fn by_reference(mut self) -> Self {
        self.dataref = Some(format!("{}/{}", self.subject, self.streamversion));
        self.data = None;
        self
    }

    /// The recorded event, or `None` where the envelope only refers to it.
    ///
    /// # Errors
    /// When `dataschema` does not name a schema version, or the version is not positive.
    pub fn recorded(&self) -> Result<Option<RecordedEvent>, Malformed> {
        let malformed = |reason| Malformed {
            id: self.id.chars().take(128).collect(),
            reason,
        };
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
            correlation: self.correlationid.clone(),
            causation: self.causationid.clone(),
            traceparent: self.traceparent.clone(),
            event: StoredEvent {
                name: self.kind.clone(),
                schema,
                data: data.clone(),
            },
        }))
    }
}
