//! Deadlines of orders, and the next action at a deadline.

use std::time::Duration;

use cairn::{
    Decider as _, Metadata, RecordedEvent, Timestamp,
    audit::Process as _,
    deadlines::{DeadlineChange, DeadlineUpdate},
};
use orders::{
    deadlines::{Fulfilments, NextAction, deadline_update, next_action},
    fulfilment::{self, Due, Input, Saga, Step},
    order::{self, Canceller},
};

use crate::sample_order::{input, order_id, placed, text};

const STEP_TIMEOUT: Duration = Duration::from_mins(5);

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + minutes * 60_000)
}

fn recorded<E: cairn::event::Event>(stream: cairn::StreamId, event: &E) -> RecordedEvent {
    RecordedEvent {
        stream,
        version: 7,
        at: at(0),
        metadata: Metadata::default(),
        event: event.encode().unwrap(),
    }
}

fn of_order(event: &order::Event) -> Option<DeadlineUpdate> {
    deadline_update(&recorded(order_id().order_stream(), event), STEP_TIMEOUT).unwrap()
}

fn of_fulfilment(event: &fulfilment::Event) -> Option<DeadlineChange> {
    let stream = order_id().fulfilment_stream();
    let update = deadline_update(&recorded(stream.clone(), event), STEP_TIMEOUT).unwrap()?;
    assert_eq!((update.stream, update.version), (stream, 7));
    Some(update.change)
}

fn was_cancelled(by: Canceller) -> order::Event {
    order::Event::Cancelled {
        customer_id: placed().customer_id,
        reason: text("changed my mind"),
        by,
    }
}

#[test]
fn an_order_that_is_placed_opens_a_deadline_of_its_fulfilment() {
    assert_eq!(
        of_order(&order::Event::Placed(Box::new(placed()))),
        Some(DeadlineUpdate {
            stream: order_id().fulfilment_stream(),
            version: 0,
            change: DeadlineChange::Open(at(5)),
        })
    );
}

#[test]
fn an_order_that_its_customer_cancels_has_a_deadline_of_its_own() {
    assert_eq!(
        of_order(&was_cancelled(Canceller::Customer)),
        Some(DeadlineUpdate {
            stream: order_id().order_stream(),
            version: 7,
            change: DeadlineChange::Open(at(5)),
        })
    );
    assert_eq!(of_order(&was_cancelled(Canceller::Fulfilment)), None);
}

#[test]
fn the_end_of_a_fulfilment_closes_its_deadline_and_a_stuck_one_is_marked() {
    let (step, reason) = (Step::ScreenOrder, "no".to_owned());
    let aborted = fulfilment::Event::Aborted {
        reason: reason.clone(),
    };
    for end in [fulfilment::Event::Completed {}, aborted] {
        assert_eq!(of_fulfilment(&end), Some(DeadlineChange::Closed));
    }
    let stuck = fulfilment::Event::Stuck { step, reason };
    assert_eq!(of_fulfilment(&stuck), Some(DeadlineChange::Stuck(at(0))));
}

#[test]
fn a_fulfilment_that_goes_on_after_its_end_is_watched_again() {
    let (step, reason) = (Step::ReserveStock, "no".to_owned());
    let next = Some(Due::compensate(step));
    for event in [
        fulfilment::Event::CancelRequested {
            reason: reason.clone(),
            next,
        },
        fulfilment::Event::Resumed {
            next: Due::compensate(step),
        },
        fulfilment::Event::StepAbandoned { step, reason, next },
    ] {
        assert_eq!(of_fulfilment(&event), Some(DeadlineChange::Open(at(5))));
    }
}

#[test]
fn a_step_on_the_way_writes_no_deadline() {
    let completed = fulfilment::Event::StepCompleted {
        step: Step::ScreenOrder,
        detail: None,
        next: Some(Due::execute(Step::ReserveStock)),
    };
    assert_eq!(of_fulfilment(&completed), None);
}

fn needs(order: &order::State, commands: &[fulfilment::Command], now: Timestamp) -> NextAction {
    let history = commands.iter().fold(vec![], |mut history, command| {
        let state = Saga::fold(&history);
        history.extend(Saga::decide(&state, command).unwrap());
        history
    });
    next_action(
        order_id(),
        order,
        &Saga::fold(&history),
        at(0),
        now,
        STEP_TIMEOUT,
    )
}

fn open_order() -> order::State {
    order::State::Placed(Box::new(placed()))
}

fn cancelled_order() -> order::State {
    order::State::Cancelled(Box::new(placed()))
}

fn start() -> fulfilment::Command {
    fulfilment::Command::Start(input())
}

fn completed() -> Vec<fulfilment::Command> {
    let steps = <fulfilment::Fulfilment as cairn::saga::Definition>::STEPS.iter();
    let steps = steps.map(|step| fulfilment::Command::Complete(*step, None));
    std::iter::once(start()).chain(steps).collect()
}

#[test]
fn a_fulfilment_that_never_began_is_begun() {
    let input = Box::new(Input::new(order_id(), &placed()));
    assert_eq!(needs(&open_order(), &[], at(5)), NextAction::Start(input));
}

#[test]
fn a_due_step_is_asked_for_again_when_it_had_its_time_and_not_before() {
    let due = Due::execute(Step::ScreenOrder);
    assert_eq!(
        needs(&open_order(), &[start()], at(4)),
        NextAction::Wait(at(5))
    );
    assert_eq!(
        needs(&open_order(), &[start()], at(5)),
        NextAction::Retry(due, 0)
    );
    let again = [start(), fulfilment::Command::Retry(due, 0)];
    assert_eq!(
        needs(&open_order(), &again, at(9)),
        NextAction::Wait(at(10))
    );
    assert_eq!(
        needs(&open_order(), &again, at(10)),
        NextAction::Retry(due, 1)
    );
}

#[test]
fn a_fulfilment_that_does_not_know_of_the_cancellation_is_told() {
    for commands in [vec![], vec![start()], completed()] {
        assert_eq!(
            needs(&cancelled_order(), &commands, at(0)),
            NextAction::Compensate
        );
    }
}

#[test]
fn a_fulfilment_that_unwinds_is_asked_to_go_on_unwinding() {
    let mut commands = completed();
    commands.push(fulfilment::Command::Cancel("changed my mind".to_owned()));
    let due = Due::compensate(Step::ConfirmOrder);
    assert_eq!(
        needs(&cancelled_order(), &commands, at(5)),
        NextAction::Retry(due, 0)
    );
}

#[test]
fn a_stuck_fulfilment_needs_manual_action_and_an_ended_one_needs_none() {
    let confirmed = order::State::Confirmed(Box::new(placed()));
    assert_eq!(needs(&confirmed, &completed(), at(5)), NextAction::None);
    let cancel = fulfilment::Command::Cancel("changed my mind".to_owned());
    assert_eq!(
        needs(&cancelled_order(), std::slice::from_ref(&cancel), at(5)),
        NextAction::None
    );
    let mut stuck = completed();
    let no = "no".to_owned();
    stuck.extend([
        cancel,
        fulfilment::Command::UndoFailed(Step::ConfirmOrder, no),
    ]);
    assert_eq!(
        needs(&cancelled_order(), &stuck, at(5)),
        NextAction::Operator
    );
}

/// Returns whether an order with this last event, and its fulfilment after these commands, need
/// an action.
fn goes_on(order: &order::Event, commands: &[fulfilment::Command]) -> bool {
    let mut events = vec![recorded(order_id().order_stream(), order)];
    let mut history = vec![];
    for command in commands {
        let state = Saga::fold(&history);
        history.extend(Saga::decide(&state, command).unwrap());
    }
    let stream = order_id().fulfilment_stream();
    events.extend(history.iter().map(|event| recorded(stream.clone(), event)));
    Fulfilments::goes_on(&events).unwrap()
}

#[test]
fn an_order_needs_an_action_until_its_fulfilment_has_ended_and_while_it_is_stuck() {
    let placed = order::Event::Placed(Box::new(placed()));
    assert!(goes_on(&placed, &[]));
    assert!(goes_on(&placed, &[start()]));
    assert!(!goes_on(&placed, &completed()));
    let mut stuck = completed();
    stuck.extend([
        fulfilment::Command::Cancel("changed my mind".to_owned()),
        fulfilment::Command::UndoFailed(Step::ConfirmOrder, "no".to_owned()),
    ]);
    assert!(goes_on(&placed, &stuck));
}

#[test]
fn only_streams_whose_end_leaves_something_to_be_done_are_looked_at() {
    let order = |event: &order::Event| {
        let last = recorded(order_id().order_stream(), event);
        Fulfilments::streams(&last).unwrap()
    };
    let saga = |event: &fulfilment::Event| {
        let last = recorded(order_id().fulfilment_stream(), event);
        Fulfilments::streams(&last).unwrap()
    };
    let both = [order_id().order_stream(), order_id().fulfilment_stream()];
    assert_eq!(order(&order::Event::Placed(Box::new(placed()))), both);
    assert_eq!(order(&was_cancelled(Canceller::Customer)), both);
    assert_eq!(order(&was_cancelled(Canceller::Fulfilment)), []);
    let (step, reason) = (Step::ScreenOrder, "no".to_owned());
    let stuck = fulfilment::Event::Stuck {
        step,
        reason: reason.clone(),
    };
    assert_eq!(saga(&stuck), both);
    assert_eq!(saga(&fulfilment::Event::Completed {}), []);
    assert_eq!(saga(&fulfilment::Event::Aborted { reason }), []);
    let elsewhere = recorded("stock-TEA-01".parse().unwrap(), &stuck);
    assert_eq!(Fulfilments::streams(&elsewhere).unwrap(), []);
}
