//! Processes: their rules, and their guarantees under duplicated, late and lost deliveries, crashes
//! and races.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use cairn::{
    Aggregate, Commit, Context, Decider, RecordedEvent, StreamId, System, Timestamp,
    deadlines::{Deadline, DeadlineChange, DeadlineUpdate},
    event::CodecError,
    gate::Delivery,
    processes::{
        Cause, CommandHandler, CommandOutcome, DueCommand, Outputs, Process, ProcessState,
        ProcessStream, Processes, Record, RecordedCause, Wake, Watch, deadline_update,
        testing::given,
    },
    repository::Repository,
    step::{Enlisted, StepFailure, StepOutcome},
    store::{AppendError, EventStore, ReadRange, StoreError, memory::MemoryStore},
};
use fastrand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

fn minutes(number: u32) -> Timestamp {
    Timestamp::from_millis(0).after(MINUTE * number)
}

/// A desk books texts. It is the source of events and the target of commands.
#[derive(Debug)]
struct Desk;

#[derive(Clone, Debug, PartialEq, cairn::Event)]
enum Booking {
    Booked { text: String },
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0} is refused")]
struct Refused(String);

impl Decider for Desk {
    type State = BTreeSet<String>;
    type Command = String;
    type Event = Booking;
    type Rejection = Refused;

    fn decide(booked: &BTreeSet<String>, text: &String) -> Result<Vec<Booking>, Refused> {
        if booked.contains(&format!("no {text}")) {
            return Err(Refused(text.clone()));
        }
        Ok(vec![Booking::Booked { text: text.clone() }])
    }

    fn evolve(mut booked: BTreeSet<String>, event: &Booking) -> BTreeSet<String> {
        let Booking::Booked { text } = event;
        booked.insert(text.clone());
        booked
    }
}

impl Aggregate for Desk {
    type Id = String;

    const CATEGORY: &'static str = "desk";
}

/// The checkout of a basket: it prints two papers in parallel, reminds of the payment after ten
/// minutes, and cancels after thirty.
#[derive(Clone, Debug, PartialEq)]
struct Checkout;

#[derive(Clone, Debug, PartialEq)]
enum Message {
    Placed,
    Paid,
}

#[derive(Clone, Debug, PartialEq, cairn::Event)]
#[event(prefix = "Checkout")]
enum Event {
    Opened {},
    Settled {},
    Expired {},
    Done { command: String },
    Ready {},
    Recorded(Box<Record<Checkout>>),
}

impl From<Record<Checkout>> for Event {
    fn from(record: Record<Checkout>) -> Self {
        Self::Recorded(Box::new(record))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
struct State {
    is_paid: bool,
    is_expired: bool,
    is_ready: bool,
    done: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Timer {
    Remind,
    Expire,
}

impl State {
    /// Returns the event that joins the payment and both papers.
    fn ready(&self, is_paid: bool, also: &str) -> Option<Event> {
        let has = |paper| also == paper || self.done.contains(paper);
        let is_ready = is_paid && has("label") && has("invoice") && !self.is_ready;
        is_ready.then_some(Event::Ready {})
    }
}

impl Process for Checkout {
    type Id = String;
    type Message = Message;
    type State = State;
    type Event = Event;
    type Timer = Timer;
    type Command = String;

    const CATEGORY: &'static str = "checkout";
    const RETRIES: u32 = 12;

    fn correlate(event: &RecordedEvent) -> Result<Option<(String, Message)>, CodecError> {
        if event.stream.category() != Desk::CATEGORY {
            return Ok(None);
        }
        let Booking::Booked { text } = event.decode()?;
        let message = match text.as_str() {
            "placed" => Message::Placed,
            "paid" => Message::Paid,
            _ => return Ok(None),
        };
        let key = event.stream.key().split_once('.');
        Ok(key.map(|(_, id)| (id.to_owned(), message)))
    }

    fn sources(id: &String) -> Vec<StreamId> {
        vec![desk("basket", id), desk("till", id)]
    }

    fn decide(state: &State, cause: &Cause<Self>, at: Timestamp) -> Outputs<Self> {
        let done = |command: &String| Event::Done {
            command: command.clone(),
        };
        match cause {
            Cause::Event(Message::Placed) => {
                let opened = Outputs::events([Event::Opened {}])
                    .command("label".to_owned())
                    .command("invoice".to_owned());
                if state.is_paid {
                    return opened;
                }
                opened
                    .timer(Timer::Remind, at.after(MINUTE * 10))
                    .timer(Timer::Expire, at.after(MINUTE * 30))
            }
            Cause::Event(Message::Paid) => {
                let events = [Event::Settled {}].into_iter().chain(state.ready(true, ""));
                let paid = Outputs::events(events)
                    .cancel(Timer::Remind)
                    .cancel(Timer::Expire);
                if state.is_expired {
                    paid.command("refund".to_owned())
                } else {
                    paid
                }
            }
            Cause::Timer(Timer::Remind) => Outputs::none().command("remind".to_owned()),
            Cause::Timer(Timer::Expire) => {
                Outputs::events([Event::Expired {}]).command("cancel".to_owned())
            }
            Cause::Outcome(command, CommandOutcome::Done(_) | CommandOutcome::Abandoned(_)) => {
                let ready = state.ready(state.is_paid, command);
                Outputs::events([done(command)].into_iter().chain(ready))
            }
            // Papers are voided in reverse; a paper that may be printed is voided too.
            Cause::Outcome(command, CommandOutcome::Failed(reason)) if command == "void" => {
                Outputs::stuck(reason.clone())
            }
            Cause::Outcome(..) => Outputs::none().command("void".to_owned()),
        }
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::Opened {} | Event::Recorded(_) => {}
            Event::Settled {} => state.is_paid = true,
            Event::Expired {} => state.is_expired = true,
            Event::Ready {} => state.is_ready = true,
            Event::Done { command } => {
                state.done.insert(command.clone());
            }
        }
        state
    }

    fn record(event: &Event) -> Option<&Record<Self>> {
        match event {
            Event::Recorded(record) => Some(record),
            Event::Opened {}
            | Event::Settled {}
            | Event::Expired {}
            | Event::Done { .. }
            | Event::Ready {} => None,
        }
    }
}

fn desk(name: &str, id: &str) -> StreamId {
    StreamId::new("desk", &format!("{name}.{id}")).unwrap()
}

fn checkout() -> StreamId {
    StreamId::new("checkout", "1").unwrap()
}

/// A store that keeps a log of its commits, and lets other tasks run before and after each call.
#[derive(Debug, Default)]
struct Log {
    store: MemoryStore,
    commits: Mutex<Vec<Commit>>,
    reads: Mutex<u32>,
}

impl Log {
    /// Keeps the new ones of the appended commits. A repeated append of the same commits succeeds.
    fn log(&self, commits: &[Commit]) {
        let mut log = self.commits.lock().unwrap();
        for commit in commits {
            if !log.contains(commit) {
                log.push(commit.clone());
            }
        }
    }
}

impl EventStore for Log {
    async fn append(&self, commits: &[Commit]) -> Result<(), AppendError> {
        tokio::task::yield_now().await;
        self.store.append(commits).await?;
        self.log(commits);
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn read(
        &self,
        stream: &StreamId,
        range: &ReadRange<'_>,
    ) -> Result<Vec<Commit>, StoreError> {
        tokio::task::yield_now().await;
        *self.reads.lock().unwrap() += 1;
        self.store.read(stream, range).await
    }
}

/// Books each command at the desk `effects`. A transient failure precedes it as often as asked.
struct Book {
    desks: Repository<Desk, Arc<Log>>,
    failing: Mutex<u32>,
}

impl CommandHandler<Checkout> for Book {
    async fn execute(&self, due: &DueCommand<Checkout>) -> Result<StepOutcome, StepFailure> {
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(StepFailure::transient("unavailable"));
        }
        let effects = desk("effects", due.process().key());
        let book = Enlisted::new(&self.desks, &effects, due.command().clone());
        Ok(StepOutcome::done([book]))
    }
}

/// The store, the relay's deliveries, the deadline tracker and the watchdog, at a virtual time.
struct World {
    store: Arc<Log>,
    desks: Repository<Desk, Arc<Log>>,
    processes: Processes<Checkout, Arc<Log>>,
    handler: Book,
    now: Timestamp,
    /// The number of commits of the log that were read.
    published: usize,
    deliveries: Vec<RecordedEvent>,
    updates: Vec<DeadlineUpdate>,
    rows: BTreeMap<StreamId, Deadline>,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(Log::default());
        let desks = Repository::new(store.clone());
        Self {
            processes: Processes::new(Repository::new(store.clone()), MINUTE),
            handler: Book {
                desks: desks.clone(),
                failing: Mutex::default(),
            },
            desks,
            store,
            now: minutes(0),
            published: 0,
            deliveries: vec![],
            updates: vec![],
            rows: BTreeMap::new(),
        }
    }

    fn context(&self, id: &str) -> Context {
        Context::new(id, self.now, Duration::from_secs(60))
    }

    async fn book(&mut self, name: &str, text: &str) {
        let context = self.context(&format!("{name}/{text}"));
        let stream = desk(name, "1");
        let booked = self.desks.handle(&stream, &text.to_owned(), &context).await;
        booked.unwrap();
        self.publish();
    }

    /// Publishes the new commits to the bus and to the deadline tracker.
    fn publish(&mut self) {
        let commits = self.store.commits.lock().unwrap();
        for commit in &commits[self.published..] {
            for event in commit.recorded() {
                self.updates
                    .extend(deadline_update::<Checkout>(&event).unwrap());
                self.deliveries.push(event);
            }
        }
        self.published = commits.len();
    }

    /// Delivers an event to the process, or to the function that executes its commands. Returns
    /// false if the delivery has to be repeated.
    async fn deliver(&self, event: &RecordedEvent) -> bool {
        let context = self.context(&event.id());
        if event.stream.category() != Checkout::CATEGORY {
            let delivered = self.processes.deliver(event, &context).await;
            return delivered.is_ok();
        }
        let event: Event = event.decode().unwrap();
        let issued = Checkout::record(&event).map(Record::issued);
        for issued in issued.into_iter().flatten() {
            let due = self.processes.due(&checkout(), issued).await;
            let Some(due) = due.unwrap() else {
                continue;
            };
            let Ok(outcome) = due.perform(&self.handler).await else {
                return false;
            };
            let recorded = self.processes.record(due, outcome, context.clone()).await;
            if recorded.is_err() {
                return false;
            }
        }
        true
    }

    /// Delivers everything until nothing new is published.
    async fn settle(&mut self) {
        while let Some(event) = self.deliveries.pop() {
            assert!(self.deliver(&event).await);
            self.publish();
        }
        while !self.updates.is_empty() {
            self.track();
        }
    }

    /// Applies the next update of a deadline, as the table does.
    fn track(&mut self) {
        let DeadlineUpdate {
            stream,
            version,
            change,
        } = self.updates.remove(0);
        let known = self.rows.get(&stream).map_or(0, |row| row.version);
        assert!(version > known);
        let at = match change {
            DeadlineChange::Open(at) | DeadlineChange::Stuck(at) => at,
            DeadlineChange::Closed => {
                self.rows.remove(&stream);
                return;
            }
        };
        let throttled = None;
        let row = Deadline {
            stream: stream.clone(),
            version,
            at,
            throttled,
        };
        self.rows.insert(stream, row);
    }

    /// Checks the process if its deadline is due, as the watchdog does. `polls` is the number of
    /// awaits after which it crashes.
    async fn watch(&mut self, polls: usize) {
        let due = self.rows.values().find(|row| row.at <= self.now);
        let Some(Deadline { stream, .. }) = due.cloned() else {
            return;
        };
        let context = self.context(&format!("wake/{}", self.now));
        let woken = crash(polls, self.processes.wake(&stream, &context)).await;
        self.publish();
        let at = match woken {
            None | Some(Ok(Wake::Moved)) => return,
            Some(Ok(Wake::Waiting(at))) => at,
            Some(Ok(Wake::Closed)) => {
                self.rows.remove(&stream);
                return;
            }
            Some(Ok(Wake::Stuck(next))) => next.unwrap_or(self.now.after(MINUTE * 60)),
            Some(Err(error)) => panic!("{error}"),
        };
        self.rows.get_mut(&stream).unwrap().at = at;
    }

    async fn wake(&self) -> Wake {
        let (stream, context) = (checkout(), self.context("wake"));
        self.processes.wake(&stream, &context).await.unwrap()
    }

    async fn state(&self) -> ProcessState<Checkout> {
        let streams: Repository<ProcessStream<Checkout>, _> = Repository::new(self.store.clone());
        streams.load(&checkout()).await.unwrap().state
    }

    /// Returns the booked effects in order.
    fn effects(&self) -> Vec<String> {
        let effects = desk("effects", "1");
        let commits = self.store.commits.lock().unwrap();
        let events = commits.iter().flat_map(Commit::recorded);
        let booked = events.filter(|event| event.stream == effects);
        let text = booked.map(|event| match event.decode().unwrap() {
            Booking::Booked { text } => text,
        });
        text.collect()
    }

    /// Returns the timers that fired.
    fn fired(&self) -> Vec<Timer> {
        let commits = self.store.commits.lock().unwrap();
        let events = commits.iter().flat_map(Commit::recorded);
        let own = events.filter(|event| event.stream == checkout());
        let fired = own.filter_map(|event| {
            let event: Event = event.decode().unwrap();
            match Checkout::record(&event)?.cause() {
                RecordedCause::Fired(timer) => Some(timer.clone()),
                _ => None,
            }
        });
        fired.collect()
    }
}

/// Polls a future a number of times, and then drops it.
async fn crash<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

const FOREVER: usize = usize::MAX;

#[test]
fn an_unpaid_checkout_has_timers_and_a_paid_one_has_none() {
    given::<Checkout>([])
        .when(&Cause::Event(Message::Placed), minutes(1))
        .then(
            &Outputs::events([Event::Opened {}])
                .command("label".to_owned())
                .command("invoice".to_owned())
                .timer(Timer::Remind, minutes(11))
                .timer(Timer::Expire, minutes(31)),
        );
    given::<Checkout>([Event::Settled {}])
        .when(&Cause::Event(Message::Placed), minutes(1))
        .then(
            &Outputs::events([Event::Opened {}])
                .command("label".to_owned())
                .command("invoice".to_owned()),
        );
}

#[test]
fn the_stored_form_of_a_record_is_stable() {
    let json = concat!(
        r#"{"cause":{"received":{"stream":"desk-basket.1","version":2}},"#,
        r#""cancelled":["Remind"],"timers":[{"timer":"Expire","at":"1970-01-01T00:30:00.000Z"}],"#,
        r#""issued":[{"number":1,"command":"label","attempt":0,"retries":2,"#,
        r#""until":"1970-01-01T00:01:00.000Z"}],"watch":{"until":"1970-01-01T00:01:00.000Z"}}"#,
    );
    let record: Record<Checkout> = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), json);
    for cause in [
        r#"{"fired":"Expire"}"#,
        r#"{"ended":{"number":1,"outcome":{"done":null}}}"#,
        r#"{"ended":{"number":1,"outcome":"unknown"}}"#,
        r#"{"stuck":{"number":1,"reason":"full"}}"#,
        r#""retried""#,
    ] {
        let cause: RecordedCause<Checkout> = serde_json::from_str(cause).unwrap();
        let again = serde_json::to_string(&cause).unwrap();
        assert_eq!(
            serde_json::from_str::<RecordedCause<Checkout>>(&again).unwrap(),
            cause
        );
    }
    let system = System::new("shop")
        .aggregate::<Desk>()
        .process::<Checkout>();
    let names: Vec<_> = system
        .event_types()
        .into_iter()
        .map(|kind| kind.name)
        .collect();
    assert_eq!(names[1..3], ["CheckoutOpened", "CheckoutSettled"]);
    assert_eq!(names[6], "CheckoutRecorded");
    assert_eq!(system.monitored().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn parallel_commands_are_joined_and_timers_are_cancelled() {
    let mut world = World::new();
    world.book("basket", "placed").await;
    world.settle().await;
    assert_eq!(world.rows[&checkout()].at, minutes(1));
    world.now = minutes(9);
    world.book("till", "paid").await;
    world.settle().await;
    let state = world.state().await;
    assert!(state.own.is_ready, "{state:?}");
    assert_eq!((state.timers, state.watch), (vec![], Watch::Closed));
    assert!(world.rows.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_event_of_an_instance_finds_those_whose_deliveries_are_late() {
    let mut world = World::new();
    world.book("basket", "placed").await;
    world.now = minutes(20);
    world.book("till", "paid").await;
    let paid = world.deliveries.pop().unwrap();
    assert!(world.deliver(&paid).await);
    assert_eq!(world.fired(), [Timer::Remind]);
    assert!(world.deliver(&world.deliveries[0]).await);
    world.publish();
    world.settle().await;
    assert!(world.state().await.own.is_ready);
}

#[tokio::test(start_paused = true)]
async fn an_event_before_a_timer_precedes_it_although_its_delivery_is_lost() {
    let mut world = World::new();
    world.book("basket", "placed").await;
    world.settle().await;
    world.now = minutes(30);
    world.book("till", "paid").await;
    world.deliveries.clear();
    world.now = minutes(45);
    world.watch(FOREVER).await;
    assert_eq!(world.fired(), [Timer::Remind]);
    assert!(world.state().await.own.is_paid);
}

#[tokio::test(start_paused = true)]
async fn an_event_after_a_timer_follows_it_although_the_watchdog_is_late() {
    let mut world = World::new();
    world.book("basket", "placed").await;
    world.settle().await;
    world.now = minutes(31);
    world.book("till", "paid").await;
    world.settle().await;
    assert_eq!(world.fired(), [Timer::Remind, Timer::Expire]);
    let effects: BTreeSet<_> = world.effects().into_iter().collect();
    assert!(effects.contains("cancel") && effects.contains("refund"));
}

#[tokio::test(start_paused = true)]
async fn the_next_event_of_a_source_is_received_without_a_read_of_the_source() {
    let mut world = World::new();
    world.book("basket", "placed").await;
    world.settle().await;
    world.book("till", "paid").await;
    let paid = world.deliveries.remove(0);
    *world.store.reads.lock().unwrap() = 0;
    for expected in [Delivery::Applied, Delivery::Duplicate] {
        let context = world.context(&paid.id());
        let delivered = world.processes.deliver(&paid, &context).await;
        assert_eq!(delivered.unwrap(), expected);
    }
    assert_eq!(*world.store.reads.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_missing_events_are_received_in_several_appends() {
    let mut world = World::new();
    for number in 0..250 {
        let context = world.context(&format!("pay/{number}"));
        let (till, paid) = (desk("till", "1"), "paid".to_owned());
        world.desks.handle(&till, &paid, &context).await.unwrap();
    }
    world.publish();
    let last = world.deliveries.pop().unwrap();
    assert!(world.deliver(&last).await);
    assert_eq!(world.state().await.gate(&desk("till", "1")), 250);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_command_leads_to_a_compensation_and_a_rejected_compensation_is_stuck() {
    let mut world = World::new();
    world.book("effects", "no label").await;
    world.book("effects", "no void").await;
    world.book("basket", "placed").await;
    world.settle().await;
    let state = world.state().await;
    let reasons: Vec<_> = state.stuck.values().collect();
    assert_eq!(reasons, ["void is refused (effects.1)"]);
    assert_eq!(state.watch, Watch::Stuck);

    // A resumed command has a new key. Here it fails again.
    let context = world.context("resume/1");
    for _ in 0..2 {
        let resumed = world.processes.resume(&checkout(), &context).await;
        resumed.unwrap();
    }
    world.publish();
    world.settle().await;
    let commands = world.state().await.commands;
    assert_eq!((commands[0].attempt, commands[0].retries), (1, 0));

    let context = world.context("abandon/1");
    let abandoned = world
        .processes
        .abandon(&checkout(), "by hand", &context)
        .await;
    abandoned.unwrap();
    world.publish();
    world.settle().await;
    let state = world.state().await;
    assert!(state.stuck.is_empty() && state.commands.is_empty());
    assert!(state.own.done.contains("void"));
    let context = world.context("resume/2");
    let again = world.processes.resume(&checkout(), &context).await;
    assert_eq!(again.unwrap_err().to_string(), "the process is not stuck");
}

#[tokio::test(start_paused = true)]
async fn a_command_without_an_outcome_is_requested_again_and_its_outcome_is_unknown_at_the_end() {
    let mut world = World::new();
    world.book("basket", "placed").await;
    let placed = world.deliveries.remove(0);
    assert!(world.deliver(&placed).await);
    for retry in 1..=Checkout::RETRIES {
        world.now = world.state().await.commands[0].until;
        assert_eq!(world.wake().await, Wake::Moved);
        let state = world.state().await;
        let label = &state.commands[0];
        assert_eq!((label.command.as_str(), label.retries), ("label", retry));
        let until = world.now.after(MINUTE * 2_u32.pow(retry));
        assert_eq!(label.until, until);
    }
    world.now = world.state().await.commands[0].until;
    assert_eq!(world.wake().await, Wake::Moved);
    let commands = world.state().await.commands;
    assert!(commands.iter().all(|issued| issued.command != "label"));
    assert!(commands.iter().any(|issued| issued.command == "void"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_await_of_a_delivery_a_command_or_a_check_changes_nothing() {
    for polls in 0..40 {
        let mut world = World::new();
        world.book("basket", "placed").await;
        while let Some(event) = world.deliveries.pop() {
            crash(polls, world.deliver(&event)).await;
            assert!(world.deliver(&event).await);
            world.publish();
        }
        for time in [10, 30] {
            world.now = minutes(time);
            while !world.updates.is_empty() {
                world.track();
            }
            world.watch(polls).await;
            world.watch(FOREVER).await;
            world.settle().await;
        }
        assert_eq!(world.fired(), [Timer::Remind, Timer::Expire]);
        let mut effects = world.effects();
        effects.sort();
        assert_eq!(effects, ["cancel", "invoice", "label", "remind"]);
        assert!(world.rows.is_empty(), "{polls}");
    }
}

/// Returns the effects and the timers of a checkout that is paid at a time.
fn expected(paid: Option<Timestamp>) -> (Vec<&'static str>, Vec<Timer>) {
    let (mut effects, mut timers) = (vec!["invoice", "label"], vec![]);
    if paid.is_none_or(|paid| paid > minutes(10)) {
        effects.push("remind");
        timers.push(Timer::Remind);
    }
    if paid.is_none_or(|paid| paid > minutes(30)) {
        effects.push("cancel");
        timers.push(Timer::Expire);
        effects.extend(paid.map(|_| "refund"));
    }
    effects.sort_unstable();
    (effects, timers)
}

/// Runs a checkout with random deliveries, crashes, races, losses and lateness.
async fn run(seed: u64, paid: Option<Timestamp>) -> World {
    let (mut rng, mut world) = (Rng::with_seed(seed), World::new());
    let (mut losses, mut is_paid) = (rng.u32(..4), false);
    world.book("basket", "placed").await;
    loop {
        let polls = if rng.u8(..3) == 0 {
            rng.usize(..25)
        } else {
            FOREVER
        };
        match rng.u8(..5) {
            0 | 1 if !world.deliveries.is_empty() => {
                let event = world.deliveries[rng.usize(..world.deliveries.len())].clone();
                let is_own = event.stream.category() == Checkout::CATEGORY;
                // A lost payment after the last timer would never arrive.
                let is_early = paid.is_some_and(|paid| paid <= minutes(30));
                let can_be_lost = is_own || (is_early && event.stream == desk("till", "1"));
                *world.handler.failing.lock().unwrap() = u32::from(rng.u8(..8) == 0);
                let is_done = if losses > 0 && can_be_lost {
                    losses -= 1;
                    true
                } else if rng.bool() {
                    let other = &world.deliveries[rng.usize(..world.deliveries.len())];
                    let both = async { tokio::join!(world.deliver(&event), world.deliver(other)) };
                    Box::pin(crash(polls, both))
                        .await
                        .is_some_and(|(done, _)| done)
                } else {
                    crash(polls, world.deliver(&event)).await == Some(true)
                };
                // Some deliveries are repeated.
                if is_done && rng.u8(..4) > 0 {
                    let index = world.deliveries.iter().position(|one| *one == event);
                    world.deliveries.swap_remove(index.unwrap());
                }
            }
            2 if !world.updates.is_empty() => world.track(),
            3 => world.watch(polls).await,
            _ => world.now = world.now.after(MINUTE * rng.u32(..6)),
        }
        if let Some(paid) = paid.filter(|paid| *paid <= world.now && !is_paid) {
            let now = std::mem::replace(&mut world.now, paid);
            world.book("till", "paid").await;
            (world.now, is_paid) = (now, true);
        }
        world.publish();
        let is_idle = world.deliveries.is_empty() && world.updates.is_empty();
        if is_idle && world.rows.is_empty() && is_paid == paid.is_some() {
            return world;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_deliveries_and_crashes_end_in_the_same_state_with_one_effect_of_each_command() {
    let just_late = minutes(30).after(Duration::from_millis(1));
    let moments = [minutes(3), minutes(20), minutes(30), just_late, minutes(50)];
    for seed in 0..600 {
        let paid = moments.get(usize::try_from(seed).unwrap() % 6).copied();
        let world = Box::pin(run(seed, paid)).await;
        let (effects, timers) = expected(paid);
        let mut booked = world.effects();
        booked.sort();
        assert_eq!(booked, effects, "seed {seed}");
        assert_eq!(world.fired(), timers, "seed {seed}");
        let state = world.state().await;
        let done: Vec<_> = state.own.done.iter().map(String::as_str).collect();
        assert_eq!(done, effects, "seed {seed}");
        assert_eq!(state.own.is_ready, paid.is_some(), "seed {seed}");
        assert!(state.timers.is_empty() && state.commands.is_empty());
    }
}
