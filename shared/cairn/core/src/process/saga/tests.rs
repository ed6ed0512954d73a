//! The state of a saga, its next action, and a new step of the next release.

use serde::{Deserialize, Serialize};

use std::time::Duration;

use super::*;
use crate::{
    Aggregate, Decider, RecordedEvent, StreamId, System, Timestamp,
    deadlines::DeadlineChange,
    deadlines::Monitored as _,
    event::{self, Event as _, StoredEvent},
    metadata::Metadata,
    spec::given,
};

/// The steps of the release that only reads `Wrap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, crate::Step)]
enum Step {
    Pick,
    #[step(read_only)]
    Wrap,
    Send,
}

/// The steps of the next release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, crate::Step)]
enum NextStep {
    Pick,
    Wrap,
    Send,
}

/// The release that only reads a step.
#[derive(Clone, Debug, PartialEq)]
struct Reads;

impl Definition for Reads {
    type Step = Step;
    type Input = ();
    type Id = String;

    const CATEGORY: &'static str = "parcel";
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];
    const RETRIES: u32 = 1;
}

/// The next release.
#[derive(Clone, Debug, PartialEq)]
struct Writes;

impl Definition for Writes {
    type Step = NextStep;
    type Input = ();
    type Id = String;

    const CATEGORY: &'static str = "parcel";
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];
    const RETRIES: u32 = 1;
}

/// A stream that both releases read and write.
#[derive(Default)]
struct Stream(Vec<StoredEvent>);

impl Stream {
    fn state<D: Definition>(&self) -> State<D> {
        let events: Vec<_> = self
            .0
            .iter()
            .map(|stored| Event::decode(stored).unwrap())
            .collect();
        Saga::<D>::fold(&events)
    }

    /// Handles a command in the code of a release, and returns what is due then.
    fn handle<D: Definition>(&mut self, command: &Command<D>) -> Option<Due<D::Step>> {
        let events = Saga::<D>::decide(&self.state(), command).unwrap();
        self.0
            .extend(events.iter().map(|event| event.encode().unwrap()));
        self.state::<D>().due()
    }

    fn complete<D: Definition>(&mut self, step: D::Step) -> Option<Due<D::Step>> {
        self.handle(&Command::<D>::Complete(step, None))
    }

    fn undone<D: Definition>(&mut self, step: D::Step) -> Option<Due<D::Step>> {
        self.handle(&Command::<D>::Undone(step))
    }
}

#[test]
fn a_step_that_the_next_release_makes_due_is_executed_and_compensated_by_this_one() {
    let mut stream = Stream::default();
    stream.handle(&Command::<Writes>::Start(()));
    let wrap = stream.complete::<Writes>(NextStep::Pick);
    assert_eq!(wrap, Some(Due::execute(NextStep::Wrap)));
    let send = stream.complete::<Reads>(Step::Wrap);
    assert_eq!(send, Some(Due::execute(Step::Send)));
    assert_eq!(stream.complete::<Reads>(Step::Send), None);
    let phase = stream.state::<Reads>().phase;
    assert!(matches!(phase, Phase::Completed { .. }));

    let cancel = Command::<Reads>::Cancel("changed my mind".to_owned());
    assert_eq!(stream.handle(&cancel), Some(Due::compensate(Step::Send)));
    let wrap = stream.undone::<Reads>(Step::Send);
    assert_eq!(wrap, Some(Due::compensate(Step::Wrap)));
    let pick = stream.undone::<Reads>(Step::Wrap);
    assert_eq!(pick, Some(Due::compensate(Step::Pick)));
}

#[test]
fn a_step_that_is_only_read_is_not_made_due_and_not_compensated_later() {
    let mut stream = Stream::default();
    stream.handle(&Command::<Reads>::Start(()));
    let send = stream.complete::<Reads>(Step::Pick);
    assert_eq!(send, Some(Due::execute(Step::Send)));
    stream.complete::<Reads>(Step::Send);

    let cancel = Command::<Writes>::Cancel("changed my mind".to_owned());
    let send = stream.handle(&cancel);
    assert_eq!(send, Some(Due::compensate(NextStep::Send)));
    let pick = stream.undone::<Writes>(NextStep::Send);
    assert_eq!(pick, Some(Due::compensate(NextStep::Pick)));
}

/// The order of a parcel.
#[derive(Debug)]
struct Order;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
enum Ordered {
    Placed {},
    Packed {},
    Cancelled { by_saga: bool },
}

impl event::Event for Ordered {}

impl Decider for Order {
    type State = ();
    type Command = ();
    type Event = Ordered;
    type Rejection = ();

    fn initial() {}

    fn decide((): &(), (): &()) -> Result<Vec<Ordered>, ()> {
        Ok(vec![])
    }

    fn evolve((): (), _: &Ordered) {}
}

impl Aggregate for Order {
    type Id = String;

    const CATEGORY: &'static str = "order";
}

impl Triggered for Reads {
    type Source = Order;

    const METRICS: &'static str = "Parcels";

    fn signal(_: &StreamId, event: &Ordered) -> Option<Signal<()>> {
        match event {
            Ordered::Placed {} => Some(Signal::Start(())),
            Ordered::Packed {} => None,
            Ordered::Cancelled { by_saga } => Some(Signal::Cancel {
                reason: cause(),
                by_saga: *by_saga,
            }),
        }
    }
}

type Parcel = Saga<Reads>;

const TIMEOUT: Duration = Duration::from_secs(300);

fn cause() -> String {
    "changed my mind".to_owned()
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(minutes * 60_000)
}

fn start() -> Command<Reads> {
    Command::Start(())
}

fn complete(step: Step) -> Command<Reads> {
    Command::Complete(step, None)
}

fn cancel() -> Command<Reads> {
    Command::Cancel(cause())
}

fn undo_failed(step: Step) -> Command<Reads> {
    Command::UndoFailed(step, "call us".to_owned())
}

/// Returns the events of a saga after these commands.
fn history(commands: &[Command<Reads>]) -> Vec<Event<Reads>> {
    commands.iter().fold(vec![], |mut history, command| {
        let state = Parcel::fold(&history);
        history.extend(Parcel::decide(&state, command).unwrap());
        history
    })
}

fn state(commands: &[Command<Reads>]) -> State<Reads> {
    given::<Parcel>(history(commands)).state()
}

#[test]
fn a_cancellation_waits_for_the_outcome_of_the_step_that_is_due() {
    let begun = [start(), complete(Step::Pick), cancel()];
    let State { phase, reason, .. } = state(&begun);
    let (done, due) = (vec![Step::Pick], Step::Send);
    assert_eq!(
        (phase, reason),
        (Phase::Forward { done, due }, Some(cause()))
    );
    given::<Parcel>(history(&begun))
        .when(&complete(Step::Send))
        .then([Event::StepCompleted {
            step: Step::Send,
            detail: None,
            next: Some(Due::compensate(Step::Send)),
        }]);
}

#[test]
fn a_failure_after_a_cancellation_compensates_for_the_reason_of_the_cancellation() {
    let fail = Command::Fail(Step::Send, "too heavy".to_owned());
    let State { phase, reason, .. } = state(&[start(), complete(Step::Pick), cancel(), fail]);
    let expected = Phase::Backward {
        rest: vec![],
        due: Step::Pick,
        attempt: 0,
    };
    assert_eq!((phase, reason), (expected, Some(cause())));
}

#[test]
fn a_retry_counts_until_the_outcome_and_a_cancellation_does_not_reset_it() {
    let retry = Command::Retry(Due::execute(Step::Pick), 0);
    assert_eq!(state(&[start(), retry.clone()]).retries, 1);
    assert_eq!(state(&[start(), retry.clone(), cancel()]).retries, 1);
    assert_eq!(state(&[start(), retry, complete(Step::Pick)]).retries, 0);
}

#[test]
fn a_resumed_saga_attempts_the_stuck_step_once_more() {
    let mut commands = vec![start(), complete(Step::Pick), complete(Step::Send)];
    commands.extend([cancel(), undo_failed(Step::Send)]);
    let stuck = Phase::Stuck {
        rest: vec![Step::Pick],
        step: Step::Send,
        attempt: 0,
        failure: "call us".to_owned(),
    };
    assert_eq!(state(&commands).phase, stuck);
    commands.push(Command::Resume);
    let resumed = state(&commands);
    assert_eq!(resumed.attempt(), 1);
    assert_eq!(resumed.due(), Some(Due::compensate(Step::Send)));
    commands.push(Command::Undone(Step::Send));
    assert_eq!(state(&commands).attempt(), 0);
}

/// Returns the next action for an order with these events, and a saga after these commands whose
/// last event is of minute 0.
fn next_action(order: &[Ordered], saga: &[Command<Reads>], minute: i64) -> NextAction<Reads> {
    let mut trigger = Trigger::default();
    for event in order {
        trigger
            .follow::<Reads>(&recorded("order-1", event))
            .unwrap();
    }
    NextAction::new(&state(saga), &trigger, at(0), at(minute), TIMEOUT)
}

fn recorded(stream: &str, event: &impl event::Event) -> RecordedEvent {
    RecordedEvent {
        stream: stream.parse().unwrap(),
        version: 7,
        at: at(0),
        metadata: Metadata::default(),
        event: event.encode().unwrap(),
    }
}

const PLACED: &[Ordered] = &[Ordered::Placed {}];
const CANCELLED: &[Ordered] = &[
    Ordered::Placed {},
    Ordered::Cancelled { by_saga: false },
    Ordered::Packed {},
];

#[test]
fn a_saga_that_never_began_is_started_and_one_without_a_source_is_not() {
    assert_eq!(next_action(PLACED, &[], 5), NextAction::Start(()));
    assert_eq!(next_action(&[], &[], 5), NextAction::None);
}

#[test]
fn a_due_step_is_retried_after_its_timeout_which_doubles_with_each_retry() {
    let due = Due::execute(Step::Pick);
    let begun = [start()];
    assert_eq!(next_action(PLACED, &begun, 4), NextAction::Wait(at(5)));
    assert_eq!(next_action(PLACED, &begun, 5), NextAction::Retry(due, 0));
    let again = [start(), Command::Retry(due, 0)];
    assert_eq!(next_action(PLACED, &again, 9), NextAction::Wait(at(10)));
    assert_eq!(next_action(PLACED, &again, 10), NextAction::Retry(due, 1));
}

#[test]
fn a_saga_that_has_not_recorded_a_cancellation_compensates() {
    let completed = [start(), complete(Step::Pick), complete(Step::Send)];
    for saga in [&[], &completed[..1], &completed] {
        assert_eq!(next_action(CANCELLED, saga, 0), NextAction::Compensate);
    }
    let own = [Ordered::Placed {}, Ordered::Cancelled { by_saga: true }];
    assert_eq!(next_action(&own, &[], 0), NextAction::Compensate);
}

#[test]
fn a_saga_that_compensates_is_retried_and_a_stuck_one_is_left_to_an_operator() {
    let mut saga = vec![
        start(),
        complete(Step::Pick),
        complete(Step::Send),
        cancel(),
    ];
    let due = Due::compensate(Step::Send);
    assert_eq!(next_action(CANCELLED, &saga, 5), NextAction::Retry(due, 0));
    saga.push(undo_failed(Step::Send));
    assert_eq!(next_action(CANCELLED, &saga, 5), NextAction::Operator);
}

#[test]
fn a_saga_that_has_ended_needs_nothing() {
    let completed = [start(), complete(Step::Pick), complete(Step::Send)];
    assert_eq!(next_action(PLACED, &completed, 5), NextAction::None);
    assert_eq!(next_action(CANCELLED, &[cancel()], 5), NextAction::None);
}

fn change(event: &Event<Reads>) -> Option<DeadlineChange> {
    let update = deadline_update::<Reads>(&recorded("parcel-1", event), TIMEOUT).unwrap()?;
    assert_eq!((update.stream.as_str(), update.version), ("parcel-1", 7));
    Some(update.change)
}

#[test]
fn the_end_of_a_saga_closes_its_deadline_and_a_stuck_one_is_marked() {
    let (step, reason) = (Step::Pick, cause());
    for (event, expected) in [
        (Event::Completed {}, DeadlineChange::Closed),
        (Event::Aborted { reason: cause() }, DeadlineChange::Closed),
        (Event::Stuck { step, reason }, DeadlineChange::Stuck(at(0))),
    ] {
        assert_eq!(change(&event), Some(expected), "{event:?}");
    }
}

#[test]
fn a_saga_that_continues_after_its_end_opens_its_deadline_again() {
    let (step, due) = (Step::Pick, Due::compensate(Step::Pick));
    let (reason, next) = (cause(), Some(due));
    for event in [
        Event::CancelRequested {
            reason: cause(),
            next,
        },
        Event::Resumed { next: due },
        Event::StepAbandoned { step, reason, next },
    ] {
        assert_eq!(
            change(&event),
            Some(DeadlineChange::Open(at(5))),
            "{event:?}"
        );
    }
}

#[test]
fn a_step_on_the_way_writes_no_deadline() {
    let completed = Event::StepCompleted {
        step: Step::Pick,
        detail: None,
        next: Some(Due::execute(Step::Send)),
    };
    assert_eq!(change(&completed), None);
}

#[test]
fn the_audit_reads_both_streams_of_a_saga_that_has_not_ended() {
    let streams = |event: &Event<Reads>| Parcel::streams(&recorded("parcel-1", event)).unwrap();
    let (step, reason) = (Step::Pick, cause());
    let both = ["order-1", "parcel-1"].map(|stream| stream.parse::<StreamId>().unwrap());
    assert_eq!(streams(&Event::Stuck { step, reason }), both);
    assert_eq!(streams(&Event::Completed {}), []);
    let elsewhere = recorded("stock-1", &Ordered::Placed {});
    assert_eq!(Parcel::streams(&elsewhere).unwrap(), []);
}

#[test]
fn the_course_of_a_saga_names_its_steps_and_its_end() {
    let course = |commands: &[Command<Reads>]| {
        let events = history(commands);
        let events: Vec<_> = events
            .iter()
            .map(|event| recorded("parcel-1", event))
            .collect();
        Course::new::<Reads>(&events).unwrap()
    };
    let running = course(&[start(), complete(Step::Pick)]);
    assert_eq!(running.ending, None);
    assert_eq!(running.due.as_deref(), Some("execute of send"));
    assert_eq!(running.done, ["pick"]);

    let stuck = [
        start(),
        complete(Step::Pick),
        complete(Step::Send),
        cancel(),
    ];
    let stuck = course(&[&stuck[..], &[undo_failed(Step::Send)]].concat());
    assert_eq!(stuck.stuck_at(), Some("send"));
    assert_eq!(
        (stuck.due, stuck.done.len(), stuck.undone.len()),
        (None, 2, 0)
    );

    let completed = course(&[start(), complete(Step::Pick), complete(Step::Send)]);
    assert!(completed.is_completed() && !completed.is_aborted());
    assert_eq!(AnySaga::new::<Reads>().stuck, "Stuck");
}

#[test]
#[should_panic(expected = "two sagas have the streams `order`")]
fn a_second_saga_with_the_same_source_is_refused() {
    let _ = System::new("parcels").saga::<Reads>().saga::<Reads>();
}
