//! Authorizing, capturing, voiding and refunding payments.

use cairn::spec::given;
use orders::payment::{Command, Event, Payment, Rejection};

use crate::{
    fixtures::stored,
    sample_order::{authorization, eur},
};

fn authorized() -> Event {
    Event::Authorized(authorization())
}

fn captured() -> Event {
    Event::Captured(authorization())
}

fn voided() -> Event {
    Event::Voided(authorization())
}

fn refunded() -> Event {
    Event::Refunded(authorization())
}

fn declined() -> Event {
    Event::Declined {
        amount: eur(4500),
        reason: "payment declined".to_owned(),
    }
}

fn authorize() -> Command {
    Command::RecordAuthorization(authorization())
}

fn decline() -> Command {
    Command::RecordDecline {
        amount: eur(4500),
        reason: "payment declined".to_owned(),
    }
}

/// Every possible history of a payment after the provider's response.
fn histories() -> [Vec<Event>; 5] {
    [
        vec![authorized()],
        vec![declined()],
        vec![authorized(), captured()],
        vec![authorized(), voided()],
        vec![authorized(), captured(), refunded()],
    ]
}

#[test]
fn an_authorization_is_recorded() {
    given::<Payment>([]).when(&authorize()).then([authorized()]);
}

#[test]
fn a_decline_is_recorded_with_its_amount_and_reason() {
    given::<Payment>([]).when(&decline()).then([declined()]);
}

#[test]
fn the_provider_answers_once() {
    for history in histories() {
        for answer in [authorize(), decline()] {
            given::<Payment>(history.clone())
                .when(&answer)
                .then_rejected(&Rejection::OutOfOrder);
        }
    }
}

#[test]
fn what_was_authorized_is_captured() {
    given::<Payment>([authorized()])
        .when(&Command::RecordCapture)
        .then([captured()]);
}

#[test]
fn only_an_open_authorization_can_be_captured() {
    for history in [
        vec![],
        vec![declined()],
        vec![authorized(), captured()],
        vec![authorized(), voided()],
        vec![authorized(), captured(), refunded()],
    ] {
        given::<Payment>(history)
            .when(&Command::RecordCapture)
            .then_rejected(&Rejection::OutOfOrder);
    }
}

#[test]
fn an_authorization_is_voided() {
    given::<Payment>([authorized()])
        .when(&Command::RecordVoid)
        .then([voided()]);
}

#[test]
fn voiding_what_never_happened_or_is_used_or_undone_does_nothing() {
    for history in [
        vec![],
        vec![declined()],
        vec![authorized(), voided()],
        vec![authorized(), captured()],
        vec![authorized(), captured(), refunded()],
    ] {
        given::<Payment>(history)
            .when(&Command::RecordVoid)
            .then_nothing();
    }
}

#[test]
fn a_captured_payment_is_refunded() {
    given::<Payment>([authorized(), captured()])
        .when(&Command::RecordRefund)
        .then([refunded()]);
}

#[test]
fn refunding_what_was_never_taken_or_is_back_does_nothing() {
    for history in [
        vec![],
        vec![authorized()],
        vec![declined()],
        vec![authorized(), voided()],
        vec![authorized(), captured(), refunded()],
    ] {
        given::<Payment>(history)
            .when(&Command::RecordRefund)
            .then_nothing();
    }
}

#[test]
fn the_events_are_stored_in_exactly_these_forms() {
    let authorization = r#"{"reference":"auth_1","amount":{"amount":4500,"currency":"EUR"}}"#;
    let decline = r#"{"amount":{"amount":4500,"currency":"EUR"},"reason":"payment declined"}"#;
    for (event, name, json) in [
        (authorized(), "PaymentAuthorized", authorization),
        (declined(), "PaymentDeclined", decline),
        (captured(), "PaymentCaptured", authorization),
        (voided(), "PaymentVoided", authorization),
        (refunded(), "PaymentRefunded", authorization),
    ] {
        assert_eq!(stored(&event), (name.to_owned(), json.to_owned()));
    }
}
