//! Placing, confirming, shipping and cancelling orders.

use cairn::{StoredEvent, event::Event as _, spec::given};
use orders::order::{Canceller, Command, Event, Order, Rejection};
use serde_json::value::RawValue;

use crate::{
    fixtures::stored,
    sample_order::{eur, placed, text, was_confirmed, was_placed, was_shipped},
};

fn was_cancelled() -> Event {
    Event::Cancelled {
        customer_id: placed().customer_id,
        reason: text("changed my mind"),
        by: Canceller::Customer,
    }
}

fn place() -> Command {
    Command::Place(Box::new(placed()))
}

fn cancel() -> Command {
    Command::Cancel {
        reason: text("changed my mind"),
        by: Canceller::Customer,
    }
}

#[test]
fn an_order_is_placed_with_the_total_of_its_lines() {
    let mut order = placed();
    order.total = eur(1);
    given::<Order>([])
        .when(&Command::Place(Box::new(order)))
        .then([was_placed()]);
}

#[test]
fn an_order_is_placed_only_once_whatever_became_of_it() {
    for history in [
        vec![was_placed()],
        vec![was_placed(), was_confirmed()],
        vec![was_placed(), was_confirmed(), was_shipped()],
        vec![was_placed(), was_cancelled()],
    ] {
        given::<Order>(history)
            .when(&place())
            .then_rejected(&Rejection::AlreadyPlaced);
    }
}

#[test]
fn a_confirmation_carries_one_item_for_each_sku_and_the_total() {
    given::<Order>([was_placed()])
        .when(&Command::Confirm)
        .then([was_confirmed()]);
}

#[test]
fn an_order_is_not_confirmed_twice() {
    given::<Order>([was_placed(), was_confirmed()])
        .when(&Command::Confirm)
        .then_rejected(&Rejection::AlreadyConfirmed);
}

#[test]
fn a_confirmed_order_ships() {
    given::<Order>([was_placed(), was_confirmed()])
        .when(&Command::Ship)
        .then([was_shipped()]);
}

#[test]
fn an_order_does_not_ship_before_it_is_confirmed() {
    given::<Order>([was_placed()])
        .when(&Command::Ship)
        .then_rejected(&Rejection::NotConfirmed);
}

#[test]
fn an_order_can_be_cancelled_until_it_ships() {
    for history in [vec![was_placed()], vec![was_placed(), was_confirmed()]] {
        given::<Order>(history)
            .when(&cancel())
            .then([was_cancelled()]);
    }
}

#[test]
fn a_cancellation_says_who_wanted_it_and_why() {
    given::<Order>([was_placed()])
        .when(&Command::Cancel {
            reason: text("payment declined"),
            by: Canceller::Fulfilment,
        })
        .then([Event::Cancelled {
            customer_id: placed().customer_id,
            reason: text("payment declined"),
            by: Canceller::Fulfilment,
        }]);
}

#[test]
fn cancelling_twice_does_nothing() {
    given::<Order>([was_placed(), was_cancelled()])
        .when(&cancel())
        .then_nothing();
}

#[test]
fn a_cancelled_order_stays_cancelled() {
    for command in [Command::Confirm, Command::Ship] {
        given::<Order>([was_placed(), was_confirmed(), was_cancelled()])
            .when(&command)
            .then_rejected(&Rejection::Cancelled);
    }
}

#[test]
fn no_event_reopens_an_order_that_is_cancelled_or_shipped() {
    for end in [was_cancelled(), was_shipped()] {
        let history = [was_placed(), was_confirmed(), end];
        let ended = given::<Order>(history.clone()).state();
        for event in [
            was_placed(),
            was_confirmed(),
            was_shipped(),
            was_cancelled(),
        ] {
            let events = history.clone().into_iter().chain([event]);
            assert_eq!(given::<Order>(events).state(), ended);
        }
    }
}

#[test]
fn a_shipped_order_cannot_be_cancelled() {
    given::<Order>([was_placed(), was_confirmed(), was_shipped()])
        .when(&cancel())
        .then_rejected(&Rejection::AlreadyShipped);
}

#[test]
fn a_shipped_order_is_neither_confirmed_nor_shipped_again() {
    for command in [Command::Confirm, Command::Ship] {
        given::<Order>([was_placed(), was_confirmed(), was_shipped()])
            .when(&command)
            .then_rejected(&Rejection::AlreadyShipped);
    }
}

#[test]
fn nothing_can_be_done_with_an_order_that_was_never_placed() {
    for command in [Command::Confirm, Command::Ship, cancel()] {
        given::<Order>([])
            .when(&command)
            .then_rejected(&Rejection::NotPlaced);
    }
}

#[test]
fn the_outside_knows_an_order_by_its_status() {
    for (history, status) in [
        (vec![], None),
        (vec![was_placed()], Some("placed")),
        (vec![was_placed(), was_confirmed()], Some("confirmed")),
        (
            vec![was_placed(), was_confirmed(), was_shipped()],
            Some("shipped"),
        ),
        (vec![was_placed(), was_cancelled()], Some("cancelled")),
    ] {
        assert_eq!(given::<Order>(history).state().status(), status);
    }
}

#[test]
fn what_was_asked_for_is_known_as_long_as_the_order_is() {
    for end in [was_confirmed(), was_shipped(), was_cancelled()] {
        let state = given::<Order>([was_placed(), end]).state();
        assert_eq!(state.placed(), Some(&placed()));
    }
    assert_eq!(given::<Order>([]).state().placed(), None);
}

#[test]
fn an_order_placed_is_stored_in_exactly_this_form() {
    let json = concat!(
        r#"{"customerId":"c-42","lines":["#,
        r#"{"sku":"TEA-01","quantity":2,"unitPrice":{"amount":1250,"currency":"EUR"}},"#,
        r#"{"sku":"CUP-07","quantity":1,"unitPrice":{"amount":900,"currency":"EUR"}},"#,
        r#"{"sku":"TEA-01","quantity":1,"unitPrice":{"amount":1100,"currency":"EUR"}}],"#,
        r#""total":{"amount":4500,"currency":"EUR"},"payment":{"token":"tok_visa"},"#,
        r#""shipTo":{"sealed":"AQ+the+address"}}"#,
    );
    let encoded = was_placed().encode().unwrap();
    assert_eq!((encoded.name.as_str(), encoded.schema), ("OrderPlaced", 1));
    assert_eq!(encoded.data.get(), json);
    assert_eq!(Event::decode(&encoded).unwrap(), was_placed());
}

#[test]
fn the_later_events_are_stored_in_exactly_these_forms() {
    for (event, name, json) in [
        (
            was_confirmed(),
            "OrderConfirmed",
            concat!(
                r#"{"customerId":"c-42","items":[{"sku":"CUP-07","quantity":1},"#,
                r#"{"sku":"TEA-01","quantity":3}],"total":{"amount":4500,"currency":"EUR"}}"#,
            ),
        ),
        (was_shipped(), "OrderShipped", r#"{"customerId":"c-42"}"#),
        (
            was_cancelled(),
            "OrderCancelled",
            r#"{"customerId":"c-42","reason":"changed my mind","cancelledBy":"customer"}"#,
        ),
    ] {
        assert_eq!(stored(&event), (name.to_owned(), json.to_owned()));
    }
}

/// Version 1 stored `customer` for every caller.
#[test]
fn a_cancellation_of_version_1_does_not_say_who_asked_for_it() {
    for (stored, by) in [
        ("customer", Canceller::Unknown),
        ("fulfilment", Canceller::Fulfilment),
    ] {
        let data = format!(r#"{{"customerId":"c-42","reason":"changed my mind","by":"{stored}"}}"#);
        let event = StoredEvent {
            name: "OrderCancelled".to_owned(),
            schema: 1,
            data: RawValue::from_string(data).unwrap(),
        };
        let expected = Event::Cancelled {
            customer_id: placed().customer_id,
            reason: text("changed my mind"),
            by,
        };
        assert_eq!(Event::decode(&event).unwrap(), expected);
        assert_eq!(expected.encode().unwrap().schema, 2);
    }
}
