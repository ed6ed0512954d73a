//! Samples of every event type. Each member is present in at least one of them.

use cairn::{StoredEvent, event::Event, personal_data::Sealed, saga};
use orders::{
    fulfilment::{self, Due, Step},
    order::{self, Canceller, Placed},
    payment, product, shipment, stock,
    values::items,
};

use crate::sample_order::{authorization, eur, input, label, order_id, placed, text};

/// Returns the samples in the newest schema version of each type.
pub(crate) fn all() -> Vec<StoredEvent> {
    [
        orders().iter().map(encoded).collect(),
        fulfilments().iter().map(encoded).collect(),
        stocks().iter().map(encoded).collect(),
        payments().iter().map(encoded).collect(),
        shipments().iter().map(encoded).collect(),
        products().iter().map(encoded).collect::<Vec<_>>(),
    ]
    .concat()
}

fn encoded(event: &impl Event) -> StoredEvent {
    event.encode_newest().unwrap()
}

fn orders() -> Vec<order::Event> {
    let customer_id = placed().customer_id;
    let mut with_everything = placed();
    with_everything.email = Some(Sealed::new("AXNlYWxlZCBhcyB3ZWxs".to_owned()));
    let cancelled = |by, reason| order::Event::Cancelled {
        customer_id: placed().customer_id,
        reason: text(reason),
        by,
    };
    let placed = |placed: Placed| order::Event::Placed(Box::new(placed));
    vec![
        placed(crate::sample_order::placed()),
        placed(with_everything),
        order::Event::Confirmed {
            customer_id: customer_id.clone(),
            items: items(&crate::sample_order::lines()),
            total: eur(4500),
        },
        order::Event::Shipped { customer_id },
        cancelled(Canceller::Customer, "changed my mind"),
        cancelled(Canceller::Operator, "asked for it by telephone"),
        cancelled(Canceller::Unknown, "changed my mind"),
        cancelled(Canceller::Fulfilment, "payment declined"),
    ]
}

fn fulfilments() -> Vec<fulfilment::Event> {
    let next = Some(Due::compensate(Step::ReserveStock));
    let (step, reason) = (Step::AuthorizePayment, || "payment declined".to_owned());
    vec![
        saga::Event::Started {
            input: input(),
            next: Due::execute(Step::ScreenOrder),
        },
        saga::Event::StepCompleted {
            step: Step::ArrangeShipment,
            detail: Some("Sandbox Parcel TRACK1".to_owned()),
            next: Some(Due::execute(Step::CapturePayment)),
        },
        saga::Event::StepCompleted {
            step: Step::ConfirmOrder,
            detail: None,
            next: None,
        },
        saga::Event::StepFailed {
            step,
            reason: reason(),
            next,
        },
        saga::Event::StepFailed {
            step: Step::ScreenOrder,
            reason: reason(),
            next: None,
        },
        saga::Event::StepCompensated { step, next },
        saga::Event::StepCompensated {
            step: Step::ScreenOrder,
            next: None,
        },
        saga::Event::CompensationFailed {
            step,
            reason: reason(),
        },
        saga::Event::StepRetried {
            step,
            retry: 1,
            next: Due::execute(step),
        },
        saga::Event::StepAbandoned {
            step,
            reason: reason(),
            next,
        },
        saga::Event::Resumed {
            next: Due::compensate(step),
        },
        saga::Event::CancelRequested {
            reason: "changed my mind".to_owned(),
            next,
        },
        saga::Event::CancelRequested {
            reason: "changed my mind".to_owned(),
            next: None,
        },
        saga::Event::Completed {},
        saga::Event::Aborted { reason: reason() },
        saga::Event::Stuck {
            step,
            reason: reason(),
        },
    ]
}

fn stocks() -> Vec<stock::Event> {
    let (order_id, quantity) = (order_id(), 3);
    vec![
        stock::Event::Received { quantity },
        stock::Event::Reserved { order_id, quantity },
        stock::Event::Released { order_id, quantity },
        stock::Event::Allocated { order_id, quantity },
        stock::Event::Returned { order_id, quantity },
    ]
}

fn payments() -> Vec<payment::Event> {
    vec![
        payment::Event::Authorized(authorization()),
        payment::Event::Declined {
            amount: eur(4500),
            reason: "payment declined".to_owned(),
        },
        payment::Event::Captured(authorization()),
        payment::Event::Voided(authorization()),
        payment::Event::Refunded(authorization()),
    ]
}

fn products() -> Vec<product::Event> {
    vec![product::Event::PriceSet { price: eur(1250) }]
}

fn shipments() -> Vec<shipment::Event> {
    vec![
        shipment::Event::Arranged(label()),
        shipment::Event::Refused {
            reason: "does not deliver there".to_owned(),
        },
        shipment::Event::Cancelled(label()),
    ]
}
