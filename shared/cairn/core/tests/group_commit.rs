//! Commands and steps in groups: their results are those of handling one after the other.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cairn::{
    Aggregate, Commit, Context, Decider, RecordedEvent, StreamId, Timestamp,
    repository::{HandleError, Handled, Repository},
    saga::{Definition, Phase, Saga},
    step::{
        DueStep, Enlisted, StepDecider, StepError, StepOutcome,
        group::{GroupedStepError, execute_all},
    },
    store::{
        AppendError, EventStore, Quota, ReadRange, StoreError, group::GroupCommit,
        memory::MemoryStore,
    },
};
use fastrand::Rng;
use futures_util::future::join_all;

/// Places that can be sold out.
#[derive(Debug)]
struct Places;

#[derive(Clone, Debug, PartialEq, cairn::Event)]
enum Changed {
    Added { places: u64 },
    Taken { places: u64 },
}

#[derive(Clone, Debug)]
enum Change {
    Add(u64),
    /// One event per place.
    Take(u64),
    /// Adds the difference to a number.
    FillTo(u64),
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("sold out")]
struct SoldOut;

impl Decider for Places {
    type State = u64;
    type Command = Change;
    type Event = Changed;
    type Rejection = SoldOut;

    fn decide(free: &u64, command: &Change) -> Result<Vec<Changed>, SoldOut> {
        match *command {
            Change::Add(places) => Ok(vec![Changed::Added { places }]),
            Change::Take(places) if places > *free => Err(SoldOut),
            Change::Take(places) => Ok((0..places).map(|_| Changed::Taken { places: 1 }).collect()),
            Change::FillTo(to) if *free < to => Ok(vec![Changed::Added { places: to - free }]),
            Change::FillTo(_) => Ok(vec![]),
        }
    }

    fn evolve(free: u64, event: &Changed) -> u64 {
        match event {
            Changed::Added { places } => free + places,
            Changed::Taken { places } => free - places,
        }
    }
}

impl Aggregate for Places {
    type Id = String;

    const CATEGORY: &'static str = "places";
}

fn places(key: &str) -> StreamId {
    StreamId::new("places", key).unwrap()
}

/// A store whose calls take a round trip of virtual time, so that writers meet. It can lose calls
/// before and after they take effect, and it can reject large appends.
struct Remote {
    store: MemoryStore,
    /// Of 100 appends, the number that fail.
    failing: u32,
    most: usize,
    calls: AtomicU32,
    conflicts: AtomicU32,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            store: MemoryStore::default(),
            failing: 0,
            most: usize::MAX,
            calls: AtomicU32::new(0),
            conflicts: AtomicU32::new(0),
        }
    }
}

impl Remote {
    async fn travel(&self) {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..5))).await;
    }

    fn fails(&self) -> Result<(), StoreError> {
        if fastrand::u32(..100) < self.failing {
            return Err(StoreError::Unavailable("the call was lost".into()));
        }
        Ok(())
    }
}

impl EventStore for Remote {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if commits.len() > self.most {
            return Err(StoreError::Permanent("too large".into()).into());
        }
        self.travel().await;
        self.fails()?;
        let appended = self.store.append(commits).await;
        if matches!(appended, Err(AppendError::Conflict(_))) {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        self.travel().await;
        self.fails()?;
        appended
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.travel().await;
        let read = self.store.read(stream, range).await;
        self.travel().await;
        read
    }
}

fn any_command(random: &mut Rng) -> Change {
    match random.u32(..4) {
        0 => Change::Add(random.u64(1..6)),
        1 => Change::FillTo(random.u64(1..6)),
        _ => Change::Take(random.u64(1..4)),
    }
}

fn context(id: &str, fingerprint: &str) -> Context {
    let now = Timestamp::from_millis(1_000);
    Context {
        fingerprint: Some(fingerprint.to_owned()),
        ..Context::new(id, now, Duration::from_secs(600))
    }
}

/// Commands of which some are repeated, and some have the id of another command.
fn any_commands(random: &mut Rng, count: usize) -> Vec<(Change, Context)> {
    let mut commands: Vec<(Change, Context)> = vec![];
    for number in 0..count {
        let former = (number > 0).then(|| commands[random.usize(..number)].clone());
        commands.push(match (random.u32(..8), former) {
            (0, Some(former)) => former,
            (1, Some((command, former))) => (command, context(&former.id, "another request")),
            _ => {
                let id = format!("c{number}");
                (any_command(random), context(&id, &id))
            }
        });
    }
    commands
}

fn shown(result: &Result<Handled<Places>, HandleError<SoldOut>>) -> String {
    match result {
        Ok(handled) => {
            let (current, replayed) = (&handled.current, handled.replayed);
            let recorded = handled.is_recorded;
            let (free, version) = (current.state, current.version);
            format!("{free} free at {version}, replayed {replayed}, recorded {recorded}")
        }
        Err(error) => error.to_string(),
    }
}

async fn stored(store: &impl EventStore, stream: &StreamId) -> Vec<Commit> {
    store.read(stream, &ReadRange::all()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn commands_in_groups_have_the_results_and_commits_of_one_after_the_other() {
    for seed in 0..20 {
        let mut random = Rng::with_seed(seed);
        let commands = any_commands(&mut random, 120);
        let stream = places("a");
        let (alone, grouped) = (MemoryStore::default(), MemoryStore::default());
        let streams = Repository::<Places, _>::new(&alone);
        let mut expected = vec![];
        for (command, context) in &commands {
            expected.push(shown(&streams.handle(&stream, command, context).await));
        }
        let streams = Repository::<Places, _>::new(Arc::new(grouped));
        let (mut results, mut rest) = (vec![], &commands[..]);
        while !rest.is_empty() {
            let (group, after) = rest.split_at(random.usize(1..=rest.len()));
            let handled = streams.handle_all(&stream, group).await.unwrap();
            results.extend(handled.iter().map(shown));
            rest = after;
        }
        assert_eq!(results, expected, "seed {seed}");
        let grouped = stored(streams.store(), &stream).await;
        assert_eq!(grouped, stored(&alone, &stream).await, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_is_one_read_and_one_append() {
    let store = Arc::new(Remote::default());
    let streams = Repository::<Places, _>::new(store.clone());
    let most = Repository::<Places, Arc<Remote>>::MOST_TOGETHER;
    let commands: Vec<_> = (0..most)
        .map(|number| (Change::Add(1), context(&number.to_string(), "add")))
        .collect();
    let handled = streams.handle_all(&places("a"), &commands).await.unwrap();
    assert!(handled.iter().all(Result::is_ok));
    assert_eq!(store.calls.load(Ordering::Relaxed), 2);
    assert_eq!(stored(&store.store, &places("a")).await.len(), most);
}

/// A group that a store rejects must not make its commands fail.
#[tokio::test(start_paused = true)]
async fn the_commands_of_a_rejected_group_are_handled_alone() {
    let remote = Remote {
        most: 2,
        ..Remote::default()
    };
    let store = Arc::new(remote);
    let streams = Repository::<Places, _>::new(store.clone());
    let commands = [
        Change::Add(2),
        Change::Take(1),
        Change::Take(1),
        Change::Take(1),
    ];
    let commands: Vec<_> = (0..)
        .zip(commands)
        .map(|(number, command)| (command, context(&format!("c{number}"), "it")))
        .collect();
    let handled = streams.handle_all(&places("a"), &commands).await.unwrap();
    let accepted: Vec<_> = handled.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [true, true, true, false]);
}

/// Repeats each group until it returns, as a queue does.
#[tokio::test(start_paused = true)]
async fn a_command_takes_effect_once_with_lost_calls_and_other_writers() {
    let mut conflicts = 0;
    for seed in 0..20 {
        fastrand::seed(seed);
        let store = Arc::new(Remote {
            failing: 20,
            ..Remote::default()
        });
        let stream = places("a");
        let writers = (0..4).map(async |writer| {
            let mut random = Rng::with_seed(seed * 10 + writer);
            let streams = Repository::<Places, _>::new(store.clone());
            let mut answered = BTreeMap::new();
            for group in 0..6 {
                let commands: Vec<_> = (0..random.u32(1..8))
                    .map(|number| {
                        let id = format!("w{writer}-{group}-{number}");
                        (any_command(&mut random), context(&id, &id))
                    })
                    .collect();
                let handled = loop {
                    match streams.handle_all(&stream, &commands).await {
                        Ok(handled) => break handled,
                        Err(HandleError::Store(error)) => assert!(error.is_transient(), "{error}"),
                        Err(error) => panic!("{error}"),
                    }
                };
                for ((_, context), result) in commands.into_iter().zip(handled) {
                    let is_recorded = match result {
                        Ok(handled) => handled.is_recorded,
                        Err(HandleError::Rejected { .. }) => false,
                        Err(error) => panic!("{error}"),
                    };
                    answered.insert(context.id, is_recorded);
                }
            }
            answered
        });
        let answered: Vec<_> = join_all(writers).await.into_iter().flatten().collect();
        let commits = stored(&store.store, &stream).await;
        let ids: BTreeSet<_> = commits.iter().map(|commit| commit.id.clone()).collect();
        assert_eq!(
            ids.len(),
            commits.len(),
            "seed {seed}: a command has two commits"
        );
        let recorded = answered.into_iter().filter(|(_, is_recorded)| *is_recorded);
        let recorded: BTreeSet<_> = recorded.map(|(id, _)| id).collect();
        assert_eq!(recorded, ids, "seed {seed}");
        conflicts += store.conflicts.load(Ordering::Relaxed);
    }
    assert!(conflicts > 0, "the writers never met");
}

/// A saga with one step, which takes places of two kinds.
#[derive(Clone, Debug, PartialEq)]
struct Booking;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, cairn::Step)]
enum Step {
    #[step(no_compensation)]
    Begin,
    #[step(no_compensation)]
    Take,
}

impl Definition for Booking {
    type Step = Step;
    /// The places to take of each kind.
    type Input = [u64; 2];
    type Id = String;
    const CATEGORY: &'static str = "booking";
    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[];

    const RETRIES: u32 = 1;
}

struct Take<S>(Repository<Places, S>);

impl<S: EventStore + Clone + 'static> StepDecider<Booking> for Take<S> {
    const STEP: Step = Step::Take;

    fn execute(&self, due: &DueStep<Booking>) -> StepOutcome {
        let kinds = ["first", "second"].into_iter().zip(due.input());
        StepOutcome::done(
            kinds
                .map(|(kind, number)| Enlisted::new(&self.0, &places(kind), Change::Take(*number))),
        )
    }

    fn compensate(&self, _: &DueStep<Booking>) -> StepOutcome {
        StepOutcome::done([])
    }
}

/// The events that make the step due, in bookings of the given places.
async fn bookings(store: &MemoryStore, inputs: &[[u64; 2]]) -> Vec<RecordedEvent> {
    let sagas = Repository::<Saga<Booking>, _>::new(store);
    let mut events = vec![];
    for (number, input) in inputs.iter().enumerate() {
        let stream = StreamId::new("booking", &number.to_string()).unwrap();
        let begun = DueStep::<Booking>::begin(&sagas, &stream, *input).await;
        let begun = begun.unwrap().unwrap();
        let context = context("begin", "begin");
        let recorded = begun.record(&sagas, StepOutcome::done([]), context).await;
        assert!(recorded.unwrap());
        let last = stored(store, &stream).await;
        events.extend(last.last().unwrap().recorded().last());
    }
    events
}

async fn opened(store: &MemoryStore, free: u64) {
    let streams = Repository::<Places, _>::new(store);
    for kind in ["first", "second"] {
        let add = Change::Add(free);
        let added = streams
            .handle(&places(kind), &add, &context("add", "add"))
            .await;
        added.unwrap();
    }
}

fn caused(event: &RecordedEvent) -> (RecordedEvent, Context) {
    let context = Context {
        metadata: event.consequence(),
        ..context(&event.id(), "step")
    };
    (event.clone(), context)
}

async fn execute<S: EventStore + Clone + 'static>(
    store: &S,
    events: &[(RecordedEvent, Context)],
) -> Vec<Result<bool, GroupedStepError>> {
    let sagas = Repository::<Saga<Booking>, S>::new(store.clone());
    let streams = Repository::<Places, S>::new(store.clone());
    execute_all(&sagas, events, |group: &GroupCommit<S>| {
        Take(streams.grouped(group))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn steps_in_groups_have_the_results_and_commits_of_one_after_the_other() {
    for seed in 0..15 {
        let mut random = Rng::with_seed(seed);
        let inputs: Vec<_> = (0..60)
            .map(|_| [random.u64(1..4), random.u64(1..4)])
            .collect();
        let (alone, grouped) = (Arc::<MemoryStore>::default(), Arc::<MemoryStore>::default());
        let mut deliveries = vec![];
        for store in [&alone, &grouped] {
            opened(store, 60).await;
            deliveries = bookings(store, &inputs).await;
        }
        // Some events are delivered twice, in any order.
        let again: Vec<_> = (0..20).map(|_| random.usize(..60)).collect();
        deliveries.extend(
            again
                .iter()
                .map(|index| deliveries[*index].clone())
                .collect::<Vec<_>>(),
        );
        random.shuffle(&mut deliveries);
        let deliveries: Vec<_> = deliveries.iter().map(caused).collect();
        for delivery in &deliveries {
            let result = execute(&alone, std::slice::from_ref(delivery)).await;
            result.into_iter().next().unwrap().unwrap();
        }
        let mut rest = &deliveries[..];
        while !rest.is_empty() {
            let (group, after) = rest.split_at(random.usize(1..=rest.len()));
            for result in execute(&grouped, group).await {
                result.unwrap();
            }
            rest = after;
        }
        let sagas = deliveries.iter().map(|(event, _)| event.stream.clone());
        let streams: HashSet<_> = sagas.chain(["first", "second"].map(places)).collect();
        for stream in streams {
            let expected = stored(&alone, &stream).await;
            assert_eq!(
                stored(&grouped, &stream).await,
                expected,
                "seed {seed}, {stream}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_of_steps_has_one_append() {
    let store = Arc::new(Remote::default());
    opened(&store.store, 100).await;
    let events = bookings(&store.store, &[[1, 1]; 33]).await;
    let events: Vec<_> = events.iter().map(caused).collect();
    for result in execute(&store, &events).await {
        assert!(result.unwrap());
    }
    // A read of each saga and of both kinds, and one append.
    assert_eq!(store.calls.load(Ordering::Relaxed), 33 + 2 + 1);
    assert_eq!(stored(&store.store, &places("first")).await.len(), 34);
}

#[tokio::test(start_paused = true)]
async fn the_steps_of_a_rejected_group_are_recorded_alone() {
    let remote = Remote {
        most: 3,
        ..Remote::default()
    };
    let store = Arc::new(remote);
    opened(&store.store, 3).await;
    let events = bookings(&store.store, &[[1, 1]; 4]).await;
    let events: Vec<_> = events.iter().map(caused).collect();
    for result in execute(&store, &events).await {
        assert!(result.unwrap());
    }
    let sagas = Repository::<Saga<Booking>, _>::new(&store.store);
    let mut aborted = 0;
    for (event, _) in &events {
        let state = sagas.load(&event.stream).await.unwrap().state;
        aborted += u32::from(state.phase == Phase::Aborted);
    }
    assert_eq!(aborted, 1);
}

/// The cause of a failure decides on a retry, so a permanent one must not look transient.
#[tokio::test(start_paused = true)]
async fn a_step_that_the_store_rejects_fails_permanently_and_alone() {
    let remote = Remote {
        most: 1,
        ..Remote::default()
    };
    let store = Arc::new(remote);
    opened(&store.store, 3).await;
    let events = bookings(&store.store, &[[1, 1], [9, 9], [1, 1]]).await;
    let events: Vec<_> = events.iter().map(caused).collect();
    for events in [&events[..1], &events] {
        let results = execute(&store, events).await;
        let is_permanent = |result: &Result<bool, GroupedStepError>| match result {
            Err(GroupedStepError::Step(StepError::Store(error))) => !error.is_transient(),
            _ => false,
        };
        assert!(is_permanent(&results[0]), "{:?}", results[0]);
        // A step without commands has one commit, which the store accepts.
        if let [_, rejected, other] = results.as_slice() {
            assert!(matches!(rejected, Ok(true)), "{rejected:?}");
            assert!(is_permanent(other), "{other:?}");
        }
    }
}

/// A repeated command reads again in its group, and can find the commit of another writer there.
#[tokio::test(start_paused = true)]
async fn a_group_that_finds_another_writer_is_decided_again() {
    for seed in 0..30 {
        fastrand::seed(seed);
        let store = Arc::new(Remote::default());
        let stream = places("a");
        let streams = Repository::<Places, _>::new(store.clone());
        let command = |id: &str| (Change::Add(1), context(id, "add"));
        let group = [command("first"), command("first"), command("second")];
        let other = Repository::<Places, _>::new(store.clone());
        let (add, third) = command("third");
        let (handled, added) = futures_util::future::join(
            streams.handle_all(&stream, &group),
            other.handle(&stream, &add, &third),
        )
        .await;
        added.unwrap();
        let replayed: Vec<_> = handled
            .unwrap()
            .into_iter()
            .map(|handled| handled.unwrap().replayed)
            .collect();
        assert_eq!(replayed, [false, true, false], "seed {seed}");
        assert_eq!(stored(&store.store, &stream).await.len(), 3, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_counts_each_command_against_its_quota() {
    let streams = Repository::<Places, _>::new(Arc::<MemoryStore>::default());
    let now = Timestamp::from_millis(1_000);
    let quota = Quota::new("places", 3, Duration::from_secs(60), now);
    let streams = streams.within(Some(quota));
    let commands: Vec<_> = (0..5)
        .map(|number| (Change::Add(1), context(&format!("c{number}"), "add")))
        .collect();
    let handled = streams.handle_all(&places("a"), &commands).await.unwrap();
    let accepted: Vec<_> = handled.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [true, true, true, false, false]);
    let again = streams.handle_all(&places("a"), &commands[..3]).await;
    assert!(
        again
            .unwrap()
            .iter()
            .all(|handled| handled.as_ref().unwrap().replayed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_step_takes_effect_once_with_lost_calls_and_other_writers() {
    const BOOKINGS: usize = 40;
    let mut conflicts = 0;
    for seed in 0..20 {
        fastrand::seed(seed);
        let store = Arc::new(Remote {
            failing: 10,
            ..Remote::default()
        });
        opened(&store.store, 30).await;
        let events = bookings(&store.store, &[[1, 1]; BOOKINGS]).await;
        let events: Vec<_> = events.iter().map(caused).collect();
        // Each event is delivered to two functions, in groups of different sizes.
        let functions = [7, 10].map(async |size| {
            let mut waiting: Vec<_> = events.clone();
            while !waiting.is_empty() {
                fastrand::shuffle(&mut waiting);
                let group: Vec<_> = waiting.drain(..waiting.len().min(size)).collect();
                let results = execute(&store, &group).await;
                let failed = group.into_iter().zip(results);
                waiting.extend(failed.filter_map(|(event, result)| result.err().map(|_| event)));
            }
        });
        join_all(functions).await;
        let sagas = Repository::<Saga<Booking>, _>::new(&store.store);
        let (mut done, mut aborted) = (0, 0);
        for (event, _) in &events {
            let state = sagas.load(&event.stream).await.unwrap().state;
            done += u32::from(matches!(state.phase, Phase::Completed { .. }));
            aborted += u32::from(state.phase == Phase::Aborted);
        }
        assert_eq!((done, aborted), (30, 10), "seed {seed}");
        for kind in ["first", "second"] {
            let commits = stored(&store.store, &places(kind)).await;
            assert_eq!(commits.len(), 31, "seed {seed}");
            let siblings = commits[1..]
                .iter()
                .filter_map(|commit| commit.sibling.clone());
            assert_eq!(siblings.count(), 30, "seed {seed}");
        }
        conflicts += store.conflicts.load(Ordering::Relaxed);
    }
    assert!(conflicts > 0, "the functions never met");
}
