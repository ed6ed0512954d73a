//! The final state of a simulation: all data, messages, requests and responses.

use std::collections::{BTreeMap, BTreeSet};

use cairn::{Commit, Decider, RecordedEvent, StreamId, dead_letter::DeadLetter};
use cairn_local::aws::Aws;
use orders::{fulfilment, order, values::OrderId};
use serde_json::Value;

use crate::{
    customers::Asked,
    customers::{Looked, Shop},
    providers::Books,
};

#[derive(Clone, Debug)]
pub struct Observed {
    pub commits: Vec<Commit>,
    pub streams: BTreeMap<StreamId, Vec<RecordedEvent>>,
    /// The items of each table except the event table.
    pub tables: BTreeMap<&'static str, Vec<Value>>,
    pub asked: Vec<Asked>,
    pub looked: Vec<Looked>,
    /// The providers' records.
    pub books: Books,
    pub dead: Vec<DeadLetter>,
    /// The number of messages in the dead-letter queues that are not dead letters.
    pub unreadable: usize,
    /// Deliveries that the bus lost, as `function order-...@3`.
    pub lost: BTreeSet<String>,
    pub orders: BTreeMap<OrderId, OrderSeen>,
}

#[derive(Clone, Debug)]
pub struct OrderSeen {
    pub id: OrderId,
    pub order: order::State,
    pub fulfilment: fulfilment::State,
}

impl Observed {
    /// Reads the complete state.
    pub fn new(aws: &Aws, shop: &Shop, books: Books, lost: Vec<String>) -> Self {
        let commits = aws.dynamo.items("EventsTable").into_iter();
        let mut commits: Vec<Commit> = commits
            .filter_map(|item| serde_json::from_value(item).ok())
            .collect();
        commits.sort_by(|a, b| (&a.stream, a.version).cmp(&(&b.stream, b.version)));
        let mut streams = BTreeMap::<_, Vec<_>>::new();
        for commit in &commits {
            streams
                .entry(commit.stream.clone())
                .or_default()
                .extend(commit.recorded());
        }
        let tables = [
            "OrdersTable",
            "StockTable",
            "ProductsTable",
            "SalesTable",
            "DeadlinesTable",
            "CustomerKeysTable",
        ];
        let tables = tables.map(|table| (table, aws.dynamo.items(table)));
        let letters =
            ["DeadLettersQueue", "StreamFailuresQueue"].map(|queue| aws.queues.messages(queue));
        let letters: Vec<_> = letters.into_iter().flatten().flatten().collect();
        let dead: Vec<_> = letters
            .iter()
            .filter_map(|(body, attributes)| DeadLetter::parse(body, attributes).ok())
            .collect();
        let mut seen = Self {
            unreadable: letters.len() - dead.len(),
            dead,
            commits,
            streams,
            tables: BTreeMap::from(tables),
            asked: shop.asked(),
            looked: shop.looked(),
            books,
            lost: lost.into_iter().collect(),
            orders: BTreeMap::new(),
        };
        let streams = seen.streams.keys();
        let orders = streams.filter(|stream| stream.category() == "order");
        let ids = orders.filter_map(|stream| OrderId::from_stream(stream).ok());
        seen.orders = ids.map(|id| (id, seen.order(id))).collect();
        seen
    }

    /// Returns every event, stream by stream.
    pub fn events(&self) -> impl Iterator<Item = &RecordedEvent> {
        self.streams.values().flatten()
    }

    pub fn stream(&self, stream: &StreamId) -> &[RecordedEvent] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    /// Returns the state of a stream.
    pub fn state<D>(&self, stream: &StreamId) -> D::State
    where
        D: Decider<Event: cairn::event::Event>,
    {
        let events = self.stream(stream).iter();
        events
            .filter_map(|event| event.decode::<D::Event>().ok())
            .fold(D::initial(), |state, event| D::evolve(state, &event))
    }

    fn order(&self, id: OrderId) -> OrderSeen {
        OrderSeen {
            id,
            order: self.state::<order::Order>(&id.order_stream()),
            fulfilment: self.state::<fulfilment::Saga>(&id.fulfilment_stream()),
        }
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
