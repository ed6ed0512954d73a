//! Given/when/then for the functions that handle commands, on a store in memory.
//!
//! A test gives the history of one aggregate, sends a request, and asserts the response together
//! with the events that the request added to the history.

use std::{
    fmt::{Debug, Display},
    sync::Arc,
};

use cairn::{
    Aggregate, RecordedEvent, StreamId, Timestamp,
    commit::Commit,
    event::Event,
    input::Input,
    repository::Repository,
    store::{EventStore, ReadRange, answers::MemoryAnswers, memory::MemoryStore},
};
use serde_json::Value;

use super::{CommandFunction, Problem, Request, caller::Caller};

impl Request {
    /// Sets the caller of a request for a unit test.
    #[must_use]
    pub fn by(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    /// Sets the idempotency key of a request for a unit test.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }
}

/// Starts a test of a function from the history of one aggregate.
///
/// # Panics
/// Panics if an event cannot be encoded.
pub async fn given<A: Aggregate, B>(
    function: CommandFunction<A, B>,
    id: &A::Id,
    history: impl IntoIterator<Item = A::Event>,
) -> Given<A, B> {
    let (store, stream) = (Arc::new(MemoryStore::default()), A::stream(id));
    let events: Result<Vec<_>, _> = history.into_iter().map(|event| event.encode()).collect();
    let events = events.unwrap_or_else(|error| panic!("{error}"));
    if !events.is_empty() {
        let commit = Commit::new(
            stream.clone(),
            1,
            "history",
            Timestamp::from_millis(0),
            events,
        );
        let appended = store.append(&[commit]).await;
        appended.unwrap_or_else(|error| panic!("{error}"));
    }
    Given {
        function,
        streams: Repository::new(store),
        answers: MemoryAnswers::default(),
        stream,
    }
}

/// A function, and the store on which it handles the requests of a test.
pub struct Given<A: Aggregate, B> {
    function: CommandFunction<A, B>,
    streams: Repository<A, Arc<MemoryStore>>,
    answers: MemoryAnswers,
    stream: StreamId,
}

impl<A, B> Given<A, B>
where
    A: Aggregate<Rejection: Display>,
    B: Input + Send + Sync + 'static,
{
    /// Handles a request. A test can send several, one after the other.
    ///
    /// # Panics
    /// Panics if the response is no JSON, or if a new event cannot be decoded.
    pub async fn when(&self, request: Request) -> Then<A::Event> {
        let before = self.history().await.len();
        let handled = self.function.handle(&self.streams, &self.answers, &request);
        let response = handled.await.unwrap_or_else(Problem::into_response);
        let (status, headers, body) = response.into_parts();
        let history = self.history().await;
        let new = history.iter().skip(before).map(RecordedEvent::decode);
        let events: Result<Vec<A::Event>, _> = new.collect();
        Then {
            status,
            is_replayed: headers.contains_key("idempotent-replayed"),
            body: serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")),
            events: events.unwrap_or_else(|error| panic!("{error}")),
        }
    }

    async fn history(&self) -> Vec<RecordedEvent> {
        let read = self.streams.store();
        let commits = read.read(&self.stream, &ReadRange::all()).await;
        let commits = commits.unwrap_or_else(|error| panic!("{error}"));
        commits.iter().flat_map(Commit::recorded).collect()
    }
}

/// The response to a request, and the events that it added to the history.
#[derive(Debug)]
pub struct Then<E> {
    /// The HTTP status.
    pub status: u16,
    /// True if the response is that of an earlier request with the same key.
    pub is_replayed: bool,
    /// The JSON body.
    pub body: Value,
    /// The new events of the aggregate.
    pub events: Vec<E>,
}

impl<E: Debug + PartialEq> Then<E> {
    /// Asserts a first response with this body, and exactly these new events.
    ///
    /// # Panics
    /// Panics if the response or the events differ.
    #[track_caller]
    pub fn then(&self, status: u16, body: &Value, events: impl IntoIterator<Item = E>) {
        assert_eq!((self.status, &self.body), (status, body));
        assert!(!self.is_replayed, "the response is replayed");
        assert_eq!(self.events, events.into_iter().collect::<Vec<_>>());
    }

    /// Asserts the response of an earlier request, and no new event.
    ///
    /// # Panics
    /// Panics if the response differs, is not marked as replayed, or there is a new event.
    #[track_caller]
    pub fn then_replayed(&self, status: u16, body: &Value) {
        assert_eq!((self.status, &self.body), (status, body));
        assert!(self.is_replayed, "the response is not replayed");
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    /// Asserts a problem that has at least these members, and no new event.
    ///
    /// # Panics
    /// Panics if the status or a member differs, or there is a new event.
    #[track_caller]
    pub fn then_problem(&self, status: u16, members: &Value) {
        assert_eq!(self.status, status, "{}", self.body);
        for (name, value) in members.as_object().into_iter().flatten() {
            assert_eq!(self.body.get(name), Some(value), "{name}");
        }
        assert!(!self.is_replayed, "the response is replayed");
        assert!(self.events.is_empty(), "{:?}", self.events);
    }
}
