//! When somebody has to look after an order, and what it needs then.
//!
//! An order is watched from its placing to the end of its fulfilment, and a cancelled one until its
//! fulfilment knows. What it needs follows from its two streams, not from what was or was not
//! delivered.

use std::time::Duration;

use cairn::{
    Decider as _, RecordedEvent, StreamId, Timestamp,
    audit::Process,
    deadlines::{Kind, Mark},
    event::CodecError,
};

use crate::{
    fulfilment::{self, Due, Input, Saga},
    order::{self, Canceller, Order},
    values::OrderId,
};

/// What an event says about the order's deadline; `patience` is how long a step may take.
///
/// # Errors
/// When the event cannot be decoded.
pub fn mark(event: &RecordedEvent, patience: Duration) -> Result<Option<Mark>, CodecError> {
    let open = Kind::Open(event.at.after(patience));
    let kind = match event.stream.category() {
        "order" => match event.decode::<order::Event>()? {
            order::Event::Placed(_) => {
                // What is watched is the fulfilment, which has not come to a version yet.
                let order_id = OrderId::of(&event.stream).ok();
                return Ok(order_id.map(|order_id| Mark {
                    stream: order_id.fulfilment_stream(),
                    version: 0,
                    kind: open,
                }));
            }
            order::Event::Cancelled { by, .. } => match by {
                Canceller::Customer | Canceller::Operator | Canceller::Somebody => Some(open),
                Canceller::Fulfilment => None,
            },
            order::Event::Confirmed { .. } | order::Event::Shipped { .. } => None,
        },
        "fulfilment" => match event.decode::<fulfilment::Event>()? {
            fulfilment::Event::CancellationNoted { .. }
            | fulfilment::Event::Resumed { .. }
            | fulfilment::Event::StepAbandoned { .. } => Some(open),
            fulfilment::Event::Stuck { .. } => Some(Kind::Parked(event.at)),
            fulfilment::Event::Completed {} | fulfilment::Event::Aborted { .. } => {
                Some(Kind::Closed)
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
    Ok(kind.map(|kind| Mark {
        stream: event.stream.clone(),
        version: event.version,
        kind,
    }))
}

/// What an order needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Care {
    /// Its fulfilment never began.
    Begin(Box<Input>),
    /// Its fulfilment does not know that the customer has cancelled it.
    Unwind,
    /// What is due has no outcome, after so many retries.
    Retry(Due, u32),
    /// Nothing before this time.
    Wait(Timestamp),
    /// People, who have been told.
    People,
    /// Nothing any more.
    Nothing,
}

/// What an order needs at the time `now`. `since` is when its fulfilment last moved.
pub fn care(
    order_id: OrderId,
    order: &order::State,
    fulfilment: &fulfilment::State,
    since: Timestamp,
    now: Timestamp,
    patience: Duration,
) -> Care {
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
            Care::Unwind
        }
        State::NotStarted => match order.placed() {
            Some(placed) => Care::Begin(Box::new(Input::of(order_id, placed))),
            None => Care::Nothing,
        },
        State::Running { .. } | State::Halting { .. } | State::Compensating { .. } => {
            let until = since.after(fulfilment.patience(patience));
            match fulfilment.due() {
                Some(due) if now >= until => Care::Retry(due, fulfilment.retries()),
                Some(_) | None => Care::Wait(until),
            }
        }
        State::Stuck { .. } => Care::People,
        State::Completed { .. } | State::Aborted { .. } => Care::Nothing,
    }
}

/// The fulfilments of all orders, as an audit looks at them.
#[derive(Clone, Copy, Debug)]
pub struct Fulfilments;

impl Process for Fulfilments {
    fn streams(last: &RecordedEvent) -> Result<Vec<StreamId>, CodecError> {
        let leaves_something = match last.stream.category() {
            "order" => match last.decode::<order::Event>()? {
                order::Event::Placed(_) => true,
                order::Event::Cancelled { by, .. } => match by {
                    Canceller::Customer | Canceller::Operator | Canceller::Somebody => true,
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
                | fulfilment::Event::CancellationNoted { .. }
                | fulfilment::Event::Stuck { .. } => true,
            },
            _ => false,
        };
        let order_id = OrderId::of(&last.stream).ok();
        Ok(order_id
            .filter(|_| leaves_something)
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
            last.and_then(|last| Some((last, OrderId::of(&last.stream).ok()?)))
        else {
            return Ok(false);
        };
        let needs = care(order_id, &order, &saga, last.at, last.at, Duration::ZERO);
        Ok(needs != Care::Nothing)
    }
}
