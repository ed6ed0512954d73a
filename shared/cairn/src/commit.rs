//! A commit: the events of one command on one stream, stored as one item.
//!
//! All events of a command are in one item, so they are written together, reach the table's stream together, and cost one
//! write. A commit is never changed. An event's version follows from its commit's and from its place in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    event::{CodecError, Event},
    snapshot::Snapshot,
    stream::StreamId,
    timestamp::Timestamp,
};

/// One event as it is stored: its JSON is carried as text, so the relay passes it on unread.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// The stored type name, `OrderPlaced`.
    pub name: String,
    /// The schema version of `data`, from 1.
    pub schema: u32,
    /// The JSON of the event.
    pub data: Box<RawValue>,
}

impl PartialEq for StoredEvent {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.schema, self.data.get()) == (&other.name, other.schema, other.data.get())
    }
}

/// What one command appended to one stream. Its serialized form is the stored item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The stream.
    pub stream: StreamId,
    /// The version of the first event, from 1. The others follow by position.
    pub version: u64,
    /// The id of the command that made it.
    #[serde(rename = "commit")]
    pub id: String,
    /// What the command asked for, as a digest: the same id with another digest is a mistake
    /// of the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// When; never before an earlier commit of the stream.
    pub at: Timestamp,
    /// The request that everything here follows from.
    pub correlation: String,
    /// The event or request that caused it directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<String>,
    /// Who asked for it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Whether another commit of the same append records the command: a saga's, say. What was
    /// done is found there then, and this stream need not remember it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enlisted: bool,
    /// The events, in order; at least one.
    pub events: Vec<StoredEvent>,
    /// The state after them, in the commit that completes an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

impl Commit {
    /// The version of the last event.
    pub fn last_version(&self) -> u64 {
        self.version + (self.events.len() as u64).saturating_sub(1)
    }

    /// Its events up to a version, without the state after all of them.
    #[must_use]
    pub fn until(mut self, version: u64) -> Self {
        let wanted = (version + 1).saturating_sub(self.version);
        self.events
            .truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.snapshot = None;
        self
    }

    /// The events with their versions and what the commit knows about them.
    pub fn recorded(&self) -> impl Iterator<Item = RecordedEvent> + '_ {
        (self.version..)
            .zip(&self.events)
            .map(|(version, event)| RecordedEvent {
                stream: self.stream.clone(),
                version,
                at: self.at,
                correlation: self.correlation.clone(),
                causation: self.causation.clone(),
                traceparent: self.traceparent.clone(),
                event: event.clone(),
            })
    }
}

/// One event of a stream, as a consumer sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    /// The stream.
    pub stream: StreamId,
    /// Its place in the stream, from 1, without gaps.
    pub version: u64,
    /// When it was committed.
    pub at: Timestamp,
    /// The request that everything here follows from.
    pub correlation: String,
    /// The event or request that caused it directly.
    pub causation: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The event.
    pub event: StoredEvent,
}

impl RecordedEvent {
    /// The event's id on the bus, `order-<uuid>@3`. Unique, and the same at every delivery.
    pub fn id(&self) -> String {
        format!("{}@{}", self.stream, self.version)
    }

    /// The event in its current form.
    ///
    /// # Errors
    /// As [`Event::decode`].
    pub fn decode<E: Event>(&self) -> Result<E, CodecError> {
        E::decode(&self.event)
    }
}

/// What a commit says of the command that made it, besides its events.
#[derive(Clone, Debug)]
pub struct Context {
    /// The command's id: the same for every retry of it.
    pub id: String,
    /// See [`Commit::fingerprint`].
    pub fingerprint: Option<String>,
    /// The digest that an earlier release stored for the same request: a retry of it meets that
    /// release's commit. Never stored.
    pub former_fingerprint: Option<String>,
    /// See [`Commit::correlation`].
    pub correlation: String,
    /// See [`Commit::causation`].
    pub causation: Option<String>,
    /// See [`Commit::actor`].
    pub actor: Option<String>,
    /// See [`Commit::traceparent`].
    pub traceparent: Option<String>,
    /// The present, as the edge read it.
    pub now: Timestamp,
    /// How long the command may go on trying, from when it is handed over.
    pub time_budget: Duration,
}

impl Context {
    /// The context of a command that nothing else is known of: what follows from it is found by its own id.
    pub fn new(id: impl Into<String>, now: Timestamp, time_budget: Duration) -> Self {
        let id = id.into();
        Self {
            correlation: id.clone(),
            id,
            fingerprint: None,
            former_fingerprint: None,
            causation: None,
            actor: None,
            traceparent: None,
            now,
            time_budget,
        }
    }

    /// Recognises a commit that an earlier release made for the same request, by the digest that it
    /// took of this.
    #[must_use]
    pub fn formerly(mut self, digested: &impl Serialize) -> Self {
        self.former_fingerprint = fingerprint(digested).ok();
        self
    }
}

/// A digest of what a client asks for: 128 bits in hexadecimal.
///
/// It is stored with the command, so it is taken of what the client sent, parsed: white space and
/// the order of members do not count. A type that the code owns would change the digest with itself.
///
/// # Errors
/// When it cannot be serialized.
pub fn fingerprint(asked: &(impl Serialize + ?Sized)) -> Result<String, serde_json::Error> {
    let digest = digest(&serde_json::to_vec(asked)?);
    Ok(format!("{digest:032x}"))
}

/// The first 128 bits of SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    let (half, _) = digest.as_slice().split_at(16);
    half.iter()
        .fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// Serializes the JSON of an event as text.
impl Serialize for StoredEvent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StoredEventItem {
            name: self.name.as_str().into(),
            schema: self.schema,
            data: self.data.get().into(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredEvent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let item = StoredEventItem::deserialize(deserializer)?;
        Ok(Self {
            name: item.name.into_owned(),
            schema: item.schema,
            data: RawValue::from_string(item.data.into_owned())
                .map_err(serde::de::Error::custom)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredEventItem<'a> {
    #[serde(rename = "type")]
    name: std::borrow::Cow<'a, str>,
    schema: u32,
    data: std::borrow::Cow<'a, str>,
}
