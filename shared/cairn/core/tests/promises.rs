//! The guarantees of commands, gates and steps, on an in-memory store with injected faults.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn::{
    Aggregate, Commit, Context, Decider, RecordedEvent, StreamId, System, Timestamp,
    event::Event as _,
    gate::{Advance, Checkpointed, Delivery, DeliveryError, deliver_all},
    past::{Moment, PastState},
    recent_commands::RecentCommands,
    repository::{HandleError, Handled, Repository},
    saga::{Command as Tell, Definition, Due, Phase, Saga, State},
    step::{DueStep, Enlisted, StepOutcome, cancel, testing::reach},
    store::{
        AppendError, Consistency, EventStore, ReadRange, StoreError, memory::MemoryStore, read_by,
    },
};
use serde_json::json;

/// An account that cannot be overdrawn.
#[derive(Debug)]
struct Account;

#[derive(Clone, Debug, PartialEq, cairn::Event)]
enum Moved {
    Deposited { amount: i64 },
    Withdrawn { amount: i64 },
}

enum Move {
    Deposit(i64),
    Withdraw(i64),
    /// Deposits the difference to an amount.
    FillTo(i64),
    /// Two deposits in one command.
    DepositBoth(i64, i64),
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("overdrawn")]
struct Overdrawn;

impl Decider for Account {
    type State = i64;
    type Command = Move;
    type Event = Moved;
    type Rejection = Overdrawn;

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
            Move::DepositBoth(one, other) => {
                let both = [one, other].map(|amount| Moved::Deposited { amount: *amount });
                Ok(both.to_vec())
            }
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
    type Id = String;

    const CATEGORY: &'static str = "account";
}

fn account(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

fn context(id: &str) -> Context {
    Context {
        fingerprint: Some(format!("asks for {id}")),
        ..Context::new(id, Timestamp::from_millis(1_000), Duration::from_secs(5))
    }
}

/// A store that can append a rival commit before an append, lose the response of one, and return
/// stale data to eventually consistent reads. It counts its calls.
#[derive(Default)]
struct Faulty {
    store: MemoryStore,
    rivals: AtomicU32,
    loses_answer: AtomicBool,
    /// The last version that an eventually consistent read returns; 0 means no limit.
    late: AtomicU64,
    appends: AtomicU32,
    reads: Mutex<Vec<(Consistency, usize)>>,
}

impl Faulty {
    /// Returns the reads since the last call, each with its number of commits.
    fn reads(&self) -> Vec<(Consistency, usize)> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    fn calls(&self) -> (u32, usize) {
        (self.appends.swap(0, Ordering::Relaxed), self.reads().len())
    }
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
                snapshot: None,
                ..commits[0].clone()
            };
            self.store.append(&[rival]).await?;
        }
        self.store.append(commits).await?;
        if self.loses_answer.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the response was lost".into()).into());
        }
        Ok(())
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        let late = self.late.load(Ordering::Relaxed);
        let until = match range.consistency {
            Consistency::Eventual if late > 0 => late.min(range.to),
            Consistency::Eventual | Consistency::Strong => range.to,
        };
        let read = self
            .store
            .read(
                stream,
                &ReadRange {
                    to: until,
                    ..*range
                },
            )
            .await?;
        let seen = (range.consistency, read.len());
        self.reads.lock().unwrap().push(seen);
        Ok(read)
    }
}

/// Handles a command with an empty cache, as a function does after a cold start.
async fn handle(
    store: &impl EventStore,
    stream: &StreamId,
    command: &Move,
    context: &Context,
) -> Result<Handled<Account>, HandleError<Overdrawn>> {
    Repository::new(store)
        .handle(stream, command, context)
        .await
}

async fn create(
    store: &impl EventStore,
    stream: &StreamId,
    command: &Move,
    context: &Context,
) -> Result<Handled<Account>, HandleError<Overdrawn>> {
    Repository::new(store)
        .create(stream, command, context)
        .await
}

async fn read(store: &impl EventStore, stream: &StreamId) -> Vec<Commit> {
    store.read(stream, &ReadRange::all()).await.unwrap()
}

async fn deposit_one(store: &impl EventStore, number: usize) {
    let context = context(&format!("c{number}"));
    let deposited = handle(store, &account("a"), &Move::Deposit(1), &context).await;
    assert!(!deposited.unwrap().replayed);
}

/// The state and version after a command, and true if it was replayed.
fn came_to(handled: &Handled<Account>) -> (i64, u64, bool) {
    let current = &handled.current;
    (current.state, current.version, handled.replayed)
}

#[tokio::test]
async fn a_command_is_decided_again_on_what_others_left() {
    let store = Faulty::default();
    let stream = account("a");
    handle(&store, &stream, &Move::Deposit(10), &context("c1"))
        .await
        .unwrap();
    store.rivals.store(3, Ordering::Relaxed);
    let filled = handle(&store, &stream, &Move::FillTo(20), &context("c2"))
        .await
        .unwrap();
    assert_eq!(came_to(&filled), (20, 5, false));
}

#[tokio::test]
async fn a_command_that_begins_a_stream_is_one_append_and_no_read() {
    struct Unread(MemoryStore);
    impl EventStore for Unread {
        async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
            self.0.append(commits).await
        }
        async fn read(&self, _: &StreamId, _: &ReadRange<'_>) -> Result<Vec<Commit>, StoreError> {
            Err(StoreError::Permanent("it was read".into()))
        }
    }
    let store = Unread(MemoryStore::default());
    let opened = create(&store, &account("a"), &Move::Deposit(1), &context("c1")).await;
    assert_eq!(came_to(&opened.unwrap()), (1, 1, false));
}

#[tokio::test]
async fn a_rejection_is_decided_on_a_strong_read_and_not_on_a_cached_state() {
    let store = MemoryStore::default();
    let stream = account("a");
    for id in ["c1", "c2"] {
        handle(&store, &stream, &Move::Deposit(5), &context(id))
            .await
            .unwrap();
    }
    let taken = create(&store, &stream, &Move::Withdraw(10), &context("c3")).await;
    assert_eq!(came_to(&taken.unwrap()), (0, 3, false));
    let again = create(&store, &stream, &Move::Withdraw(10), &context("c3")).await;
    assert!(again.unwrap().replayed);
    let refused = create(&store, &stream, &Move::Withdraw(1), &context("c4")).await;
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
    let lost = create(&store, &stream, &deposit, &context("c1")).await;
    assert!(matches!(
        lost,
        Err(HandleError::Store(StoreError::Unavailable(_)))
    ));
    let later = Context {
        now: Timestamp::from_millis(2_000),
        ..context("c1")
    };
    let again = create(&store, &stream, &deposit, &later).await.unwrap();
    assert_eq!(came_to(&again), (10, 1, true));
}

#[tokio::test]
async fn a_repeated_command_is_answered_as_it_was_then() {
    let store = MemoryStore::default();
    let stream = account("a");
    for (id, amount) in [("c1", 10), ("c2", 5), ("c3", 1)] {
        handle(&store, &stream, &Move::Deposit(amount), &context(id))
            .await
            .unwrap();
    }
    let again = handle(&store, &stream, &Move::Deposit(5), &context("c2"))
        .await
        .unwrap();
    assert_eq!(came_to(&again), (15, 2, true));
    assert_eq!(read(&store, &stream).await.len(), 3);
}

#[tokio::test]
async fn an_id_that_asks_for_something_else_is_refused() {
    let store = MemoryStore::default();
    let stream = account("a");
    handle(&store, &stream, &Move::Deposit(1), &context("c1"))
        .await
        .unwrap();
    let other = Context {
        fingerprint: Some("something else".to_owned()),
        ..context("c1")
    };
    let refused = handle(&store, &stream, &Move::Deposit(2), &other).await;
    assert!(matches!(refused, Err(HandleError::IdReused)));
}

#[tokio::test]
async fn a_refusal_and_a_command_with_nothing_to_do_write_nothing() {
    let store = Faulty::default();
    let stream = account("a");
    let refused = handle(&store, &stream, &Move::Withdraw(1), &context("c1")).await;
    assert!(matches!(
        refused,
        Err(HandleError::Rejected {
            rejection: Overdrawn,
            version: 0
        })
    ));
    let nothing = handle(&store, &stream, &Move::FillTo(0), &context("c2")).await;
    assert_eq!(came_to(&nothing.unwrap()), (0, 0, false));
    assert_eq!(store.appends.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_command_is_two_calls_at_any_length_and_one_where_the_stream_is_remembered() {
    let store = Faulty::default();
    let stream = account("a");
    let accounts = Repository::<Account, _>::new(&store);
    create(&store, &stream, &Move::Deposit(1), &context("c0"))
        .await
        .unwrap();
    assert_eq!(store.calls(), (1, 0));
    for n in 1..=100_i64 {
        let context = context(&format!("c{n}"));
        let deposited = handle(&store, &stream, &Move::Deposit(1), &context).await;
        let expected = (n + 1, n.unsigned_abs() + 1, false);
        assert_eq!(came_to(&deposited.unwrap()), expected);
        let reads = store.reads();
        let longest = usize::try_from(Account::SNAPSHOT_EVERY).unwrap();
        assert!(
            matches!(reads[..], [(Consistency::Eventual, commits)] if commits <= longest),
            "command {n}: {reads:?}"
        );
        assert_eq!(store.calls(), (1, 0), "cold, command {n}");
    }
    for n in 101..=120 {
        let context = context(&format!("c{n}"));
        let deposited = accounts.handle(&stream, &Move::Deposit(1), &context);
        assert_eq!(came_to(&deposited.await.unwrap()).0, n + 1);
        assert_eq!(
            store.calls(),
            (1, usize::from(n == 101)),
            "warm, command {n}"
        );
    }
}

/// Commits have one or two events, and earlier commands are repeated between them.
#[tokio::test]
async fn a_load_reads_one_interval_at_most_and_comes_to_the_fold_of_everything() {
    let store = Faulty::default();
    let stream = account("a");
    let accounts = Repository::<Account, _>::new(&store);
    let longest = usize::try_from(Account::SNAPSHOT_EVERY).unwrap();
    for n in 1..=200_i64 {
        let command = match n % 3 {
            0 => Move::Withdraw(1),
            1 => Move::Deposit(n),
            _ => Move::DepositBoth(n, 1),
        };
        accounts
            .handle(&stream, &command, &context(&format!("c{n}")))
            .await
            .unwrap();
        let whole = read(&store, &stream).await;
        store.reads();
        let loaded = accounts.load(&stream).await.unwrap();
        let reads = store.reads();
        assert!(reads[0].1 <= longest, "after {n}: {reads:?}");
        assert_eq!(loaded.state, folded(&whole, u64::MAX), "after {n}");
        if n > 20 {
            let earlier = format!("c{}", n - 20);
            let again = handle(&store, &stream, &Move::Deposit(0), &context(&earlier)).await;
            let again = again.unwrap();
            assert!(again.replayed, "{earlier}, after {n}");
            let version = again.current.version;
            assert_eq!(again.current.state, folded(&whole, version), "{earlier}");
        }
    }
    let whole = read(&store, &stream).await;
    for commit in &whole {
        for version in commit.version..=commit.last_version() {
            let then = accounts.load_at(&stream, version).await.unwrap();
            assert_eq!(
                (then.state, then.version),
                (folded(&whole, version), version)
            );
            let past = any_account(&store, &stream, Moment::Version(version)).await;
            assert_eq!(
                (past.state, past.version, past.at),
                (folded(&whole, version).into(), version, then.at())
            );
        }
    }
    let latest = any_account(&store, &stream, Moment::Latest).await;
    assert_eq!(latest.state, folded(&whole, u64::MAX));
}

/// Reads a state as a tool does that knows the aggregate only from the registry.
async fn any_account(store: &Faulty, stream: &StreamId, moment: Moment) -> PastState {
    let system = System::new("bank").aggregate::<Account>();
    let account = system.find_aggregate(stream.category()).unwrap();
    account.past(store, stream, moment).await.unwrap()
}

#[tokio::test]
async fn a_past_time_is_found_on_a_long_stream_with_few_reads() {
    const COMMITS: u64 = 3_000;
    let store = Arc::new(Faulty::default());
    let stream = account("long");
    for n in 1..=COMMITS {
        let command = match n % 3 {
            0 => Move::DepositBoth(1, 2),
            _ => Move::Deposit(1),
        };
        // Two commits have the same time.
        let now = Timestamp::from_millis(i64::try_from(n / 2 * 10).unwrap());
        let context = Context {
            now,
            ..context(&format!("c{n}"))
        };
        let accounts = Repository::<Account, _>::new(store.clone());
        accounts.handle(&stream, &command, &context).await.unwrap();
    }
    let whole = read(&store, &stream).await;
    let accounts = Repository::<Account, _>::new(store.clone());
    for at in [
        -1,
        0,
        5,
        10,
        11,
        3_333,
        7_490,
        14_980,
        14_999,
        15_000,
        i64::MAX,
    ] {
        let time = Timestamp::from_millis(at);
        let by_then = whole.iter().filter(|commit| commit.at <= time);
        let version = by_then.clone().next_back().map_or(0, Commit::last_version);
        store.reads();
        let then = accounts.load_by(&stream, time).await.unwrap();
        let reads = store.reads();
        assert_eq!(
            (then.version, then.state),
            (version, folded(&whole, version)),
            "at {at}"
        );
        let past = any_account(&store, &stream, Moment::Time(time)).await;
        assert_eq!((past.version, past.state), (version, then.state.into()));
        store.reads();
        // Two pages, and one read per step of the binary search.
        let every = Account::SNAPSHOT_EVERY as usize;
        let read: usize = reads.iter().map(|(_, commits)| commits).sum();
        assert!(reads.len() <= 2 + 12, "at {at}: {reads:?}");
        assert!(read <= 2 * every + 12, "at {at}: {reads:?}");

        store.reads();
        let commits = read_by(&store, &stream, time).await.unwrap();
        let read: usize = store.reads().iter().map(|(_, commits)| commits).sum();
        assert!(commits.iter().eq(by_then), "at {at}");
        assert!(read <= 2 * commits.len() + 32, "at {at}: {read}");
    }
}

#[tokio::test]
async fn the_past_of_a_short_stream_is_one_read() {
    let store = Arc::new(Faulty::default());
    let accounts = Repository::<Account, _>::new(store.clone());
    let stream = account("short");
    for n in 0..5 {
        let context = context(&format!("c{n}"));
        accounts
            .handle(&stream, &Move::Deposit(1), &context)
            .await
            .unwrap();
    }
    store.reads();
    for at in [0, 1_000, 2_000] {
        let time = Timestamp::from_millis(at);
        accounts.load_by(&stream, time).await.unwrap();
        assert_eq!(store.reads().len(), 1, "at {at}");
        read_by(&store, &stream, time).await.unwrap();
        assert_eq!(store.reads().len(), 1, "at {at}");
    }
}

fn folded(commits: &[Commit], version: u64) -> i64 {
    let events = commits
        .iter()
        .flat_map(Commit::recorded)
        .filter(|event| event.version <= version);
    let events: Vec<Moved> = events.map(|event| event.decode().unwrap()).collect();
    Account::fold(&events)
}

#[tokio::test]
async fn a_snapshot_is_what_a_load_begins_with() {
    let store = MemoryStore::default();
    let stream = account("a");
    let accounts = Repository::<Account, _>::new(&store);
    for n in 1..=16 {
        let context = context(&format!("c{n}"));
        accounts
            .handle(&stream, &Move::Deposit(1), &context)
            .await
            .unwrap();
    }
    // A snapshot that differs from the events.
    let mut commit = read(&store, &stream).await.pop().unwrap();
    let snapshot = commit.snapshot.as_mut().expect("commit 16 has a snapshot");
    snapshot.state = "1000".to_owned();
    commit.version += 1;
    store.append(&[commit]).await.unwrap();
    assert_eq!(accounts.load(&stream).await.unwrap().state, 1000);
}

#[tokio::test]
async fn snapshots_of_other_code_are_ignored_and_replaced_by_the_next_command() {
    let store = Faulty::default();
    let stream = account("a");
    let accounts = Repository::<Account, _>::new(&store);
    for n in 1..=40 {
        let context = context(&format!("c{n}"));
        accounts
            .handle(&stream, &Move::Deposit(1), &context)
            .await
            .unwrap();
    }
    let newer = Repository::<Recounted, _>::new(&store);
    assert_eq!(newer.load(&stream).await.unwrap().state, 40_000);
    let next = newer
        .handle(&stream, &Move::Deposit(1), &context("c41"))
        .await
        .unwrap();
    assert_eq!(next.current.state, 41_000);
    let last = read(&store, &stream).await.pop().unwrap();
    assert_eq!(last.snapshot.expect("a snapshot").state, "41000");
    assert_eq!(newer.load(&stream).await.unwrap().state, 41_000);
    assert_eq!(accounts.load(&stream).await.unwrap().state, 41);
}

/// An account with changed rules: the same events result in another state.
#[derive(Debug)]
struct Recounted;

impl Decider for Recounted {
    type State = i64;
    type Command = Move;
    type Event = Moved;
    type Rejection = Overdrawn;

    fn decide(thousandths: &i64, command: &Move) -> Result<Vec<Moved>, Overdrawn> {
        Account::decide(&(thousandths / 1000), command)
    }

    fn evolve(thousandths: i64, event: &Moved) -> i64 {
        thousandths + 1000 * Account::evolve(0, event)
    }
}

impl Aggregate for Recounted {
    type Id = String;

    const CATEGORY: &'static str = "account";
    const REVISION: u32 = 2;
}

#[tokio::test]
async fn a_late_read_costs_a_round_trip_and_never_a_wrong_answer() {
    let store = Faulty::default();
    let stream = account("a");
    for (id, command) in [
        ("c1", Move::Deposit(5)),
        ("c2", Move::Deposit(5)),
        ("c3", Move::Withdraw(10)),
    ] {
        handle(&store, &stream, &command, &context(id))
            .await
            .unwrap();
    }
    // The replica shows the first deposit only: the balance seems sufficient, but is 0.
    store.late.store(1, Ordering::Relaxed);
    let refused = handle(&store, &stream, &Move::Withdraw(3), &context("c4")).await;
    assert!(
        matches!(refused, Err(HandleError::Rejected { version: 3, .. })),
        "{refused:?}"
    );
    // The balance seems too low, but is sufficient.
    handle(&store, &stream, &Move::Deposit(8), &context("c5"))
        .await
        .unwrap();
    store.late.store(1, Ordering::Relaxed);
    let taken = handle(&store, &stream, &Move::Withdraw(8), &context("c6"))
        .await
        .unwrap();
    assert_eq!(came_to(&taken), (0, 5, false));
    // The replica does not show that the command was handled before.
    let again = handle(&store, &stream, &Move::Deposit(8), &context("c5"))
        .await
        .unwrap();
    assert_eq!(came_to(&again), (8, 4, true));
    assert_eq!(read(&store, &stream).await.len(), 5);
}

#[tokio::test]
async fn a_refusal_is_never_taken_on_a_late_read() {
    let store = Faulty::default();
    let stream = account("a");
    for id in ["c1", "c2"] {
        handle(&store, &stream, &Move::Deposit(5), &context(id))
            .await
            .unwrap();
    }
    store.late.store(1, Ordering::Relaxed);
    store.reads();
    let taken = handle(&store, &stream, &Move::Withdraw(10), &context("c3")).await;
    assert_eq!(came_to(&taken.unwrap()), (0, 3, false));
    let consistencies = |reads: Vec<(Consistency, usize)>| {
        let reads = reads.into_iter().map(|(consistency, _)| consistency);
        reads.collect::<Vec<_>>()
    };
    let rechecked = [Consistency::Eventual, Consistency::Strong];
    assert_eq!(consistencies(store.reads()), rechecked);
    let filled = handle(&store, &stream, &Move::FillTo(0), &context("c4")).await;
    assert_eq!(came_to(&filled.unwrap()), (0, 3, false));
    assert_eq!(consistencies(store.reads()), rechecked);
}

#[tokio::test]
async fn a_cached_state_can_be_stale_and_is_never_used_for_a_rejection() {
    let store = Faulty::default();
    let stream = account("a");
    let accounts = Repository::<Account, _>::new(&store);
    accounts
        .handle(&stream, &Move::Deposit(1), &context("c1"))
        .await
        .unwrap();
    for n in 2..=60 {
        deposit_one(&store, n).await;
    }
    let taken = accounts
        .handle(&stream, &Move::Withdraw(50), &context("d1"))
        .await;
    assert_eq!(came_to(&taken.unwrap()), (10, 61, false));
    for n in 62..=80 {
        deposit_one(&store, n).await;
    }
    let again = accounts
        .handle(&stream, &Move::Deposit(1), &context("c70"))
        .await;
    assert_eq!(came_to(&again.unwrap()), (19, 70, true));
}

#[tokio::test]
async fn a_conflict_one_behind_is_one_more_append_and_no_read() {
    let store = Faulty::default();
    let stream = account("a");
    let accounts = Repository::<Account, _>::new(&store);
    accounts
        .handle(&stream, &Move::Deposit(10), &context("c1"))
        .await
        .unwrap();
    store.calls();
    store.rivals.store(1, Ordering::Relaxed);
    let filled = accounts
        .handle(&stream, &Move::FillTo(20), &context("c2"))
        .await;
    assert_eq!(came_to(&filled.unwrap()), (20, 3, false));
    assert_eq!(store.calls(), (2, 0));
}

#[tokio::test]
async fn a_command_is_recognized_after_as_many_others_as_the_capacity() {
    let store = MemoryStore::default();
    let stream = account("a");
    handle(&store, &stream, &Move::Deposit(7), &context("c0"))
        .await
        .unwrap();
    for n in 1..RecentCommands::CAPACITY {
        deposit_one(&store, n).await;
        let again = handle(&store, &stream, &Move::Deposit(7), &context("c0")).await;
        assert_eq!(came_to(&again.unwrap()), (7, 1, true), "after {n} others");
        assert_eq!(read(&store, &stream).await.len(), 1 + n);
    }
    let other = Context {
        fingerprint: Some("something else".to_owned()),
        ..context("c9")
    };
    let refused = handle(&store, &stream, &Move::Deposit(1), &other).await;
    assert!(matches!(refused, Err(HandleError::IdReused)));
}

/// The commits of saga steps are recorded by the sagas, so they use no capacity.
#[tokio::test]
async fn a_command_is_recognized_after_any_number_of_commits_of_saga_steps() {
    let (store, accounts, sagas) = bank(1_000).await;
    for n in 0..2 * RecentCommands::CAPACITY {
        let saga = StreamId::new("transfer", &n.to_string()).unwrap();
        let due = DueStep::begin(&sagas, &saga, 1).await.unwrap().unwrap();
        let outcome = take(&accounts, 1);
        assert!(due.record(&sagas, outcome, context("e")).await.unwrap());
    }
    let (from, again) = (account("from"), Move::Deposit(1_000));
    let again = handle(&store, &from, &again, &context("c")).await;
    assert_eq!(came_to(&again.unwrap()), (1_000, 1, true));
}

#[tokio::test(start_paused = true)]
async fn endless_conflicts_end_with_the_time_budget_and_write_nothing() {
    let store = Faulty::default();
    store.rivals.store(u32::MAX, Ordering::Relaxed);
    let contended = handle(&store, &account("a"), &Move::Deposit(1), &context("c1")).await;
    assert!(matches!(contended, Err(HandleError::Contended)));
    let history = read(&store, &account("a")).await;
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
        handle(&store, &stream, &Move::Deposit(1), &context)
            .await
            .unwrap();
    }
    let times = read(&store, &stream).await;
    let times: Vec<_> = times.iter().map(|commit| commit.at.as_millis()).collect();
    assert_eq!(times, [2_000, 2_000, 3_000]);
}

#[derive(Default)]
struct Remembering(Mutex<Vec<u64>>);

impl Checkpointed for Remembering {
    fn target<'s>(&self, stream: &'s StreamId) -> Option<Cow<'s, str>> {
        Some(stream.as_str().into())
    }

    async fn advance(&self, events: &[&RecordedEvent]) -> Result<Advance, DeliveryError> {
        let mut applied = self.0.lock().unwrap();
        let at = applied.last().copied().unwrap_or(0);
        let first = events[0];
        if first.version != at + 1 {
            return Ok(Advance::NotNext([(first.stream.clone(), at)].into()));
        }
        applied.extend(events.iter().map(|event| event.version));
        Ok(Advance::Applied(events.len()))
    }
}

async fn deliver(
    gate: &Remembering,
    store: &MemoryStore,
    event: &RecordedEvent,
) -> Result<Delivery, Arc<DeliveryError>> {
    let delivered = deliver_all(gate, store, std::slice::from_ref(event)).await;
    delivered.into_iter().next().unwrap()
}

/// A stream of commits with one, two and three events.
async fn six_events(store: &MemoryStore) -> Vec<RecordedEvent> {
    let stream = account("a");
    let mut version = 1;
    for events in 1..=3_u64 {
        let (id, at) = (format!("c{events}"), Timestamp::from_millis(0));
        let mut commit = Commit::new(stream.clone(), version, id, at, vec![]);
        for _ in 0..events {
            commit
                .events
                .push(Moved::Deposited { amount: 1 }.encode().unwrap());
        }
        store.append(&[commit]).await.unwrap();
        version += events;
    }
    let commits = read(&store, &stream).await;
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
    assert_eq!(came[0], Delivery::CaughtUp(2));
    assert_eq!(came[4], Delivery::CaughtUp(2));
    assert_eq!(
        came.iter()
            .filter(|came| **came == Delivery::Duplicate)
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
    assert!(
        matches!(&*error, DeliveryError::Store(StoreError::Corrupt { .. })),
        "{error}"
    );
}

/// A saga of two steps that moves money from one account to another.
#[derive(Clone, Debug, PartialEq)]
struct Transfer;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, cairn::Step)]
enum Step {
    Take,
    #[step(read_only)]
    Check,
    Give,
    #[step(read_only)]
    Note,
}

impl Definition for Transfer {
    type Step = Step;
    type Input = i64;
    type Id = String;
    const CATEGORY: &'static str = "transfer";
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];
    const RETRIES: u32 = 1;
}

fn transfer() -> StreamId {
    StreamId::new("transfer", "t").unwrap()
}

type Accounts = Repository<Account, Arc<Faulty>>;
type Sagas = Repository<Saga<Transfer>, Arc<Faulty>>;

/// A store with an account and its balance, and the repositories of a step function.
async fn bank(balance: i64) -> (Arc<Faulty>, Accounts, Sagas) {
    let store = Arc::new(Faulty::default());
    handle(
        &store,
        &account("from"),
        &Move::Deposit(balance),
        &context("c"),
    )
    .await
    .unwrap();
    let (accounts, sagas) = (
        Repository::new(store.clone()),
        Repository::new(store.clone()),
    );
    (store, accounts, sagas)
}

#[tokio::test]
async fn a_test_reaches_each_step_also_those_that_are_only_read() {
    for step in [Step::Take, Step::Check, Step::Give, Step::Note] {
        for due in [Due::execute(step), Due::compensate(step)] {
            let (_, _, sagas) = bank(1).await;
            let reached = reach(&sagas, &transfer(), 1, due).await;
            assert_eq!(reached.action(), due.action, "{due:?}");
        }
    }
}

fn take(accounts: &Accounts, amount: i64) -> StepOutcome {
    let withdraw = Move::Withdraw(amount);
    StepOutcome::done(vec![Enlisted::new(accounts, &account("from"), withdraw)])
}

async fn begun(sagas: &Sagas) -> DueStep<Transfer> {
    let begun = DueStep::begin(sagas, &transfer(), 4).await.unwrap();
    begun.unwrap()
}

async fn balance(store: &Arc<Faulty>, key: &str) -> i64 {
    let accounts = Accounts::new(store.clone());
    accounts.load(&account(key)).await.unwrap().state
}

async fn state(store: &Arc<Faulty>) -> State<Transfer> {
    let sagas = Sagas::new(store.clone());
    sagas.load(&transfer()).await.unwrap().state
}

#[tokio::test]
async fn a_step_delivered_twice_at_once_has_one_effect() {
    let (store, accounts, sagas) = bank(10).await;
    let (first, second) = (begun(&sagas).await, begun(&sagas).await);
    let outcome = take(&accounts, 4);
    assert!(first.record(&sagas, outcome, context("e1")).await.unwrap());
    let outcome = take(&accounts, 4);
    let later = Context {
        now: Timestamp::from_millis(2_000),
        ..context("e2")
    };
    assert!(!second.record(&sagas, outcome, later).await.unwrap());
    assert_eq!(balance(&store, "from").await, 6);
    assert_eq!(state(&store).await.due(), Some(Due::execute(Step::Give)));
    let late = DueStep::<Transfer>::load(&sagas, &transfer(), Due::execute(Step::Take)).await;
    assert!(late.unwrap().is_none());
}

#[tokio::test]
async fn a_refused_effect_fails_the_step_and_writes_nothing_else() {
    let (store, accounts, sagas) = bank(3).await;
    let due = begun(&sagas).await;
    let mut outcome = take(&accounts, 4);
    let fee = Enlisted::new(&accounts, &account("fee"), Move::Deposit(1));
    outcome.enlist.push(fee);
    assert!(due.record(&sagas, outcome, context("e1")).await.unwrap());
    assert_eq!(
        (balance(&store, "from").await, balance(&store, "fee").await),
        (3, 0)
    );
    let reason = "overdrawn (from)".to_owned();
    let state = state(&store).await;
    assert_eq!((state.phase, state.reason), (Phase::Aborted, Some(reason)));
}

#[tokio::test]
async fn a_command_that_was_dropped_because_of_another_is_not_cached() {
    let (store, accounts, sagas) = bank(10).await;
    let due = begun(&sagas).await;
    let mut outcome = take(&accounts, 4);
    let empty = Enlisted::new(&accounts, &account("empty"), Move::Withdraw(1));
    outcome.enlist.push(empty);
    assert!(due.record(&sagas, outcome, context("e1")).await.unwrap());
    assert_eq!(balance(&store, "from").await, 10);

    let taken = accounts
        .handle(&account("from"), &Move::Withdraw(3), &context("c2"))
        .await;
    assert_eq!(came_to(&taken.unwrap()), (7, 2, false));
    assert_eq!(balance(&store, "from").await, 7);
}

#[tokio::test]
async fn an_enlisted_command_is_not_rejected_on_a_stale_state() {
    let (store, accounts, sagas) = bank(3).await;
    // The replica shows the balance before the second deposit.
    handle(&store, &account("from"), &Move::Deposit(3), &context("c2"))
        .await
        .unwrap();
    store.late.store(1, Ordering::Relaxed);
    let outcome = take(&accounts, 4);
    let due = begun(&sagas).await;
    assert!(due.record(&sagas, outcome, context("e1")).await.unwrap());
    assert_eq!(balance(&store, "from").await, 2);
    assert_eq!(state(&store).await.due(), Some(Due::execute(Step::Give)));
}

#[tokio::test]
async fn an_effect_that_loses_a_race_is_decided_again_on_what_won_without_a_read() {
    let (store, accounts, sagas) = bank(10).await;
    let due = begun(&sagas).await;
    let outcome = take(&accounts, 4);
    store.calls();
    store.rivals.store(1, Ordering::Relaxed);
    assert!(due.record(&sagas, outcome, context("e1")).await.unwrap());
    assert_eq!(store.calls(), (2, 1), "two appends, the account read once");
    assert_eq!(balance(&store, "from").await, 7);
}

#[tokio::test]
async fn a_cancellation_that_comes_between_is_noted_and_the_due_step_still_recorded() {
    let (store, accounts, sagas) = bank(10).await;
    let outcome = take(&accounts, 4);
    begun(&sagas)
        .await
        .record(&sagas, outcome, context("e1"))
        .await
        .unwrap();
    let give = Due::execute(Step::Give);
    let due = DueStep::<Transfer>::load(&sagas, &transfer(), give)
        .await
        .unwrap()
        .unwrap();
    cancel(&sagas, &transfer(), "enough", &context("e2"))
        .await
        .unwrap();
    assert_eq!(state(&store).await.due(), Some(Due::execute(Step::Give)));

    let deposit = Enlisted::new(&accounts, &account("to"), Move::Deposit(4));
    let give = StepOutcome::done(vec![deposit]);
    assert!(due.record(&sagas, give, context("e3")).await.unwrap());
    assert_eq!(balance(&store, "to").await, 4);
    assert_eq!(state(&store).await.due(), Some(Due::compensate(Step::Give)));
}

#[tokio::test]
async fn a_saga_that_is_cancelled_before_it_begins_never_begins() {
    let (store, _, sagas) = bank(10).await;
    cancel(&sagas, &transfer(), "enough", &context("e1"))
        .await
        .unwrap();
    let begun = DueStep::<Transfer>::begin(&sagas, &transfer(), 4)
        .await
        .unwrap();
    assert!(begun.is_none());
    let state = state(&store).await;
    assert!(state.has_ended());
    assert!(Saga::<Transfer>::decide(&state, &Tell::Start(4)).is_err());
}

/// The notes of a book. Version 2 of `NoteTaken` adds the author; it is read, and version 1 is
/// written.
#[derive(Debug)]
struct Notes;

#[derive(Clone, Debug, PartialEq, cairn::Event)]
enum Noted {
    #[event(
        upcasters(|data| json!({ "text": data["text"], "author": "unknown" })),
        read_only = |data| json!({ "text": data["text"] }),
    )]
    NoteTaken { text: String, author: String },
}

impl Decider for Notes {
    /// The authors of the notes.
    type State = Vec<String>;
    type Command = ();
    type Event = Noted;
    type Rejection = Overdrawn;

    fn decide(_: &Vec<String>, (): &()) -> Result<Vec<Noted>, Overdrawn> {
        let (text, author) = ("a note".to_owned(), "Ada".to_owned());
        Ok(vec![Noted::NoteTaken { text, author }])
    }

    fn evolve(mut authors: Vec<String>, event: &Noted) -> Vec<String> {
        let Noted::NoteTaken { author, .. } = event;
        authors.push(author.clone());
        authors
    }
}

impl Aggregate for Notes {
    type Id = String;

    const CATEGORY: &'static str = "notes";
    const SNAPSHOT_EVERY: u32 = 2;
}

/// The stored version has no author, so neither has the cached state, nor a snapshot.
#[tokio::test]
async fn the_state_after_an_append_is_the_state_that_a_load_returns() {
    let store = MemoryStore::default();
    let (notes, stream) = (
        Repository::<Notes, _>::new(&store),
        "notes-1".parse().unwrap(),
    );
    for count in 1..=3 {
        let context = context(&format!("c{count}"));
        let taken = notes.handle(&stream, &(), &context).await.unwrap();
        assert_eq!(taken.current.state, vec!["unknown"; count]);
        let loaded = notes.load(&stream).await.unwrap();
        assert_eq!(loaded.state, taken.current.state);
    }
}
