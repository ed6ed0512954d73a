//! The fulfilment saga: steps and compensations.

use std::time::Duration;

use cairn::{
    Decider as _,
    event::Event as _,
    saga::{Definition as _, Rejection, Step as _},
    spec::given,
};
use orders::fulfilment::{Command, Due, Event, Fulfilment, Phase, Saga, State, Step};

use crate::{
    fixtures::stored,
    sample_order::{ORDER, input},
};

const STEPS: &[Step] = Step::STEPS;

/// A saga and its history.
#[derive(Clone)]
struct Run {
    history: Vec<Event>,
}

impl Run {
    fn started() -> Self {
        let mut run = Self { history: vec![] };
        run.tell(&Command::Start(input()));
        run
    }

    /// Returns a run in which `step` is pending and all earlier steps are completed.
    fn up_to(step: Step) -> Self {
        let mut run = Self::started();
        for done in STEPS.iter().take_while(|other| **other != step) {
            run.tell(&complete(*done));
        }
        run
    }

    fn completed() -> Self {
        let mut run = Self::started();
        run.drive(succeeding);
        run
    }

    /// Returns a run before the first attempt of `due`.
    fn up_to_due(due: Due) -> Self {
        if due == Due::execute(due.step) {
            return Self::up_to(due.step);
        }
        let mut run = Self::completed().then(&cancel());
        while let Some(other) = run.state().due().filter(|other| *other != due) {
            run.tell(&succeeding(other));
        }
        run
    }

    /// Returns a run in which the compensation of a step has failed.
    fn stuck_at(step: Step) -> Self {
        let mut run = Self::completed().then(&cancel());
        run.drive(failing_at(Due::compensate(step)));
        run
    }

    /// Makes every retry of the pending step without an outcome.
    fn tried_in_vain(mut self, due: Due) -> Self {
        for tried in 0..Fulfilment::RETRIES {
            self.tell(&Command::Retry(due, tried));
        }
        self
    }

    fn then(mut self, command: &Command) -> Self {
        self.tell(command);
        self
    }

    fn tell(&mut self, command: &Command) {
        let state = Saga::fold(&self.history);
        self.history.extend(Saga::decide(&state, command).unwrap());
    }

    fn state(&self) -> State {
        Saga::fold(&self.history)
    }

    /// Records outcomes until nothing is pending, and returns what was pending, in order.
    fn drive(&mut self, outcome: impl Fn(Due) -> Command) -> Vec<Due> {
        let mut dues = vec![];
        while let Some(due) = self.state().due() {
            assert!(dues.len() < 2 * STEPS.len(), "endless saga: {dues:?}");
            self.tell(&outcome(due));
            dues.push(due);
        }
        dues
    }
}

fn succeeding(due: Due) -> Command {
    if due == Due::execute(due.step) {
        complete(due.step)
    } else {
        Command::Undone(due.step)
    }
}

/// Lets every step succeed except `broken`.
fn failing_at(broken: Due) -> impl Fn(Due) -> Command {
    move |due| {
        if due != broken {
            succeeding(due)
        } else if due == Due::execute(due.step) {
            fail(due.step)
        } else {
            undo_failed(due.step)
        }
    }
}

fn complete(step: Step) -> Command {
    Command::Complete(step, None)
}

fn fail(step: Step) -> Command {
    Command::Fail(step, "refused".to_owned())
}

fn undo_failed(step: Step) -> Command {
    Command::UndoFailed(step, "the provider is gone".to_owned())
}

fn cancel() -> Command {
    Command::Cancel("changed my mind".to_owned())
}

fn was_completed(step: Step, next: Option<Due>) -> Event {
    Event::StepCompleted {
        step,
        detail: None,
        next,
    }
}

fn was_aborted(reason: &str) -> Event {
    Event::Aborted {
        reason: reason.to_owned(),
    }
}

fn executions(steps: &[Step]) -> Vec<Due> {
    steps.iter().copied().map(Due::execute).collect()
}

fn compensations(steps: &[Step]) -> Vec<Due> {
    steps.iter().rev().copied().map(Due::compensate).collect()
}

/// Returns each step with the steps before it.
fn each_step() -> impl Iterator<Item = (Step, &'static [Step])> {
    (0..STEPS.len()).map(|index| (STEPS[index], &STEPS[..index]))
}

#[test]
fn it_begins_with_the_first_step() {
    given::<Saga>([])
        .when(&Command::Start(input()))
        .then([Event::Started {
            input: input(),
            next: Due::execute(Step::ScreenOrder),
        }]);
}

#[test]
fn it_begins_only_once() {
    let mut aborted = Run::started();
    aborted.drive(failing_at(Due::execute(Step::CapturePayment)));
    let mut stuck = Run::completed().then(&cancel());
    stuck.drive(failing_at(Due::compensate(Step::CapturePayment)));
    for run in [
        Run::started(),
        Run::started().then(&cancel()),
        Run::up_to(Step::ReserveStock).then(&fail(Step::ReserveStock)),
        Run::completed(),
        aborted,
        stuck,
    ] {
        given::<Saga>(run.history)
            .when(&Command::Start(input()))
            .then_rejected(&Rejection::AlreadyStarted);
    }
}

#[test]
fn a_completed_step_names_the_next() {
    for pair in STEPS.windows(2) {
        given::<Saga>(Run::up_to(pair[0]).history)
            .when(&complete(pair[0]))
            .then([was_completed(pair[0], Some(Due::execute(pair[1])))]);
    }
}

#[test]
fn the_last_step_completes_the_fulfilment() {
    given::<Saga>(Run::up_to(Step::ConfirmOrder).history)
        .when(&complete(Step::ConfirmOrder))
        .then([was_completed(Step::ConfirmOrder, None), Event::Completed {}]);
}

#[test]
fn the_detail_of_a_step_is_kept() {
    let detail = Some("auth_1".to_owned());
    given::<Saga>(Run::up_to(Step::AuthorizePayment).history)
        .when(&Command::Complete(Step::AuthorizePayment, detail.clone()))
        .then([Event::StepCompleted {
            step: Step::AuthorizePayment,
            detail,
            next: Some(Due::execute(Step::ArrangeShipment)),
        }]);
}

#[test]
fn when_all_goes_well_every_step_is_due_once_and_in_order() {
    let mut run = Run::started();
    assert_eq!(run.drive(succeeding), executions(STEPS));
    let (input, done) = (input(), STEPS.to_vec());
    assert_eq!(run.state().input, Some(input));
    assert_eq!(run.state().phase, Phase::Completed { done });
}

#[test]
fn a_failed_step_makes_the_one_before_it_due_for_its_compensation() {
    for pair in STEPS.windows(2) {
        given::<Saga>(Run::up_to(pair[1]).history)
            .when(&fail(pair[1]))
            .then([Event::StepFailed {
                step: pair[1],
                reason: "refused".to_owned(),
                next: Some(Due::compensate(pair[0])),
            }]);
    }
}

#[test]
fn a_first_step_that_fails_leaves_nothing_to_undo() {
    given::<Saga>(Run::started().history)
        .when(&fail(Step::ScreenOrder))
        .then([
            Event::StepFailed {
                step: Step::ScreenOrder,
                reason: "refused".to_owned(),
                next: None,
            },
            was_aborted("refused"),
        ]);
}

#[test]
fn a_failure_unwinds_the_completed_steps_in_reverse_order() {
    for (step, before) in each_step() {
        let mut run = Run::started();
        let dues = run.drive(failing_at(Due::execute(step)));
        let expected = [
            executions(before),
            vec![Due::execute(step)],
            compensations(before),
        ];
        assert_eq!(dues, expected.concat());
        let reason = "refused".to_owned();
        let state = run.state();
        assert_eq!((state.phase, state.reason), (Phase::Aborted, Some(reason)));
    }
}

#[test]
fn a_compensated_step_names_the_one_before_it_and_the_first_ends_the_unwinding() {
    let unwinding = Run::up_to(Step::AuthorizePayment).then(&fail(Step::AuthorizePayment));
    given::<Saga>(unwinding.clone().history)
        .when(&Command::Undone(Step::ReserveStock))
        .then([Event::StepCompensated {
            step: Step::ReserveStock,
            next: Some(Due::compensate(Step::ScreenOrder)),
        }]);
    let last = unwinding.then(&Command::Undone(Step::ReserveStock));
    given::<Saga>(last.history)
        .when(&Command::Undone(Step::ScreenOrder))
        .then([
            Event::StepCompensated {
                step: Step::ScreenOrder,
                next: None,
            },
            was_aborted("refused"),
        ]);
}

#[test]
fn a_cancellation_never_overtakes_the_step_that_is_due() {
    for step in STEPS {
        let run = Run::up_to(*step);
        given::<Saga>(run.clone().history)
            .when(&cancel())
            .then([Event::CancelRequested {
                reason: "changed my mind".to_owned(),
                next: None,
            }]);
        assert_eq!(run.then(&cancel()).state().due(), Some(Due::execute(*step)));
    }
}

#[test]
fn a_cancelled_saga_undoes_the_awaited_step_too_when_it_completes() {
    for (step, before) in each_step() {
        let mut run = Run::up_to(step).then(&cancel());
        given::<Saga>(run.clone().history)
            .when(&complete(step))
            .then([was_completed(step, Some(Due::compensate(step)))]);
        let expected = [
            vec![Due::execute(step), Due::compensate(step)],
            compensations(before),
        ];
        assert_eq!(run.drive(succeeding), expected.concat());
        assert_eq!(run.history.last(), Some(&was_aborted("changed my mind")));
    }
}

#[test]
fn a_cancelled_saga_undoes_only_what_was_done_when_the_awaited_step_fails() {
    for (step, before) in each_step() {
        let mut run = Run::up_to(step).then(&cancel());
        let expected = [vec![Due::execute(step)], compensations(before)];
        assert_eq!(run.drive(failing_at(Due::execute(step))), expected.concat());
        assert_eq!(run.history.last(), Some(&was_aborted("changed my mind")));
    }
}

#[test]
fn a_cancellation_after_the_end_unwinds_everything_from_the_confirmation_backwards() {
    let mut run = Run::completed();
    given::<Saga>(run.clone().history)
        .when(&cancel())
        .then([Event::CancelRequested {
            reason: "changed my mind".to_owned(),
            next: Some(Due::compensate(Step::ConfirmOrder)),
        }]);
    run.tell(&cancel());
    assert_eq!(run.drive(succeeding), compensations(STEPS));
    assert_eq!(run.history.last(), Some(&was_aborted("changed my mind")));
}

#[test]
fn a_saga_that_is_cancelled_before_its_start_never_starts() {
    given::<Saga>([])
        .when(&cancel())
        .then([was_aborted("changed my mind")]);
    given::<Saga>([was_aborted("changed my mind")])
        .when(&Command::Start(input()))
        .then_rejected(&Rejection::AlreadyStarted);
}

#[test]
fn cancelling_what_is_being_unwound_or_has_ended_does_nothing() {
    let unwinding = Run::up_to(Step::ReserveStock).then(&fail(Step::ReserveStock));
    let mut aborted = unwinding.clone();
    aborted.drive(succeeding);
    let stuck = unwinding.clone().then(&undo_failed(Step::ScreenOrder));
    for run in [Run::started().then(&cancel()), unwinding, aborted, stuck] {
        given::<Saga>(run.history).when(&cancel()).then_nothing();
    }
}

#[test]
fn a_compensation_that_fails_leaves_the_saga_stuck() {
    let reason = "the provider is gone".to_owned();
    let step = Step::ReserveStock;
    let unwinding = Run::up_to(Step::AuthorizePayment).then(&fail(Step::AuthorizePayment));
    given::<Saga>(unwinding.history)
        .when(&undo_failed(step))
        .then([
            Event::CompensationFailed {
                step,
                reason: reason.clone(),
            },
            Event::Stuck { step, reason },
        ]);
}

#[test]
fn a_stuck_saga_does_not_go_on_by_itself_whichever_compensation_failed() {
    for (step, _) in each_step() {
        let run = Run::stuck_at(step);
        assert_eq!(run.state().due(), None);
        assert!(run.state().has_ended());
        given::<Saga>(run.history)
            .when(&Command::Undone(step))
            .then_rejected(&Rejection::NotDue);
    }
}

#[test]
fn a_stuck_saga_that_is_resumed_retries_the_same_compensation_and_continues() {
    for (step, before) in each_step() {
        let mut run = Run::stuck_at(step);
        given::<Saga>(run.history.clone())
            .when(&Command::Resume)
            .then([Event::Resumed {
                next: Due::compensate(step),
            }]);
        run.tell(&Command::Resume);
        assert_eq!(run.state().attempt(), 1);
        let rest = [vec![Due::compensate(step)], compensations(before)];
        assert_eq!(run.drive(succeeding), rest.concat());
        assert_eq!(run.history.last(), Some(&was_aborted("changed my mind")));
    }
}

#[test]
fn a_saga_that_gets_stuck_again_has_another_round() {
    let mut run = Run::stuck_at(Step::ReserveStock);
    for attempt in 1..4 {
        run.tell(&Command::Resume);
        assert_eq!(run.state().attempt(), attempt);
        run.tell(&undo_failed(Step::ReserveStock));
    }
    run.tell(&Command::Resume);
    run.tell(&Command::Undone(Step::ReserveStock));
    assert_eq!(run.state().attempt(), 0, "attempts are counted per step");
}

#[test]
fn an_abandoned_step_stays_as_it_is_and_the_rest_is_undone() {
    for (step, before) in each_step() {
        let mut run = Run::stuck_at(step);
        run.tell(&Command::Abandon("refunded by hand".to_owned()));
        assert_eq!(run.drive(succeeding), compensations(before));
        assert_eq!(run.history.last(), Some(&was_aborted("changed my mind")));
    }
}

#[test]
fn only_a_stuck_saga_is_resumed_or_abandoned() {
    for run in [
        Run { history: vec![] },
        Run::started(),
        Run::started().then(&cancel()),
        Run::completed(),
        Run::completed().then(&cancel()),
    ] {
        for command in [Command::Resume, Command::Abandon("x".to_owned())] {
            given::<Saga>(run.history.clone())
                .when(&command)
                .then_rejected(&Rejection::NotStuck);
        }
    }
}

#[test]
fn what_has_no_outcome_is_asked_for_again_and_stays_due() {
    for due in STEPS
        .iter()
        .flat_map(|step| [Due::execute(*step), Due::compensate(*step)])
    {
        let mut run = Run::up_to_due(due);
        for retry in 1..=Fulfilment::RETRIES {
            given::<Saga>(run.history.clone())
                .when(&Command::Retry(due, retry - 1))
                .then([Event::StepRetried {
                    step: due.step,
                    retry,
                    next: due,
                }]);
            run.tell(&Command::Retry(due, retry - 1));
            assert_eq!(run.state().due(), Some(due));
        }
    }
}

#[test]
fn a_step_that_is_given_up_is_undone_with_those_before_it() {
    for (step, before) in each_step() {
        let due = Due::execute(step);
        let mut run = Run::up_to_due(due).tried_in_vain(due);
        given::<Saga>(run.history.clone())
            .when(&Command::Retry(due, Fulfilment::RETRIES))
            .then([Event::StepFailed {
                step,
                reason: "no outcome in time".to_owned(),
                next: Some(Due::compensate(step)),
            }]);
        run.tell(&Command::Retry(due, Fulfilment::RETRIES));
        let undone = [vec![Due::compensate(step)], compensations(before)];
        assert_eq!(run.drive(succeeding), undone.concat());
        assert_eq!(run.history.last(), Some(&was_aborted("no outcome in time")));
    }
}

#[test]
fn a_cancelled_saga_whose_awaited_step_is_given_up_keeps_the_reason_of_the_cancellation() {
    for (step, before) in each_step() {
        let due = Due::execute(step);
        let mut run = Run::up_to(step).then(&cancel()).tried_in_vain(due);
        run.tell(&Command::Retry(due, Fulfilment::RETRIES));
        let undone = [vec![Due::compensate(step)], compensations(before)];
        assert_eq!(run.drive(succeeding), undone.concat());
        assert_eq!(run.history.last(), Some(&was_aborted("changed my mind")));
    }
}

#[test]
fn a_compensation_that_is_given_up_leaves_the_saga_stuck() {
    for step in STEPS {
        let due = Due::compensate(*step);
        let run = Run::up_to_due(due).tried_in_vain(due);
        let reason = "no outcome in time".to_owned();
        given::<Saga>(run.history)
            .when(&Command::Retry(due, Fulfilment::RETRIES))
            .then([
                Event::CompensationFailed {
                    step: *step,
                    reason: reason.clone(),
                },
                Event::Stuck {
                    step: *step,
                    reason,
                },
            ]);
    }
}

#[test]
fn a_retry_of_what_is_not_due_or_was_retried_meanwhile_is_refused() {
    let due = Due::execute(Step::ReserveStock);
    let run = Run::up_to(Step::ReserveStock);
    let retried = run.clone().then(&Command::Retry(due, 0));
    for (run, command) in [
        (run.clone(), Command::Retry(due, 1)),
        (
            run.clone(),
            Command::Retry(Due::execute(Step::ScreenOrder), 0),
        ),
        (run, Command::Retry(Due::compensate(Step::ReserveStock), 0)),
        (retried, Command::Retry(due, 0)),
        (Run { history: vec![] }, Command::Retry(due, 0)),
        (Run::completed(), Command::Retry(due, 0)),
    ] {
        given::<Saga>(run.history)
            .when(&command)
            .then_rejected(&Rejection::NotDue);
    }
}

#[test]
fn retries_are_counted_for_each_step_by_itself_and_the_timeout_doubles_with_each() {
    let due = Due::execute(Step::ReserveStock);
    let first = Duration::from_mins(5);
    let mut run = Run::up_to(Step::ReserveStock);
    for times in [1, 2, 4] {
        assert_eq!(run.state().step_timeout(first), first * times);
        run.tell(&Command::Retry(due, run.state().retries));
    }
    run.tell(&complete(Step::ReserveStock));
    assert_eq!(run.state().step_timeout(first), first);
}

#[test]
fn a_step_told_twice_is_refused() {
    for pair in STEPS.windows(2) {
        let run = Run::up_to(pair[1]);
        for again in [complete(pair[0]), fail(pair[0])] {
            given::<Saga>(run.clone().history)
                .when(&again)
                .then_rejected(&Rejection::NotDue);
        }
    }
    given::<Saga>(Run::completed().history)
        .when(&complete(Step::ConfirmOrder))
        .then_rejected(&Rejection::NotDue);
}

#[test]
fn a_compensation_told_twice_is_refused() {
    let run = Run::up_to(Step::AuthorizePayment)
        .then(&fail(Step::AuthorizePayment))
        .then(&Command::Undone(Step::ReserveStock));
    for again in [
        Command::Undone(Step::ReserveStock),
        undo_failed(Step::ReserveStock),
    ] {
        given::<Saga>(run.clone().history)
            .when(&again)
            .then_rejected(&Rejection::NotDue);
    }
}

#[test]
fn a_step_that_is_due_forward_cannot_be_undone_nor_the_other_way_round() {
    let forward = Run::up_to(Step::ReserveStock);
    let back = forward.clone().then(&fail(Step::ReserveStock));
    for (run, wrong) in [
        (forward.clone(), Command::Undone(Step::ReserveStock)),
        (forward, undo_failed(Step::ReserveStock)),
        (back.clone(), complete(Step::ScreenOrder)),
        (back, fail(Step::ScreenOrder)),
    ] {
        given::<Saga>(run.history)
            .when(&wrong)
            .then_rejected(&Rejection::NotDue);
    }
}

#[test]
fn nothing_is_due_before_the_start() {
    for step in STEPS {
        for outcome in [
            complete(*step),
            fail(*step),
            Command::Undone(*step),
            undo_failed(*step),
        ] {
            given::<Saga>([])
                .when(&outcome)
                .then_rejected(&Rejection::NotDue);
        }
    }
}

#[test]
fn a_step_has_one_name_in_storage_in_rules_and_in_the_api() {
    for step in STEPS {
        assert_eq!(
            serde_json::to_value(step).unwrap(),
            serde_json::json!(step.name())
        );
    }
}

#[test]
fn the_events_are_stored_under_these_names() {
    let (step, reason) = (Step::ScreenOrder, String::new());
    let next = None;
    let names = [
        Event::Started {
            input: input(),
            next: Due::execute(step),
        },
        was_completed(step, next),
        Event::StepFailed {
            step,
            reason: reason.clone(),
            next,
        },
        Event::StepCompensated { step, next },
        Event::CompensationFailed {
            step,
            reason: reason.clone(),
        },
        Event::CancelRequested {
            reason: reason.clone(),
            next,
        },
        Event::Completed {},
        was_aborted(&reason),
        Event::StepRetried {
            step,
            retry: 1,
            next: Due::execute(step),
        },
        Event::StepAbandoned {
            step,
            reason: reason.clone(),
            next,
        },
        Event::Resumed {
            next: Due::compensate(step),
        },
        Event::Stuck { step, reason },
    ]
    .map(|event| stored(&event).0);
    assert_eq!(
        names,
        [
            "FulfilmentStarted",
            "StepCompleted",
            "StepFailed",
            "StepCompensated",
            "CompensationFailed",
            "FulfilmentCancellationNoted",
            "FulfilmentCompleted",
            "FulfilmentAborted",
            "StepRetried",
            "StepAbandoned",
            "FulfilmentResumed",
            "FulfilmentStuck",
        ]
    );
}

#[test]
fn the_start_is_stored_in_exactly_this_form() {
    let started = Run::started().history.remove(0);
    let lines = concat!(
        r#"[{"sku":"TEA-01","quantity":2,"unitPrice":{"amount":1250,"currency":"EUR"}},"#,
        r#"{"sku":"CUP-07","quantity":1,"unitPrice":{"amount":900,"currency":"EUR"}},"#,
        r#"{"sku":"TEA-01","quantity":1,"unitPrice":{"amount":1100,"currency":"EUR"}}]"#,
    );
    let json = format!(
        r#"{{"input":{{"orderId":"{ORDER}","customerId":"c-42","lines":{lines},"paymentToken":"tok_visa"}},"next":{{"step":"screen-order","action":"execute"}}}}"#
    );
    let encoded = started.encode().unwrap();
    assert_eq!(encoded.name, "FulfilmentStarted");
    assert_eq!(encoded.data.get(), json);
    assert_eq!(Event::decode(&encoded).unwrap(), started);
}

#[test]
fn what_is_due_next_stands_in_the_stored_event() {
    for (event, json) in [
        (
            Event::StepCompleted {
                step: Step::AuthorizePayment,
                detail: Some("auth_1".to_owned()),
                next: Some(Due::execute(Step::ArrangeShipment)),
            },
            r#"{"step":"authorize-payment","detail":"auth_1","next":{"step":"arrange-shipment","action":"execute"}}"#,
        ),
        (
            was_completed(Step::ScreenOrder, Some(Due::compensate(Step::ScreenOrder))),
            r#"{"step":"screen-order","next":{"step":"screen-order","action":"compensate"}}"#,
        ),
        (
            was_completed(Step::ConfirmOrder, None),
            r#"{"step":"confirm-order"}"#,
        ),
        (
            Event::StepRetried {
                step: Step::ScreenOrder,
                retry: 2,
                next: Due::execute(Step::ScreenOrder),
            },
            r#"{"step":"screen-order","retry":2,"next":{"step":"screen-order","action":"execute"}}"#,
        ),
        (Event::Completed {}, "{}"),
    ] {
        let encoded = event.encode().unwrap();
        assert_eq!(encoded.data.get(), json);
        assert_eq!(Event::decode(&encoded).unwrap(), event);
    }
}
