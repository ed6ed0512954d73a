//! Arranging and cancelling shipments.

use cairn::spec::given;
use orders::shipment::{Command, Event, Rejection, Shipment};

use crate::{fixtures::stored, sample_order::label};

fn arranged() -> Event {
    Event::Arranged(label())
}

fn refused() -> Event {
    Event::Refused {
        reason: "does not deliver there".to_owned(),
    }
}

fn cancelled() -> Event {
    Event::Cancelled(label())
}

fn arrange() -> Command {
    Command::RecordArrangement(label())
}

fn refuse() -> Command {
    Command::RecordRefusal {
        reason: "does not deliver there".to_owned(),
    }
}

#[test]
fn an_arrangement_is_recorded_with_its_label() {
    given::<Shipment>([]).when(&arrange()).then([arranged()]);
}

#[test]
fn a_refusal_is_recorded_with_its_reason() {
    given::<Shipment>([]).when(&refuse()).then([refused()]);
}

#[test]
fn the_carrier_answers_once() {
    for history in [
        vec![arranged()],
        vec![refused()],
        vec![arranged(), cancelled()],
    ] {
        for answer in [arrange(), refuse()] {
            given::<Shipment>(history.clone())
                .when(&answer)
                .then_rejected(&Rejection::AlreadyAnswered);
        }
    }
}

#[test]
fn what_is_called_off_is_the_label_that_was_arranged() {
    given::<Shipment>([arranged()])
        .when(&Command::RecordCancellation)
        .then([cancelled()]);
}

#[test]
fn calling_off_what_was_never_arranged_or_is_off_does_nothing() {
    for history in [vec![], vec![refused()], vec![arranged(), cancelled()]] {
        given::<Shipment>(history)
            .when(&Command::RecordCancellation)
            .then_nothing();
    }
}

#[test]
fn the_events_are_stored_in_exactly_these_forms() {
    let label = r#"{"carrier":"Sandbox Parcel","trackingNumber":"TRACK1"}"#;
    let refusal = r#"{"reason":"does not deliver there"}"#;
    for (event, name, json) in [
        (arranged(), "ShipmentArranged", label),
        (refused(), "ShipmentRefused", refusal),
        (cancelled(), "ShipmentCancelled", label),
    ] {
        assert_eq!(stored(&event), (name.to_owned(), json.to_owned()));
    }
}
