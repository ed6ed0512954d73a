//! The deadlines of orders, and the next action that an order needs.
//!
//! An order is watched from its placing to the end of its fulfilment, and a cancelled one until its
//! fulfilment knows. What it needs follows from its two streams, not from what was or was not
//! delivered.

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

/// Returns the change that an event makes to the order's deadline. A step may take `step_timeout`.
///
/// # Errors
/// When the event cannot be decoded.
pub fn deadline_update(
    event: &RecordedEvent,
    step_timeout: Duration,
) -> Result<Option<DeadlineUpdate>, CodecError> {
    let open = DeadlineChange::Open(event.at.after(step_timeout));
    let change = match event.stream.category() {
        "order" => match event.decode::<order::Event>()? {
            order::Event::Placed(_) => {
                // What is watched is the fulfilment, which has not come to a version yet.
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

/// The next action for an order.
#[derive(Clone, Debug, PartialEq)]
pub enum NextAction {
    /// Start its fulfilment, which never began.
    Start(Box<Input>),
    /// Compensate: its fulfilment does not know that the customer has cancelled it.
    Compensate,
    /// Retry the pending step, which has no outcome after so many retries.
    Retry(Due, u32),
    /// Wait until this time.
    Wait(Timestamp),
    /// The fulfilment is stuck and needs manual action.
    Operator,
    /// No action.
    None,
}

/// Returns the next action for an order at the time `now`. Its fulfilment last moved at `since`.
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

/// The fulfilments of all orders, as an audit looks at them.
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
