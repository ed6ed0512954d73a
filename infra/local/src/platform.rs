//! The platform of the system: its time, its random numbers, and its faults.
//!
//! Locally it is the computer's own clock and random numbers, with few faults. A test or a simulation
//! replaces it: everything that decides what happens next is asked of it.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use cairn::Timestamp;
use uuid::Uuid;

use crate::{
    delivery_log::DeliveryLog,
    faults::{BROKEN, Fault, FaultProfile},
};

/// A platform. By default no fault occurs on it.
pub trait Platform: fmt::Debug + Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Timestamp;

    /// A fresh random id.
    fn new_id(&self) -> Uuid;

    /// A random number from 0 to 1.
    fn chance(&self) -> f64;

    /// How long a wait of AWS takes here.
    fn pace(&self, wait: Duration) -> Duration;

    /// How long the reader of a table's stream waits before it takes what is new: AWS looks four times a
    /// second (<https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>).
    fn poll(&self) -> Duration {
        Duration::ZERO
    }

    /// Takes the metrics that a function leaves.
    fn emit(&self, _function: &str, _line: &str) {}

    /// Takes what happened, for who counts it.
    fn note(&self, _note: &Note<'_>) {}

    /// How far the clock of a new execution environment is off, in milliseconds.
    fn skew_ms(&self) -> i64 {
        0
    }

    /// Decides about a call to a service.
    fn call(&self, _caller: &str, _operation: &str) -> FaultDecision {
        FaultDecision::default()
    }

    /// Whether the bus takes an entry of a call that it takes.
    fn takes(&self) -> bool {
        true
    }

    /// Whether a rule reaches its target now.
    fn reaches(&self, _target: &str) -> bool {
        true
    }

    /// When the copies of an event that a rule hands over arrive, from now; none: it is lost.
    fn copies(&self, _target: &str, _event: &str) -> Vec<Duration> {
        vec![Duration::ZERO]
    }

    /// Decides about an invocation.
    fn invocation(&self, _function: &str, _payload: &[u8]) -> InvocationFault {
        InvocationFault::None
    }
}

/// The decision about one call to a service: its delays, and its fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultDecision {
    /// How long the request is under way.
    pub there: Duration,
    /// The fault.
    pub fault: Option<CallFault>,
    /// How long the answer is under way.
    pub back: Duration,
}

/// The fault of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallFault {
    /// The service takes no more at the moment.
    Throttled,
    /// The service fails, and has done nothing.
    Unavailable,
    /// The request does not arrive.
    RequestLost,
    /// The service has done it, and the answer does not arrive.
    AnswerLost,
    /// An eventually consistent read does not show the latest items.
    Stale,
}

/// The fault of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvocationFault {
    /// Nothing.
    None,
    /// The function fails, as by a mistake in its code.
    Fails(String),
    /// The environment is gone after the function has waited so many times.
    Crashes(u32),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note<'a> {
    /// An invocation crashed, as the platform decided.
    Crashed {
        /// The function.
        function: &'a str,
    },
    /// An asynchronous invocation failed and will be tried again.
    Retried {
        /// The function.
        function: &'a str,
        /// The event, `order-...@3`, where it is one.
        event: Option<&'a str>,
    },
    /// A message went into a queue of dead letters.
    DeadLetter {
        /// The function that it is for.
        function: &'a str,
        /// The event, `order-...@3`, where it is one.
        event: Option<&'a str>,
    },
}

/// The local platform. What AWS waits for in minutes takes seconds.
#[derive(Clone, Debug, Default)]
pub struct LocalPlatform {
    /// The faults that are on.
    pub faults: FaultProfile,
    /// What the consumers of events have done.
    pub delivery_log: Arc<DeliveryLog>,
}

impl LocalPlatform {
    /// How much faster it is than AWS where that waits.
    const PACE: u32 = 60;
    /// How late a delivery may be when the bus keeps no order, in milliseconds.
    const DISORDER_MS: u64 = 40;
    /// How late a delivery is when the bus is slow, in milliseconds.
    const DELAY_MS: Range<u64> = 1_000..2_000;

    /// A platform with these faults.
    pub fn with(faults: &[Fault]) -> Self {
        let local = Self::default();
        local.faults.set(faults);
        local
    }

    /// How late one delivery is.
    fn late(&self) -> Duration {
        let mut late_ms = 0;
        if self.faults.has(Fault::Disorder) {
            late_ms += fastrand::u64(0..Self::DISORDER_MS);
        }
        if self.faults.has(Fault::Delays) {
            late_ms += fastrand::u64(Self::DELAY_MS);
        }
        Duration::from_millis(late_ms)
    }
}

impl Platform for LocalPlatform {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn chance(&self) -> f64 {
        fastrand::f64()
    }

    fn pace(&self, wait: Duration) -> Duration {
        wait / Self::PACE
    }

    fn emit(&self, function: &str, line: &str) {
        self.delivery_log.read(function, line);
    }

    fn note(&self, note: &Note<'_>) {
        self.delivery_log.note(note);
    }

    fn copies(&self, _: &str, _: &str) -> Vec<Duration> {
        let copies = if self.faults.has(Fault::Duplicates) {
            2
        } else {
            1
        };
        (0..copies).map(|_| self.late()).collect()
    }

    fn invocation(&self, function: &str, _: &[u8]) -> InvocationFault {
        if function == BROKEN && self.faults.has(Fault::BrokenReader) {
            return InvocationFault::Fails("it was broken from the page".to_owned());
        }
        InvocationFault::None
    }
}
