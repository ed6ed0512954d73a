//! Commits: the events of one command on one stream, stored as one item.
//!
//! The events of a command are written together, reach the DynamoDB Stream together, and cost one
//! write. A commit never changes. The version of an event follows from the version of its commit
//! and its position in it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    event::{CodecError, Event, StoredEvent},
    hash::digest,
    metadata::Metadata,
    snapshot::Snapshot,
    stream::StreamId,
    timestamp::Timestamp,
};

/// The key of a commit in the event table.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommitKey {
    /// The stream.
    pub stream: StreamId,
    /// The version of the first event of the commit.
    pub version: u64,
}

impl fmt::Display for CommitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.stream, self.version)
    }
}

/// The format of a stored commit. Format 1 is stored without a number. A release that changes the
/// item stores the number in the attribute `format`, and other releases refuse the commit.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitFormat;

impl<'de> Deserialize<'de> for CommitFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            1 => Ok(Self),
            newer => Err(D::Error::custom(format_args!(
                "stored in format {newer}, and this release reads format 1: deploy the newer release"
            ))),
        }
    }
}

/// The events that one command appended to one stream. The serialized form is the stored item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The format of the stored item. See [`CommitFormat`].
    #[doc(hidden)]
    #[serde(default, skip_serializing)]
    pub format: CommitFormat,
    /// The stream.
    pub stream: StreamId,
    /// The version of the first event, from 1. The others follow by position.
    pub version: u64,
    /// The id of the command.
    #[serde(rename = "commit")]
    pub id: String,
    /// The digest of the client's request. A command with the same id and another digest is
    /// rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The commit time. It is never earlier than the previous commit of the stream.
    pub at: Timestamp,
    /// The metadata, which the stored item has among its own attributes.
    #[serde(flatten)]
    pub metadata: Metadata,
    /// True if another commit of the same append records the command, such as the saga's commit.
    /// The command id is then looked up there, and not in this stream's recent commands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enlisted: bool,
    /// The next commit of the same append, if the append has several; see [`link`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sibling: Option<CommitKey>,
    /// True if a restore copied the commit from another table. Consumers with effects outside the
    /// store skip its events: the effects belong to the past.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// The events in order, at least one.
    pub events: Vec<StoredEvent>,
    /// The state after the events, if this commit completes a snapshot interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

impl Commit {
    /// Creates a commit with the id of its command, which is also the correlation id.
    pub fn new(
        stream: StreamId,
        version: u64,
        id: impl Into<String>,
        at: Timestamp,
        events: Vec<StoredEvent>,
    ) -> Self {
        let id = id.into();
        Self {
            format: CommitFormat,
            stream,
            version,
            metadata: Metadata::new(&id),
            id,
            fingerprint: None,
            at,
            enlisted: false,
            sibling: None,
            restored: false,
            events,
            snapshot: None,
        }
    }

    /// Returns the version of the last event.
    pub fn last_version(&self) -> u64 {
        self.version + (self.events.len() as u64).saturating_sub(1)
    }

    /// Returns the key of the commit.
    pub fn key(&self) -> CommitKey {
        CommitKey {
            stream: self.stream.clone(),
            version: self.version,
        }
    }

    /// Removes the events after a version, and the snapshot.
    #[must_use]
    pub fn until(mut self, version: u64) -> Self {
        let wanted = (version + 1).saturating_sub(self.version);
        self.events
            .truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.snapshot = None;
        self
    }

    /// Returns the events, each with its version and the metadata of the commit.
    pub fn recorded(&self) -> impl Iterator<Item = RecordedEvent> + '_ {
        (self.version..)
            .zip(&self.events)
            .map(|(version, event)| RecordedEvent {
                stream: self.stream.clone(),
                version,
                at: self.at,
                metadata: self.metadata.clone(),
                event: event.clone(),
            })
    }
}

/// An event of a stream, as a consumer receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    /// The stream.
    pub stream: StreamId,
    /// Its version in the stream, from 1 and without gaps.
    pub version: u64,
    /// The commit time.
    pub at: Timestamp,
    /// The metadata of its commit.
    pub metadata: Metadata,
    /// The event.
    pub event: StoredEvent,
}

impl RecordedEvent {
    /// Returns the id of the event on the bus, `order-<uuid>@3`. It is unique, and the same in
    /// every delivery.
    pub fn id(&self) -> String {
        format!("{}@{}", self.stream, self.version)
    }

    /// Returns the metadata of a command that this event causes.
    pub fn consequence(&self) -> Metadata {
        Metadata {
            causation: Some(self.id()),
            actor: None,
            ..self.metadata.clone()
        }
    }

    /// Decodes the event in its current form.
    ///
    /// # Errors
    /// See [`Event::decode`].
    pub fn decode<E: Event>(&self) -> Result<E, CodecError> {
        E::decode(&self.event)
    }
}

/// The context of a command: its id and metadata, which its commit stores, and its time.
#[derive(Clone, Debug)]
pub struct Context {
    /// The id of the command. A retry has the same id.
    pub id: String,
    /// See [`Commit::fingerprint`].
    pub fingerprint: Option<String>,
    /// The digest that an earlier release computed for the same request. A retry after a deployment
    /// can meet a commit of that release. This digest is not stored.
    pub former_fingerprint: Option<String>,
    /// See [`Commit::metadata`].
    pub metadata: Metadata,
    /// The current time, as the caller read its clock.
    pub now: Timestamp,
    /// The time budget for retries after conflicts.
    pub time_budget: Duration,
}

impl Context {
    /// Creates a context with an id only, which is also the correlation id.
    pub fn new(id: impl Into<String>, now: Timestamp, time_budget: Duration) -> Self {
        let id = id.into();
        Self {
            metadata: Metadata::new(&id),
            id,
            fingerprint: None,
            former_fingerprint: None,
            now,
            time_budget,
        }
    }

    /// Adds the digest that an earlier release computed, from the value that it digested.
    #[must_use]
    pub fn formerly(mut self, digested: &impl Serialize) -> Self {
        self.former_fingerprint = fingerprint(digested).ok();
        self
    }
}

/// Links the commits of one append in a ring: each names the next one, and the last one names the
/// first. If some of them are lost later, one of the others names a lost one. A single commit does
/// not change.
pub fn link(commits: &mut [Commit]) {
    if commits.len() < 2 {
        return;
    }
    let keys: Vec<_> = commits.iter().map(Commit::key).collect();
    for (commit, next) in commits.iter_mut().zip(keys.iter().cycle().skip(1)) {
        commit.sibling = Some(next.clone());
    }
}

/// Returns the digest of a client's request: 128 bits in hexadecimal.
///
/// Take the digest of the parsed JSON, so that white space and the order of members have no effect.
/// Do not take it of a Rust type: a change of the type would change the digest.
///
/// # Errors
/// Returns an error if the request cannot be serialized.
pub fn fingerprint(asked: &(impl Serialize + ?Sized)) -> Result<String, serde_json::Error> {
    let digest = digest(&serde_json::to_vec(asked)?);
    Ok(format!("{digest:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(stream: &str) -> Commit {
        let stream = stream.parse().unwrap();
        Commit::new(stream, 7, "command", Timestamp::from_millis(7), vec![])
    }

    #[test]
    fn whatever_part_of_an_append_is_lost_the_rest_names_a_lost_commit() {
        let mut commits = ["a-1", "b-1", "c-1"].map(commit);
        link(&mut commits);
        for kept in 1_u8..7 {
            let is_kept = |index: usize| kept & (1 << index) != 0;
            let (rest, lost): (Vec<_>, Vec<_>) = (0..3).partition(|index| is_kept(*index));
            let named: Vec<_> = rest.iter().map(|index| &commits[*index].sibling).collect();
            let finds = |lost: &usize| named.contains(&&Some(commits[*lost].key()));
            assert!(lost.iter().any(finds), "{rest:?} do not name {lost:?}");
        }
    }

    #[test]
    fn the_stored_form_has_the_metadata_among_its_own_attributes() {
        let json = concat!(
            r#"{"stream":"a-1","version":7,"commit":"command","at":"1970-01-01T00:00:00.007Z","#,
            r#""correlation":"c","causation":"b-1@2","actor":"d","traceparent":"t","#,
            r#""enlisted":true,"events":[]}"#,
        );
        let read: Commit = serde_json::from_str(json).unwrap();
        let metadata = Metadata {
            correlation: "c".to_owned(),
            causation: Some("b-1@2".to_owned()),
            actor: Some("d".to_owned()),
            traceparent: Some("t".to_owned()),
        };
        let expected = Commit {
            metadata,
            enlisted: true,
            ..commit("a-1")
        };
        assert_eq!(read, expected);
        assert_eq!(serde_json::to_string(&expected).unwrap(), json);
    }

    #[test]
    fn a_commit_of_a_newer_format_is_refused() {
        let json = serde_json::to_value(commit("a-1")).unwrap();
        assert_eq!(json.get("format"), None);
        let read = |format: u32| {
            let mut json = json.clone();
            json["format"] = format.into();
            serde_json::from_value::<Commit>(json)
        };
        assert_eq!(read(1).unwrap(), commit("a-1"));
        let error = read(2).unwrap_err().to_string();
        assert!(error.starts_with("stored in format 2, "), "{error}");
    }

    #[test]
    fn a_single_commit_names_none() {
        let mut commits = [commit("a-1")];
        link(&mut commits);
        assert_eq!(commits, [commit("a-1")]);
    }
}
