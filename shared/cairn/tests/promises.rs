//! What the toolkit promises of commands, gates and steps, on a store in memory that is made to
//! misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use cairn::{
    Aggregate, Commit, Context, Decider, RecordedEvent, StreamId, Timestamp,
    event::Event as _,
    gate::{Advance, Delivered, Gated, deliver},
    handle::{HandleError, create, handle, load},
    saga::{Command as Tell, Definition, Due, Saga, State},
    step::{DueStep, Enlisted, Plan, cancel},
    store::{AppendError, EventStore, StoreError, memory::MemoryStore},
};
use serde::{Deserialize, Serialize};

/// An account that may not be overdrawn.
struct Account;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
enum Moved {
    Deposited { amount: i64 },
    Withdrawn { amount: i64 },
}

impl cairn::event::Event for Moved {}

enum Move {
    Deposit(i64),
    Withdraw(i64),
    /// Deposits what is missing to an amount.
    FillTo(i64),
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("overdrawn")]
struct Overdrawn;

impl Decider for Account {
    type State = i64;
    type Command = Move;
    type Event = Moved;
    type Rejection = Overdrawn;

    fn initial() -> i64 {
        0
    }

    fn decide(balance: &i64, command: &Move) -> Result<Vec<Moved>, Overdrawn> {
        match command {
            Move::Deposit(amount) => Ok(vec![Moved::Deposited { amount: *amount }]),
            Move::Withdraw(amount) if amount <= balance => {
                Ok(vec![Moved::Withdrawn { amount: *amount }])
            }
            Move::Withdraw(_) => Err(Overdrawn),
            Move::FillTo(to) if balance < to => Ok(vec![Moved::Deposited {
                amount: to - balance,
            }]),
            Move::FillTo(_) => Ok(vec![]),
        }
    }

    fn evolve(balance: i64, event: &Moved) -> i64 {
        match event {
            Moved::Deposited { amount } => balance + amount,
            Moved::Withdrawn { amount } => balance - amount,
        }
    }
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
}

fn account(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

fn context(id: &str) -> Context {
    Context {
        id: id.to_owned(),
        fingerprint: Some(format!("asks for {id}")),
        correlation: "test".to_owned(),
        causation: None,
        actor: None,
        traceparent: None,
        now: Timestamp::from_millis(1_000),
        patience: Duration::from_secs(5),
    }
}

/// A store that lets others in before an append, or loses the answer to one.
#[derive(Default)]
struct Faulty {
    store: MemoryStore,
    rivals: AtomicU32,
    loses_answer: AtomicBool,
    appends: AtomicU32,
}

impl EventStore for Faulty {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        self.appends.fetch_add(1, Ordering::Relaxed);
        let rivals = self.rivals.load(Ordering::Relaxed);
        if rivals > 0 {
            self.rivals.store(rivals - 1, Ordering::Relaxed);
            let deposit = Moved::Deposited { amount: 1 }.encode().unwrap();
            let rival = Commit {
                id: format!("rival-{rivals}"),
                events: vec![deposit],
                ..commits[0].clone()
            };
            self.store.append(&[rival]).await?;
        }
        self.store.append(commits).await?;
        if self.loses_answer.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the answer was lost".to_owned()).into());
        }
        Ok(())
    }

    async fn read(&self, stream: &StreamId, after: u64) -> Result<Vec<Commit>, StoreError> {
        self.store.read(stream, after).await
    }
}

#[tokio::test]
async fn a_command_is_decided_again_on_what_others_left() {
    let store = Faulty::default();
    let stream = account("a");
    handle::<Account>(&store, &stream, &Move::Deposit(10), &context("c1"))
        .await
        .unwrap();
    store.rivals.store(3, Ordering::Relaxed);
    let filled = handle::<Account>(&store, &stream, &Move::FillTo(20), &context("c2"))
        .await
        .unwrap();
    assert_eq!(
        (filled.state, filled.version, filled.replayed),
        (20, 5, false)
    );
}

#[tokio::test]
async fn a_command_that_begins_a_stream_is_one_append_and_no_read() {
    struct Unread(MemoryStore);
    impl EventStore for Unread {
        async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
            self.0.append(commits).await
        }
        async fn read(&self, _: &StreamId, _: u64) -> Result<Vec<Commit>, StoreError> {
            Err(StoreError::Refused("it was read".to_owned()))
        }
    }
    let store = Unread(MemoryStore::default());
    let opened = create::<Account>(&store, &account("a"), &Move::Deposit(1), &context("c1")).await;
    assert_eq!(opened.unwrap().version, 1);
}

#[tokio::test]
async fn a_refusal_is_taken_on_what_was_read_and_not_on_what_was_assumed() {
    let store = MemoryStore::default();
    let stream = account("a");
    for id in ["c1", "c2"] {
        handle::<Account>(&store, &stream, &Move::Deposit(5), &context(id))
            .await
            .unwrap();
    }
    let taken = create::<Account>(&store, &stream, &Move::Withdraw(10), &context("c3")).await;
    assert_eq!(taken.unwrap().state, 0);
    let again = create::<Account>(&store, &stream, &Move::Withdraw(10), &context("c3")).await;
    assert!(again.unwrap().replayed);
    let refused = create::<Account>(&store, &stream, &Move::Withdraw(1), &context("c4")).await;
    assert!(matches!(
        refused,
        Err(HandleError::Rejected { version: 3, .. })
    ));
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_finds_the_command_done() {
    let store = Faulty::default();
    let (stream, deposit) = (account("a"), Move::Deposit(10));
    store.loses_answer.store(true, Ordering::Relaxed);
    let lost = create::<Account>(&store, &stream, &deposit, &context("c1")).await;
    assert!(matches!(
        lost,
        Err(HandleError::Store(StoreError::Unavailable(_)))
    ));
    let again = create::<Account>(&store, &stream, &deposit, &context("c1"))
        .await
        .unwrap();
    assert_eq!((again.state, again.version, again.replayed), (10, 1, true));
}

#[tokio::test]
async fn a_repeated_command_is_answered_as_it_was_then() {
    let store = MemoryStore::default();
    let stream = account("a");
    for (id, amount) in [("c1", 10), ("c2", 5), ("c3", 1)] {
        handle::<Account>(&store, &stream, &Move::Deposit(amount), &context(id))
            .await
            .unwrap();
    }
    let again = handle::<Account>(&store, &stream, &Move::Deposit(5), &context("c2"))
        .await
        .unwrap();
    assert_eq!((again.state, again.version, again.replayed), (15, 2, true));
    assert_eq!(store.read(&stream, 0).await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_id_that_asks_for_something_else_is_refused() {
    let store = MemoryStore::default();
    let stream = account("a");
    handle::<Account>(&store, &stream, &Move::Deposit(1), &context("c1"))
        .await
        .unwrap();
    let other = Context {
        fingerprint: Some("something else".to_owned()),
        ..context("c1")
    };
    let refused = handle::<Account>(&store, &stream, &Move::Deposit(2), &other).await;
    assert!(matches!(refused, Err(HandleError::IdReused)));
}

#[tokio::test]
async fn a_refusal_and_a_command_with_nothing_to_do_write_nothing() {
    let store = Faulty::default();
    let stream = account("a");
    let refused = handle::<Account>(&store, &stream, &Move::Withdraw(1), &context("c1")).await;
    assert!(matches!(
        refused,
        Err(HandleError::Rejected {
            rejection: Overdrawn,
            version: 0
        })
    ));
    let nothing = handle::<Account>(&store, &stream, &Move::FillTo(0), &context("c2")).await;
    assert_eq!(nothing.unwrap().version, 0);
    assert_eq!(store.appends.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn endless_conflicts_end_with_the_patience_and_write_nothing() {
    let store = Faulty::default();
    store.rivals.store(u32::MAX, Ordering::Relaxed);
    let contended =
        handle::<Account>(&store, &account("a"), &Move::Deposit(1), &context("c1")).await;
    assert!(matches!(contended, Err(HandleError::Contended)));
    let history = store.read(&account("a"), 0).await.unwrap();
    assert!(history.iter().all(|commit| commit.id != "c1"));
}

#[tokio::test]
async fn time_never_goes_backwards_within_a_stream() {
    let store = MemoryStore::default();
    let stream = account("a");
    for (id, now) in [("c1", 2_000), ("c2", 1_000), ("c3", 3_000)] {
        let context = Context {
            now: Timestamp::from_millis(now),
            ..context(id)
        };
        handle::<Account>(&store, &stream, &Move::Deposit(1), &context)
            .await
            .unwrap();
    }
    let times = store.read(&stream, 0).await.unwrap();
    let times: Vec<_> = times.iter().map(|commit| commit.at.as_millis()).collect();
    assert_eq!(times, [2_000, 2_000, 3_000]);
}

/// A gate that remembers what it applied.
#[derive(Default)]
struct Remembering(Mutex<Vec<u64>>);

impl Gated for Remembering {
    async fn advance(&self, event: &RecordedEvent) -> Result<Advance, StoreError> {
        let mut applied = self.0.lock().unwrap();
        let at = applied.last().copied().unwrap_or(0);
        if event.version <= at {
            return Ok(Advance::Already);
        }
        if event.version > at + 1 {
            return Ok(Advance::Behind { at });
        }
        applied.push(event.version);
        Ok(Advance::Applied)
    }
}

/// A stream of commits with one, two and three events.
async fn six_events(store: &MemoryStore) -> Vec<RecordedEvent> {
    let stream = account("a");
    let mut version = 1;
    for events in 1..=3_u64 {
        let mut commit = Commit {
            stream: stream.clone(),
            version,
            id: format!("c{events}"),
            fingerprint: None,
            at: Timestamp::from_millis(0),
            correlation: "test".to_owned(),
            causation: None,
            actor: None,
            traceparent: None,
            events: vec![],
        };
        for _ in 0..events {
            commit
                .events
                .push(Moved::Deposited { amount: 1 }.encode().unwrap());
        }
        store.append(&[commit]).await.unwrap();
        version += events;
    }
    let commits = store.read(&stream, 0).await.unwrap();
    commits.iter().flat_map(Commit::recorded).collect()
}

#[tokio::test]
async fn an_event_is_applied_once_and_in_order_however_deliveries_come() {
    let store = MemoryStore::default();
    let events = six_events(&store).await;
    let gate = Remembering::default();
    let mut came = vec![];
    for version in [3, 1, 3, 2, 6, 5, 4, 6, 1] {
        came.push(deliver(&gate, &store, &events[version - 1]).await.unwrap());
    }
    assert_eq!(*gate.0.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(came[0], Delivered::Healed(2));
    assert_eq!(came[4], Delivered::Healed(2));
    assert_eq!(
        came.iter()
            .filter(|came| **came == Delivered::Duplicate)
            .count(),
        7
    );
}

#[tokio::test]
async fn an_event_that_the_store_does_not_have_is_an_error() {
    let store = MemoryStore::default();
    let events = six_events(&store).await;
    let gate = Remembering::default();
    let forged = RecordedEvent {
        version: 9,
        ..events[0].clone()
    };
    let error = deliver(&gate, &store, &forged).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// A saga of two steps that move money from one account to another.
#[derive(Clone, Debug, PartialEq)]
struct Transfer;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Step {
    Take,
    Give,
}

impl Definition for Transfer {
    type Step = Step;
    type Input = i64;
    const CATEGORY: &'static str = "transfer";
    const STEPS: &'static [Step] = &[Step::Take, Step::Give];
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];

    fn leaves_something(_: Step) -> bool {
        true
    }
}

fn transfer() -> StreamId {
    StreamId::new("transfer", "t").unwrap()
}

fn take(amount: i64) -> Plan {
    Plan::done(vec![Enlisted::new::<Account>(
        account("from"),
        Move::Withdraw(amount),
    )])
}

async fn balance(store: &impl EventStore, key: &str) -> i64 {
    load::<Account>(store, &account(key)).await.unwrap().state
}

async fn state(store: &impl EventStore) -> State<Transfer> {
    load::<Saga<Transfer>>(store, &transfer())
        .await
        .unwrap()
        .state
}

#[tokio::test]
async fn a_step_delivered_twice_at_once_has_one_effect() {
    let store = MemoryStore::default();
    handle::<Account>(&store, &account("from"), &Move::Deposit(10), &context("c"))
        .await
        .unwrap();
    let first = DueStep::<Transfer>::begin(&store, &transfer(), 4)
        .await
        .unwrap()
        .unwrap();
    let second = DueStep::<Transfer>::begin(&store, &transfer(), 4)
        .await
        .unwrap()
        .unwrap();
    assert!(first.record(&store, take(4), context("e1")).await.unwrap());
    assert!(!second.record(&store, take(4), context("e2")).await.unwrap());
    assert_eq!(balance(&store, "from").await, 6);
    assert_eq!(state(&store).await.due(), Some(Due::execute(Step::Give)));
    let late = DueStep::<Transfer>::load(&store, &transfer(), Due::execute(Step::Take)).await;
    assert!(late.unwrap().is_none());
}

#[tokio::test]
async fn a_refused_effect_fails_the_step_and_writes_nothing_else() {
    let store = MemoryStore::default();
    handle::<Account>(&store, &account("from"), &Move::Deposit(3), &context("c"))
        .await
        .unwrap();
    let due = DueStep::<Transfer>::begin(&store, &transfer(), 4)
        .await
        .unwrap()
        .unwrap();
    let mut plan = take(4);
    plan.enlist
        .push(Enlisted::new::<Account>(account("fee"), Move::Deposit(1)));
    assert!(due.record(&store, plan, context("e1")).await.unwrap());
    assert_eq!(
        (balance(&store, "from").await, balance(&store, "fee").await),
        (3, 0)
    );
    let reason = "overdrawn (from)".to_owned();
    assert_eq!(state(&store).await, State::Aborted { reason });
}

#[tokio::test]
async fn a_cancellation_that_comes_between_is_noted_and_the_due_step_still_recorded() {
    let store = MemoryStore::default();
    handle::<Account>(&store, &account("from"), &Move::Deposit(10), &context("c"))
        .await
        .unwrap();
    let begun = DueStep::<Transfer>::begin(&store, &transfer(), 4)
        .await
        .unwrap()
        .unwrap();
    begun.record(&store, take(4), context("e1")).await.unwrap();
    let (saga, give) = (transfer(), Due::execute(Step::Give));
    let due = DueStep::<Transfer>::load(&store, &saga, give)
        .await
        .unwrap()
        .unwrap();
    cancel::<Transfer>(&store, &transfer(), "enough", &context("e2"))
        .await
        .unwrap();
    assert_eq!(state(&store).await.due(), Some(Due::execute(Step::Give)));

    let give = Plan::done(vec![Enlisted::new::<Account>(
        account("to"),
        Move::Deposit(4),
    )]);
    assert!(due.record(&store, give, context("e3")).await.unwrap());
    assert_eq!(balance(&store, "to").await, 4);
    assert_eq!(state(&store).await.due(), Some(Due::compensate(Step::Give)));
}

#[tokio::test]
async fn a_saga_that_is_cancelled_before_it_begins_never_begins() {
    let store = MemoryStore::default();
    cancel::<Transfer>(&store, &transfer(), "enough", &context("e1"))
        .await
        .unwrap();
    let begun = DueStep::<Transfer>::begin(&store, &transfer(), 4)
        .await
        .unwrap();
    assert!(begun.is_none());
    let state = state(&store).await;
    assert!(state.has_ended());
    assert!(Saga::<Transfer>::decide(&state, &Tell::Start(4)).is_err());
}
