//! The simulated platform: virtual time, one source of randomness, and all faults.
//!
//! The seed decides every random choice, in the order in which they are requested:
//!
//! - which call is throttled;
//! - how long a response takes, and so which of two writers is first;
//! - which deliveries the bus duplicates or loses;
//! - where a function crashes.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn::{Timestamp, hash::fnv1a};
use cairn_local::platform::{CallFault, FaultDecision, InvocationFault, Note, Platform};
use fastrand::Rng;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::faults::FaultProfile;

#[doc(hidden)]
pub type Counts = BTreeMap<&'static str, u64>;

pub struct Simulated {
    begun: Instant,
    seed: u64,
    /// The speed relative to AWS's own waits. On virtual time waits cost nothing.
    pace: u32,
    /// The account's quota of concurrent invocations.
    concurrency: usize,
    /// The longest travel time of the request of a transaction.
    transaction: Duration,
    /// Returns true if a simulated bug of this function affects all events of a stream.
    is_step: fn(&str) -> bool,
    state: Mutex<State>,
}

struct State {
    chance: Rng,
    faults: FaultProfile,
    counts: Counts,
    lost: Vec<String>,
    trace: Vec<String>,
    crash: Option<Crash>,
    /// Per function, the number of calls that changed something.
    changes: BTreeMap<String, u32>,
    /// The number of requests that changed something at a provider.
    provided: u32,
    waits: BTreeMap<String, Vec<Waits>>,
    crashed: bool,
}

/// The awaits of one invocation: at each, the number of changes so far by the function and at the
/// providers. A crash at either of two awaits with the same number leaves the same system.
#[doc(hidden)]
pub type Waits = Vec<u32>;

/// A crash at one await of one invocation.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The function's logical id.
    pub function: String,
    /// The index of the invocation, from 0.
    pub invocation: usize,
    /// The index of the await, from 0.
    pub wait: u32,
}

/// The longest interval between reads of a DynamoDB Stream.
const POLL: Duration = Duration::from_millis(250);

/// The longest travel times of a request and of its response.
const THERE: Duration = Duration::from_millis(8);
const BACK: Duration = Duration::from_millis(4);

/// The start of every simulation, in milliseconds since 1970.
const BEGINNING: i64 = 1_800_000_000_000;

impl Simulated {
    /// Returns the platform of a seed. Its time is the runtime's, so it must be called within one.
    /// `is_step` is that of the application.
    pub fn new(seed: u64, faults: FaultProfile, is_step: fn(&str) -> bool) -> Self {
        Self {
            begun: Instant::now(),
            seed,
            pace: 1,
            concurrency: 1_000,
            transaction: THERE,
            is_step,
            state: Mutex::new(State {
                chance: Rng::with_seed(seed),
                faults,
                counts: Counts::new(),
                lost: vec![],
                trace: vec![],
                crash: None,
                changes: BTreeMap::new(),
                provided: 0,
                waits: BTreeMap::new(),
                crashed: false,
            }),
        }
    }

    /// Shortens AWS's waits, for real time.
    #[must_use]
    pub(crate) fn hurried(self, pace: u32) -> Self {
        Self { pace, ..self }
    }

    /// Sets the quota of concurrent invocations, and the longest travel time of the request of a
    /// transaction.
    #[must_use]
    pub(crate) fn narrow(self, concurrency: usize, transaction: Duration) -> Self {
        Self {
            concurrency,
            transaction,
            ..self
        }
    }

    pub(crate) fn set_faults(&self, faults: FaultProfile) {
        self.state().faults = faults;
        self.say("faults", "changed");
    }

    /// Schedules one crash, and no other.
    pub(crate) fn crash_at(&self, crash: Crash) {
        self.state().crash = Some(crash);
    }

    /// Returns the awaits of each invocation, per function.
    pub fn waits(&self) -> BTreeMap<String, Vec<Waits>> {
        self.state().waits.clone()
    }

    /// Records that a request may have changed something at a provider.
    pub fn provided(&self) {
        self.state().provided += 1;
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Draws whether a fault of this probability happens.
    pub fn happens(&self, often: impl FnOnce(&FaultProfile) -> f64) -> bool {
        let mut state = self.state();
        let often = often(&state.faults);
        // Without faults, do not consume randomness.
        often > 0.0 && state.chance.f64() < often
    }

    /// Returns a random number below a bound.
    pub fn below(&self, bound: u64) -> u64 {
        self.state().chance.u64(0..bound.max(1))
    }

    /// Returns a random time up to a bound.
    pub fn up_to(&self, bound: Duration) -> Duration {
        bound.mul_f64(self.chance())
    }

    pub fn count(&self, name: &'static str) {
        self.add(name, 1);
    }

    pub fn add(&self, name: &'static str, by: u64) {
        *self.state().counts.entry(name).or_default() += by;
    }

    pub fn counts(&self) -> Counts {
        self.state().counts.clone()
    }

    /// Returns the deliveries that the bus lost, as `function order-...@3`.
    pub fn lost(&self) -> Vec<String> {
        self.state().lost.clone()
    }

    /// Adds a line to the trace.
    pub fn say(&self, who: &str, what: impl fmt::Display) {
        let at = self.begun.elapsed();
        let line = format!("{:>10.3} s  {who}: {what}", at.as_secs_f64());
        self.state().trace.push(line);
    }

    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the bus is unavailable in the current minute.
    fn is_bus_away(&self) -> bool {
        let often = self.state().faults.bus_away;
        let minute = fnv1a(&format!(
            "{}/{}",
            self.seed,
            self.begun.elapsed().as_secs() / 60
        ));
        let is_away = often > 0.0 && f64::from(minute) / f64::from(u32::MAX) < often;
        if is_away {
            self.count("calls to unavailable bus");
        }
        is_away
    }

    fn fault(&self, caller: &str, operation: &str) -> Option<CallFault> {
        let mut state = self.state();
        let faults = state.faults;
        let mut at = state.chance.f64();
        let faults = [
            (faults.throttled, CallFault::Throttled, "calls throttled"),
            (faults.unavailable, CallFault::Unavailable, "calls refused"),
            (faults.request_lost, CallFault::RequestLost, "requests lost"),
            (faults.answer_lost, CallFault::AnswerLost, "answers lost"),
            (faults.stale, CallFault::Stale, "stale reads"),
        ];
        for (often, fault, name) in faults {
            if fault == CallFault::Stale && operation != "Query" {
                return None;
            }
            if at < often {
                *state.counts.entry(name).or_default() += 1;
                drop(state);
                if fault != CallFault::Stale {
                    self.say(caller, format_args!("{operation}: {fault:?}"));
                }
                return Some(fault);
            }
            at -= often;
        }
        None
    }
}

/// Returns the event of a delivery as `order-...@3`, or `None` for any other payload.
fn event_of(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Delivered<'a> {
        #[serde(borrow)]
        detail: Detail<'a>,
    }
    #[derive(Deserialize)]
    struct Detail<'a> {
        id: &'a str,
    }
    let delivered: Delivered<'_> = serde_json::from_slice(payload).ok()?;
    Some(delivered.detail.id.to_owned())
}

/// Returns the events of a delivery: that of a rule, or those of the messages of a queue.
fn events_of(payload: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Batch {
        #[serde(rename = "Records")]
        messages: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        body: String,
    }
    match serde_json::from_slice::<Batch>(payload) {
        Ok(batch) => {
            let bodies = batch.messages.iter().map(|message| message.body.as_bytes());
            bodies.filter_map(event_of).collect()
        }
        Err(_) => event_of(payload).into_iter().collect(),
    }
}

impl Platform for Simulated {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(BEGINNING).after(self.begun.elapsed())
    }

    fn new_id(&self) -> Uuid {
        let random = self.state().chance.u128(..);
        uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
    }

    fn chance(&self) -> f64 {
        self.state().chance.f64()
    }

    fn pace(&self, wait: Duration) -> Duration {
        wait / self.pace
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn poll(&self) -> Duration {
        self.pace(self.up_to(POLL))
    }

    fn emit(&self, _: &str, line: &str) {
        let metrics: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(filled) = metrics.get("GapsFilled").and_then(Value::as_u64) {
            self.add("gaps filled", filled);
        }
    }

    fn note(&self, note: &Note<'_>) {
        match note {
            Note::Waits {
                function,
                invocation,
            } => {
                let mut state = self.state();
                let changes = state.changes.get(*function).copied().unwrap_or(0) + state.provided;
                let waits = state.waits.get_mut(*function);
                let waits = waits.and_then(|all| all.get_mut(usize::try_from(*invocation).ok()?));
                if let Some(waits) = waits {
                    waits.push(changes);
                }
            }
            Note::Changed { function } => {
                let mut state = self.state();
                *state.changes.entry((*function).to_owned()).or_default() += 1;
            }
            Note::Crashed { function } => {
                self.count("crashes");
                self.state().crashed = true;
                self.say(function, "crashed");
            }
            Note::Failed { .. } => self.count("invocations failed"),
            Note::Throttled { .. } => self.count("invocations throttled"),
            Note::Retried { function, .. } => {
                self.count("invocations retried");
                self.say(function, "failed; retrying");
            }
            Note::DeadLetter { function, .. } => {
                self.count("dead letters");
                self.say(function, "a dead letter");
            }
        }
    }

    fn skew_ms(&self) -> i64 {
        if self.happens(|faults| faults.skewed) {
            self.count("clocks wrong");
            i64::try_from(self.below(4_000)).unwrap_or(0) - 2_000
        } else {
            0
        }
    }

    fn call(&self, caller: &str, operation: &str) -> FaultDecision {
        let there = self.up_to(match operation {
            "TransactWriteItems" => self.transaction,
            _ => THERE,
        });
        let back = self.up_to(BACK);
        let is_away = operation == "PutEvents" && self.is_bus_away();
        let fault = if is_away {
            Some(CallFault::Unavailable)
        } else {
            self.fault(caller, operation)
        };
        let there = match fault {
            Some(CallFault::RequestLost) => there + Duration::from_secs(1),
            _ => there,
        };
        FaultDecision { there, fault, back }
    }

    fn refuses(&self, _: &str) -> Option<&'static str> {
        let is_throttled = self.happens(|faults| faults.throttled);
        is_throttled.then(|| {
            self.count("entries throttled");
            "ThrottlingException"
        })
    }

    fn reaches(&self, target: &str) -> bool {
        if self.happens(|faults| faults.unreached) {
            self.count("targets unreachable");
            self.say(target, "unreachable from its rule");
            return false;
        }
        true
    }

    fn copies(&self, target: &str, payload: &str) -> Vec<Duration> {
        if self.happens(|faults| faults.lost)
            && let Some(event) = event_of(payload.as_bytes())
        {
            self.count("deliveries lost");
            self.say(target, format_args!("bus lost {event}"));
            self.state().lost.push(format!("{target} {event}"));
            return vec![];
        }
        let late = || {
            if self.happens(|faults| faults.late) {
                self.count("deliveries late");
                self.up_to(Duration::from_mins(3))
            } else {
                self.up_to(Duration::from_millis(50))
            }
        };
        let mut copies = vec![late()];
        while self.happens(|faults| faults.repeated) {
            self.count("deliveries repeated");
            copies.push(late());
        }
        copies
    }

    fn invocation(&self, function: &str, payload: &[u8]) -> InvocationFault {
        let number = {
            let mut state = self.state();
            let invocations = state.waits.entry(function.to_owned()).or_default();
            invocations.push(vec![]);
            invocations.len() - 1
        };
        if let Some(crash) = &self.state().crash {
            if crash.function == function && crash.invocation == number {
                return InvocationFault::Crashes(crash.wait);
            }
            return InvocationFault::None;
        }
        let poison = self.state().faults.poison;
        let events = if poison > 0.0 {
            events_of(payload)
        } else {
            vec![]
        };
        for event in events {
            // A broken function always fails at the same event.
            let place = if (self.is_step)(function) {
                event.split('@').next().unwrap_or_default()
            } else {
                event.as_str()
            };
            let place = fnv1a(&format!("{function}/{place}/{}", self.seed));
            if f64::from(place) / f64::from(u32::MAX) < poison {
                self.count("poisoned invocations");
                self.say(function, format_args!("fails at {event}"));
                return InvocationFault::Fails(format!("simulated bug, at {event}"));
            }
        }
        if self.happens(|faults| faults.crashed) {
            return InvocationFault::Crashes(u32::try_from(self.below(16)).unwrap_or(0));
        }
        InvocationFault::None
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
