//! The events of an order that start or cancel its fulfilment, and the deadlines that follow.

use std::time::Duration;

use cairn::{
    Aggregate, Decider as _, Metadata, RecordedEvent, StreamId, Timestamp,
    deadlines::Monitored as _,
    deadlines::{DeadlineChange, DeadlineUpdate},
    event::Event as _,
    saga::{Signal, Step as _, Triggered as _, deadline_update},
};
use orders::{
    fulfilment::{self, Fulfilment, Saga, Step},
    order::{self, Canceller, Order},
};

use crate::sample_order::{input, order_id, placed, text};

fn was_placed() -> order::Event {
    order::Event::Placed(Box::new(placed()))
}

fn was_cancelled(by: Canceller) -> order::Event {
    order::Event::Cancelled {
        customer_id: placed().customer_id,
        reason: text("changed my mind"),
        by,
    }
}

fn recorded(stream: StreamId, event: cairn::StoredEvent) -> RecordedEvent {
    RecordedEvent {
        stream,
        version: 7,
        at: Timestamp::from_millis(0),
        metadata: Metadata::default(),
        event,
    }
}

fn of_order(event: &order::Event) -> RecordedEvent {
    recorded(Order::stream(&order_id()), event.encode().unwrap())
}

fn update(event: &order::Event) -> Option<DeadlineUpdate> {
    deadline_update::<Fulfilment>(&of_order(event), Duration::from_mins(5)).unwrap()
}

fn signal(event: &order::Event) -> Option<Signal<fulfilment::Input>> {
    Fulfilment::signal(&Order::stream(&order_id()), event)
}

#[test]
fn an_order_that_is_placed_starts_its_fulfilment_and_opens_its_deadline() {
    assert_eq!(signal(&was_placed()), Some(Signal::Start(input())));
    assert_eq!(
        update(&was_placed()),
        Some(DeadlineUpdate {
            stream: Saga::stream(&order_id()),
            version: 0,
            change: DeadlineChange::Open(Timestamp::from_millis(300_000)),
        })
    );
}

#[test]
fn a_cancellation_reaches_the_fulfilment_unless_the_fulfilment_caused_it() {
    let callers = [Canceller::Customer, Canceller::Operator, Canceller::Unknown];
    for by in callers.into_iter().chain([Canceller::Fulfilment]) {
        let by_saga = by == Canceller::Fulfilment;
        let reason = "changed my mind".to_owned();
        let event = was_cancelled(by);
        assert_eq!(signal(&event), Some(Signal::Cancel { reason, by_saga }));
        let stream = update(&event).map(|update| update.stream);
        assert_eq!(stream.is_some(), !by_saga, "{event:?}");
        assert!(stream.is_none_or(|stream| stream == Order::stream(&order_id())));
    }
}

#[test]
fn a_later_event_of_an_order_means_nothing_to_its_fulfilment() {
    let order = order::State::Placed(Box::new(placed()));
    let confirmed = Order::decide(&order, &order::Command::Confirm).unwrap();
    assert_eq!((signal(&confirmed[0]), update(&confirmed[0])), (None, None));
}

/// Returns true if an order, and its fulfilment after these commands, need an action.
fn is_unfinished(commands: &[fulfilment::Command]) -> bool {
    let mut events = vec![of_order(&was_placed())];
    let mut state = Saga::initial();
    for command in commands {
        for event in Saga::decide(&state, command).unwrap() {
            let stream = Saga::stream(&order_id());
            events.push(recorded(stream, event.encode().unwrap()));
            state = Saga::evolve(state, &event);
        }
    }
    Saga::is_unfinished(&events).unwrap()
}

#[test]
fn an_order_needs_an_action_until_its_fulfilment_has_ended() {
    assert!(is_unfinished(&[]));
    let start = fulfilment::Command::Start(input());
    let steps = Step::STEPS.iter();
    let steps = steps.map(|step| fulfilment::Command::Complete(*step, None));
    let commands: Vec<_> = std::iter::once(start).chain(steps).collect();
    assert!(is_unfinished(&commands[..3]));
    assert!(!is_unfinished(&commands));
}

#[test]
fn the_audit_reads_both_streams_of_an_order_that_needs_an_action() {
    let both = [Order::stream(&order_id()), Saga::stream(&order_id())];
    let streams = |event: &order::Event| Saga::streams(&of_order(event)).unwrap();
    assert_eq!(streams(&was_placed()), both);
    assert_eq!(streams(&was_cancelled(Canceller::Customer)), both);
    assert_eq!(streams(&was_cancelled(Canceller::Fulfilment)), []);
}
