//! The stored states of the current code's snapshots.

use cairn::{Aggregate, saga, snapshot::state_fingerprint};
use orders::{
    fulfilment::{Due, Saga, Step},
    order::{self, Canceller, Order},
    payment::{self, Payment},
    product::{self, Product},
    shipment::{self, Shipment},
    stock::{self, Stock},
};
use serde_json::{Map, Value, json};

use crate::{
    fixtures::other_order_id,
    sample_order::{authorization, eur, input, label, order_id, placed, text},
};

/// Code with an equal fingerprint uses the same snapshots, so it must derive the same states from
/// the same events.
#[test]
fn states_change_only_with_their_shape() {
    let now = Value::Object(Map::from_iter([
        states::<Order>(&[
            order_placed(),
            order::Event::Confirmed {
                customer_id: placed().customer_id,
                items: vec![],
                total: eur(4500),
            },
            order::Event::Shipped {
                customer_id: placed().customer_id,
            },
        ]),
        states::<Stock>(&[
            stock::Event::Received { quantity: 9 },
            stock::Event::Reserved {
                order_id: order_id(),
                quantity: 3,
            },
            stock::Event::Reserved {
                order_id: other_order_id(),
                quantity: 4,
            },
            stock::Event::Allocated {
                order_id: order_id(),
                quantity: 3,
            },
            stock::Event::Released {
                order_id: other_order_id(),
                quantity: 4,
            },
            stock::Event::Returned {
                order_id: order_id(),
                quantity: 3,
            },
        ]),
        states::<Payment>(&[
            payment::Event::Authorized(authorization()),
            payment::Event::Captured(authorization()),
            payment::Event::Refunded(authorization()),
        ]),
        states::<Shipment>(&[
            shipment::Event::Arranged(label()),
            shipment::Event::Cancelled(label()),
        ]),
        states::<Saga>(&fulfilment_events()),
        states::<Product>(&[product::Event::PriceSet { price: eur(1250) }]),
    ]));
    let kept: Value = serde_json::from_str(include_str!("states.json")).unwrap();
    for (category, now) in now.as_object().unwrap() {
        if now["shape"] == kept[category]["shape"] {
            let advice = "raise the aggregate's REVISION; otherwise outdated snapshots are used";
            assert_eq!(now, &kept[category], "{category}: {advice}");
        }
    }
    assert!(
        now == kept,
        "snapshots have a new fingerprint; keep this in states.json:\n{now:#}"
    );
}

#[test]
fn an_order_that_was_cancelled_keeps_what_was_ordered() {
    let state = <Order as cairn::Decider>::fold(&[
        order_placed(),
        order::Event::Cancelled {
            customer_id: placed().customer_id,
            reason: text("changed my mind"),
            by: Canceller::Customer,
        },
    ]);
    let stored = serde_json::to_string(&state).unwrap();
    assert_eq!(
        serde_json::from_str::<order::State>(&stored).unwrap(),
        state
    );
}

/// Returns the stored states after each event of a history, and checks that each is read unchanged.
fn states<A>(history: &[A::Event]) -> (String, Value)
where
    A: Aggregate<State: PartialEq>,
{
    let mut state = A::initial();
    let mut states = vec![];
    for event in history {
        state = A::evolve(state, event);
        let stored = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<A::State>(&stored).unwrap(), state);
        states.push(serde_json::from_str::<Value>(&stored).unwrap());
    }
    let state_fingerprint = state_fingerprint::<A::State>(A::REVISION);
    (
        A::CATEGORY.to_owned(),
        json!({ "shape": state_fingerprint, "states": states }),
    )
}

fn order_placed() -> order::Event {
    order::Event::Placed(Box::new(placed()))
}

fn fulfilment_events() -> Vec<orders::fulfilment::Event> {
    vec![
        saga::Event::Started {
            input: input(),
            next: Due::execute(Step::ScreenOrder),
        },
        saga::Event::StepCompleted {
            step: Step::ScreenOrder,
            detail: None,
            next: Some(Due::execute(Step::ReserveStock)),
        },
        saga::Event::StepRetried {
            step: Step::ReserveStock,
            retry: 1,
            next: Due::execute(Step::ReserveStock),
        },
        saga::Event::CancelRequested {
            reason: "changed my mind".to_owned(),
            next: None,
        },
        saga::Event::StepCompleted {
            step: Step::ReserveStock,
            detail: None,
            next: Some(Due::compensate(Step::ReserveStock)),
        },
        saga::Event::CompensationFailed {
            step: Step::ReserveStock,
            reason: "no".to_owned(),
        },
    ]
}
