//! The final state of a simulation: all data, messages, requests and responses.

use std::collections::{BTreeMap, BTreeSet};

use cairn::{
    Commit, Decider, RecordedEvent, StreamId, dead_letter::DeadLetter, event::Event, saga::Course,
};
use serde_json::Value;

use crate::{
    api::{Asked, Looked},
    running::{Projection, Simulation},
};

#[derive(Clone, Debug)]
pub struct Observed {
    pub commits: Vec<Commit>,
    pub streams: BTreeMap<StreamId, Vec<RecordedEvent>>,
    /// The course of each saga. One that has to start and has not is also here.
    pub sagas: BTreeMap<StreamId, Course>,
    /// The items of each table except the event table.
    pub tables: BTreeMap<String, Vec<Value>>,
    /// The items of the deadlines table.
    pub deadlines: Vec<Value>,
    pub asked: Vec<Asked>,
    pub looked: Vec<Looked>,
    pub dead: Vec<DeadLetter>,
    /// The number of messages in the dead-letter queues that are not dead letters.
    pub unreadable: usize,
    /// Deliveries that the bus lost, as `function order-...@3`.
    pub lost: BTreeSet<String>,
    pub(crate) projections: Vec<Projection>,
}

impl Observed {
    /// Reads the complete state, with the dead letters in these queues.
    pub fn new<A>(simulation: &Simulation<A>, dead_letters: &[&str]) -> Self {
        let (aws, tables) = (&simulation.system.aws, &simulation.tables);
        let commits = aws.dynamo.items(&tables.events).into_iter();
        let mut commits: Vec<Commit> = commits
            .filter_map(|item| serde_json::from_value(item).ok())
            .collect();
        commits.sort_by(|a, b| (&a.stream, a.version).cmp(&(&b.stream, b.version)));
        let mut streams = BTreeMap::<StreamId, Vec<_>>::new();
        for commit in &commits {
            let events = streams.entry(commit.stream.clone()).or_default();
            events.extend(commit.recorded());
        }
        let mut sagas = BTreeMap::new();
        for saga in &simulation.sagas {
            let events = streams.values().flatten();
            for stream in events.filter_map(|event| (saga.begun_by)(event).ok().flatten()) {
                let events = streams.get(&stream).map_or(&[][..], Vec::as_slice);
                sagas.insert(stream, (saga.course)(events).unwrap_or_default());
            }
        }
        let others = tables.all.iter().filter(|table| **table != tables.events);
        let others = others.map(|table| (table.clone(), aws.dynamo.items(table)));
        let queues = dead_letters.iter();
        let letters = queues.map(|queue| aws.queues.messages(queue));
        let letters: Vec<_> = letters.flatten().flatten().collect();
        let dead: Vec<_> = letters
            .iter()
            .filter_map(|(body, attributes)| DeadLetter::parse(body, attributes).ok())
            .collect();
        Self {
            unreadable: letters.len() - dead.len(),
            dead,
            commits,
            streams,
            sagas,
            tables: others.collect(),
            deadlines: aws.dynamo.items(&tables.deadlines),
            asked: simulation.api.asked(),
            looked: simulation.api.looked(),
            lost: simulation.platform.lost().into_iter().collect(),
            projections: simulation.projections.clone(),
        }
    }

    /// Returns every event, stream by stream.
    pub fn events(&self) -> impl Iterator<Item = &RecordedEvent> {
        self.streams.values().flatten()
    }

    pub fn stream(&self, stream: &StreamId) -> &[RecordedEvent] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    /// Returns the events of a stream that can be decoded.
    pub fn decoded<E: Event>(&self, stream: &StreamId) -> impl Iterator<Item = E> {
        let events = self.stream(stream).iter();
        events.filter_map(|event| event.decode().ok())
    }

    /// Returns the state of a stream.
    pub fn state<D>(&self, stream: &StreamId) -> D::State
    where
        D: Decider<Event: Event>,
    {
        self.decoded::<D::Event>(stream)
            .fold(D::initial(), |state, event| D::evolve(state, &event))
    }

    /// Returns the items of a table.
    pub fn table(&self, table: &str) -> &[Value] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }

    /// Returns whether a missing effect of an event in a function is explained: the bus lost the
    /// event, or it is a dead letter.
    pub fn is_explained(&self, function: &str, stream: &StreamId, version: u64) -> bool {
        let event_ref = Some((stream.clone(), version));
        self.lost
            .contains(&format!("{function} {stream}@{version}"))
            || self
                .dead
                .iter()
                .any(|letter| letter.event_ref == event_ref && letter.is_for(function))
    }
}
