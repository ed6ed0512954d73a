//! The deadlines of orders, and the next action that an order needs.
//!
//! An order has a deadline from its placing until its fulfilment ends. A cancelled order keeps it
//! until its fulfilment has recorded the cancellation. The next action follows from the two
//! streams, not from the events that were delivered.

use std::time::Duration;

use cairn::{
    Decider as _, RecordedEvent, StreamId, Timestamp,
    audit::Process,
    deadlines::{DeadlineChange, DeadlineUpdate},
    event::CodecError,
};

use crate::{
    fulfilment::{self, Due, Input, Saga},
    order::{self, Canceller, Order},
    values::OrderId,
};

/// Returns the change that an event makes to the order's deadline. A step has `step_timeout` to
/// finish.
pub fn deadline_update(
    event: &RecordedEvent,
    step_timeout: Duration,
) -> Result<Option<DeadlineUpdate>, CodecError> {
    let open = DeadlineChange::Open(event.at.after(step_timeout));
    let change = match event.stream.category() {
        "order" => match event.decode::<order::Event>()? {
            order::Event::Placed(_) => {
                // The deadline belongs to the fulfilment, which has no version yet.
                let order_id = OrderId::from_stream(&event.stream).ok();
                return Ok(order_id.map(|order_id| DeadlineUpdate {
                    stream: order_id.fulfilment_stream(),
                    version: 0,
                    change: open,
                }));
            }
            order::Event::Cancelled { by, .. } => match by {
                Canceller::Customer | Canceller::Operator | Canceller::Unknown => Some(open),
                Canceller::Fulfilment => None,
            },
            order::Event::Confirmed { .. } | order::Event::Shipped { .. } => None,
        },
        "fulfilment" => match event.decode::<fulfilment::Event>()? {
            fulfilment::Event::CancelRequested { .. }
            | fulfilment::Event::Resumed { .. }
            | fulfilment::Event::StepAbandoned { .. } => Some(open),
            fulfilment::Event::Stuck { .. } => Some(DeadlineChange::Stuck(event.at)),
            fulfilment::Event::Completed {} | fulfilment::Event::Aborted { .. } => {
                Some(DeadlineChange::Closed)
            }
            fulfilment::Event::Started { .. }
            | fulfilment::Event::StepCompleted { .. }
            | fulfilment::Event::StepFailed { .. }
            | fulfilment::Event::StepCompensated { .. }
            | fulfilment::Event::StepRetried { .. }
            | fulfilment::Event::CompensationFailed { .. } => None,
        },
        _ => None,
    };
    Ok(change.map(|change| DeadlineUpdate {
        stream: event.stream.clone(),
        version: event.version,
        change,
    }))
}

#[derive(Clone, Debug, PartialEq)]
pub enum NextAction {
    /// Start the fulfilment, which does not exist yet.
    Start(Box<Input>),
    /// Compensate: the customer cancelled the order, and the fulfilment has not recorded it.
    Compensate,
    /// Retry the pending step, which has no outcome after this number of retries.
    Retry(Due, u32),
    Wait(Timestamp),
    Operator,
    None,
}

/// Returns the next action for an order at `now`. `since` is the time of its fulfilment's last
/// event.
pub fn next_action(
    order_id: OrderId,
    order: &order::State,
    fulfilment: &fulfilment::State,
    since: Timestamp,
    now: Timestamp,
    step_timeout: Duration,
) -> NextAction {
    use fulfilment::State;
    let is_cancelled = match order {
        order::State::Cancelled(_) => true,
        order::State::NotPlaced
        | order::State::Placed(_)
        | order::State::Confirmed(_)
        | order::State::Shipped(_) => false,
    };
    match fulfilment {
        State::NotStarted | State::Running { .. } | State::Completed { .. } if is_cancelled => {
            NextAction::Compensate
        }
        State::NotStarted => match order.placed() {
            Some(placed) => NextAction::Start(Box::new(Input::new(order_id, placed))),
            None => NextAction::None,
        },
        State::Running { .. } | State::CancelPending { .. } | State::Compensating { .. } => {
            let until = since.after(fulfilment.step_timeout(step_timeout));
            match fulfilment.due() {
                Some(due) if now >= until => NextAction::Retry(due, fulfilment.retries()),
                Some(_) | None => NextAction::Wait(until),
            }
        }
        State::Stuck { .. } => NextAction::Operator,
        State::Completed { .. } | State::Aborted { .. } => NextAction::None,
    }
}

/// The fulfilments of all orders, for the audit.
#[derive(Clone, Copy, Debug)]
pub struct Fulfilments;

impl Process for Fulfilments {
    fn streams(last: &RecordedEvent) -> Result<Vec<StreamId>, CodecError> {
        let needs_watch = match last.stream.category() {
            "order" => match last.decode::<order::Event>()? {
                order::Event::Placed(_) => true,
                order::Event::Cancelled { by, .. } => match by {
                    Canceller::Customer | Canceller::Operator | Canceller::Unknown => true,
                    Canceller::Fulfilment => false,
                },
                order::Event::Confirmed { .. } | order::Event::Shipped { .. } => false,
            },
            "fulfilment" => match last.decode::<fulfilment::Event>()? {
                fulfilment::Event::Completed {} | fulfilment::Event::Aborted { .. } => false,
                fulfilment::Event::Started { .. }
                | fulfilment::Event::StepCompleted { .. }
                | fulfilment::Event::StepFailed { .. }
                | fulfilment::Event::StepCompensated { .. }
                | fulfilment::Event::StepRetried { .. }
                | fulfilment::Event::StepAbandoned { .. }
                | fulfilment::Event::Resumed { .. }
                | fulfilment::Event::CompensationFailed { .. }
                | fulfilment::Event::CancelRequested { .. }
                | fulfilment::Event::Stuck { .. } => true,
            },
            _ => false,
        };
        let order_id = OrderId::from_stream(&last.stream).ok();
        Ok(order_id
            .filter(|_| needs_watch)
            .map(|order_id| vec![order_id.order_stream(), order_id.fulfilment_stream()])
            .unwrap_or_default())
    }

    fn goes_on(events: &[RecordedEvent]) -> Result<bool, CodecError> {
        let (mut order, mut saga) = (Order::initial(), Saga::initial());
        for event in events {
            match event.stream.category() {
                "order" => order = Order::evolve(order, &event.decode()?),
                "fulfilment" => saga = Saga::evolve(saga, &event.decode()?),
                _ => {}
            }
        }
        let last = events.last();
        let Some((last, order_id)) =
            last.and_then(|last| Some((last, OrderId::from_stream(&last.stream).ok()?)))
        else {
            return Ok(false);
        };
        let needs = next_action(order_id, &order, &saga, last.at, last.at, Duration::ZERO);
        Ok(needs != NextAction::None)
    }
}
