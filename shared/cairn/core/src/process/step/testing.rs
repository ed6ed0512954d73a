//! Helpers for tests of functions on a store in memory.

use std::{fmt::Display, time::Duration};

use crate::{
    commit::Context,
    decider::{Aggregate, Decider},
    repository::Repository,
    saga::{Action, Command, Definition, Due, Event, Phase, Saga, State, Step},
    step::{DueStep, StepHandler},
    store::EventStore,
    stream::StreamId,
    timestamp::Timestamp,
};

/// Starts a saga and records the success of each step before `due`, without its effects. To reach a
/// compensation, it cancels the completed saga. A step that this release only reads becomes due as
/// in the next release.
///
/// # Panics
/// Panics if the step never becomes due, or if the store fails.
pub async fn reach<D: Definition, S: EventStore + Clone>(
    sagas: &Repository<Saga<D>, S>,
    stream: &StreamId,
    input: D::Input,
    due: Due<D::Step>,
) -> DueStep<D> {
    let mut command = Command::Start(input);
    for number in 0.. {
        let saga = sagas.load(stream).await;
        let saga = saga.unwrap_or_else(|error| panic!("{error}"));
        let events = Saga::decide(&saga.state, &command);
        let mut events = events.unwrap_or_else(|error| panic!("{error}"));
        make_due(&mut events, due.step);
        let (context, fingerprint) = (context(number), sagas.state_fingerprint());
        let commit = saga.commit(&context, &events, false, fingerprint);
        let (commit, saga) = commit.unwrap_or_else(|error| panic!("{error}"));
        let appended = sagas.store().append(&[commit]).await;
        appended.unwrap_or_else(|error| panic!("{error}"));
        if saga.state.due() == Some(due) {
            break;
        }
        command = success(&saga.state);
    }
    let loaded = DueStep::load(sagas, stream, due).await;
    match loaded {
        Ok(Some(due)) => due,
        Ok(None) => panic!("{due:?} is not due"),
        Err(error) => panic!("{error}"),
    }
}

/// Performs a step that is due and records its outcome. Returns the saga after it.
///
/// # Panics
/// Panics if the step stays due, or if the store fails.
pub async fn perform<D: Definition, S: EventStore + Clone>(
    sagas: &Repository<Saga<D>, S>,
    due: DueStep<D>,
    handler: &impl StepHandler<D>,
) -> State<D> {
    let stream = due.saga().0.clone();
    let outcome = due.perform(handler).await;
    let outcome = outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let recorded = due.record(sagas, outcome, context(200)).await;
    let recorded = recorded.unwrap_or_else(|error| panic!("{error}"));
    assert!(recorded, "the saga has moved on");
    let saga = sagas.load(&stream).await;
    saga.unwrap_or_else(|error| panic!("{error}")).state
}

/// Handles commands on a stream, as its history before the test.
///
/// # Panics
/// Panics if a command is rejected, or if the store fails.
pub async fn given<A, S>(streams: &Repository<A, S>, stream: &StreamId, commands: &[A::Command])
where
    A: Aggregate<Rejection: Display>,
    S: EventStore + Clone,
{
    for (number, command) in (100..).zip(commands) {
        let handled = streams.handle(stream, command, &context(number)).await;
        handled.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Returns a context whose id has this number.
pub fn context(number: u64) -> Context {
    let now = Timestamp::from_millis(0);
    Context::new(format!("test/{number}"), now, Duration::from_secs(1))
}

/// Makes a step that is only read due after the step before it.
fn make_due<D: Definition>(events: &mut Vec<Event<D>>, new: D::Step) {
    let mut read_only = D::Step::READ_ONLY_STEPS.iter();
    let Some((_, follower)) = read_only.find(|(step, _)| *step == new) else {
        return;
    };
    if let Some(Event::StepCompleted { step, next, .. }) = events.first_mut()
        && *step != new
        && *next == follower.map(Due::execute)
    {
        *next = Some(Due::execute(new));
        // After the last step, the saga has not completed yet.
        events.truncate(1);
    }
}

fn success<D: Definition>(state: &State<D>) -> Command<D> {
    assert!(state.phase != Phase::Aborted, "the saga ended");
    match state.due() {
        Some(due) => match due.action {
            Action::Execute => Command::Complete(due.step, None),
            Action::Compensate => Command::Undone(due.step),
        },
        None => Command::Cancel("test".to_owned()),
    }
}
