//! Receiving, reserving, releasing, allocating and returning stock.

use cairn::spec::given;
use orders::stock::{Command, Event, Rejection, State, Stock};

use crate::{
    fixtures::{other_order_id, stored},
    sample_order::{ORDER, order_id},
};

fn received(quantity: u64) -> Event {
    Event::Received { quantity }
}

fn reserved(quantity: u64) -> Event {
    Event::Reserved {
        order_id: order_id(),
        quantity,
    }
}

fn released(quantity: u64) -> Event {
    Event::Released {
        order_id: order_id(),
        quantity,
    }
}

fn allocated(quantity: u64) -> Event {
    Event::Allocated {
        order_id: order_id(),
        quantity,
    }
}

fn returned(quantity: u64) -> Event {
    Event::Returned {
        order_id: order_id(),
        quantity,
    }
}

fn reserve(quantity: u64) -> Command {
    Command::Reserve {
        order: order_id(),
        quantity,
    }
}

fn release() -> Command {
    Command::Release { order: order_id() }
}

fn allocate() -> Command {
    Command::Allocate { order: order_id() }
}

fn take_back(quantity: u64) -> Command {
    Command::Return {
        order: order_id(),
        quantity,
    }
}

/// The units on hand, reserved and available.
fn levels(state: &State) -> (u64, u64, u64) {
    (state.on_hand(), state.reserved(), state.available())
}

#[test]
fn a_sku_that_was_never_received_has_nothing() {
    assert_eq!(levels(&given::<Stock>([]).state()), (0, 0, 0));
    given::<Stock>([])
        .when(&reserve(1))
        .then_rejected(&Rejection::OutOfStock);
}

#[test]
fn pieces_come_in() {
    given::<Stock>([received(3)])
        .when(&Command::Receive(5.try_into().unwrap()))
        .then([received(5)]);
    let state = given::<Stock>([received(3), received(5)]).state();
    assert_eq!(levels(&state), (8, 0, 8));
}

#[test]
fn all_that_is_available_can_be_reserved() {
    given::<Stock>([received(5)])
        .when(&reserve(5))
        .then([reserved(5)]);
}

#[test]
fn more_than_is_available_cannot_be_reserved() {
    given::<Stock>([received(5)])
        .when(&reserve(6))
        .then_rejected(&Rejection::OutOfStock);
}

#[test]
fn what_is_reserved_for_one_order_is_not_available_to_another() {
    given::<Stock>([received(5), reserved(3)])
        .when(&Command::Reserve {
            order: other_order_id(),
            quantity: 3,
        })
        .then_rejected(&Rejection::OutOfStock);
}

#[test]
fn an_order_reserves_once() {
    given::<Stock>([received(5), reserved(1)])
        .when(&reserve(1))
        .then_rejected(&Rejection::AlreadyReserved);
}

#[test]
fn open_reservations_have_a_limit_with_which_a_snapshot_fits_into_a_commit() {
    let order = |number: usize| uuid::Uuid::from_u128(number as u128).to_string().parse();
    let reservation = |number: usize| Event::Reserved {
        order_id: order(number).unwrap(),
        quantity: 1_000_000,
    };
    let reservations = (0..State::MAX_RESERVATIONS).map(reservation);
    let full: Vec<_> = [received(u64::MAX)]
        .into_iter()
        .chain(reservations)
        .collect();
    given::<Stock>(full.clone())
        .when(&reserve(1))
        .then_rejected(&Rejection::TooManyReservations);
    let state = given::<Stock>(full.clone()).state();
    let snapshot = serde_json::to_string(&state).unwrap();
    // A commit has 400 KB, and needs some of them for its events.
    assert!(snapshot.len() < 300 * 1024, "{}", snapshot.len());

    let released = Event::Released {
        order_id: order(7).unwrap(),
        quantity: 1_000_000,
    };
    given::<Stock>(full.into_iter().chain([released]))
        .when(&reserve(1))
        .then([reserved(1)]);
}

#[test]
fn a_reservation_stays_on_hand() {
    let state = given::<Stock>([received(5), reserved(3)]).state();
    assert_eq!(levels(&state), (5, 3, 2));
}

#[test]
fn a_release_gives_up_all_that_was_reserved() {
    let history = [received(5), reserved(3)];
    given::<Stock>(history.clone())
        .when(&release())
        .then([released(3)]);
    let state = given::<Stock>(history.into_iter().chain([released(3)])).state();
    assert_eq!(levels(&state), (5, 0, 5));
}

#[test]
fn releasing_what_is_not_reserved_does_nothing() {
    for history in [
        vec![],
        vec![received(5)],
        vec![received(5), reserved(3), released(3)],
        vec![received(5), reserved(3), allocated(3)],
    ] {
        given::<Stock>(history).when(&release()).then_nothing();
    }
}

#[test]
fn one_order_does_not_release_what_is_reserved_for_another() {
    given::<Stock>([received(5), reserved(3)])
        .when(&Command::Release {
            order: other_order_id(),
        })
        .then_nothing();
}

#[test]
fn allocated_units_are_no_longer_on_hand() {
    let history = [received(5), reserved(3)];
    given::<Stock>(history.clone())
        .when(&allocate())
        .then([allocated(3)]);
    let state = given::<Stock>(history.into_iter().chain([allocated(3)])).state();
    assert_eq!(levels(&state), (2, 0, 2));
}

#[test]
fn only_what_is_reserved_can_be_allocated() {
    for history in [
        vec![received(5)],
        vec![received(5), reserved(3), released(3)],
        vec![received(5), reserved(3), allocated(3)],
    ] {
        given::<Stock>(history)
            .when(&allocate())
            .then_rejected(&Rejection::NotReserved);
    }
}

#[test]
fn what_comes_back_is_reserved_until_it_is_released() {
    let history = [received(5), reserved(3), allocated(3)];
    given::<Stock>(history.clone())
        .when(&take_back(3))
        .then([returned(3)]);
    let back = history.into_iter().chain([returned(3)]);
    assert_eq!(
        levels(&given::<Stock>(back.clone()).state()),
        (5, 3, 2),
        "back and reserved"
    );
    given::<Stock>(back).when(&release()).then([released(3)]);
}

#[test]
fn what_was_never_let_go_need_not_come_back() {
    given::<Stock>([received(5), reserved(3)])
        .when(&take_back(3))
        .then_nothing();
}

#[test]
fn the_events_are_stored_in_exactly_these_forms() {
    let of_the_order = format!(r#"{{"orderId":"{ORDER}","quantity":3}}"#);
    for (event, name, json) in [
        (received(3), "StockReceived", r#"{"quantity":3}"#),
        (reserved(3), "StockReserved", of_the_order.as_str()),
        (released(3), "StockReleased", of_the_order.as_str()),
        (allocated(3), "StockAllocated", of_the_order.as_str()),
        (returned(3), "StockReturned", of_the_order.as_str()),
    ] {
        assert_eq!(stored(&event), (name.to_owned(), json.to_owned()));
    }
}
