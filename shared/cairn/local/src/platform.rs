//! The environment of the system: its clock, randomness and faults.
//!
//! The local platform has almost no faults. Tests and simulations use other platforms: every
//! decision about the next event comes from the platform.

use std::{fmt, time::Duration};

use cairn::Timestamp;
use uuid::Uuid;

/// A platform. By default, nothing fails.
pub trait Platform: fmt::Debug + Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    fn new_id(&self) -> Uuid;

    /// A random number from 0 to 1.
    fn chance(&self) -> f64;

    /// The local duration of a wait on AWS.
    fn pace(&self, wait: Duration) -> Duration;

    /// The pause before a stream poller reads new records. AWS polls four times a second
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>).
    fn poll(&self) -> Duration {
        Duration::ZERO
    }

    /// The account's quota of concurrent invocations. Each reservation is taken from it, and the
    /// functions without a reservation share the rest.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html>
    fn concurrency(&self) -> usize {
        1_000
    }

    /// Receives a metrics line of a function.
    fn emit(&self, _function: &str, _line: &str) {}

    /// Receives a line that the process of a function printed.
    fn log(&self, _function: &str, _line: &str) {}

    /// Receives an occurrence, to count it.
    fn note(&self, _note: &Note<'_>) {}

    /// The offset of the clock of a new execution environment, in milliseconds.
    fn skew_ms(&self) -> i64 {
        0
    }

    /// Decides the faults of a call to a service.
    fn call(&self, _caller: &str, _operation: &str) -> FaultDecision {
        FaultDecision::default()
    }

    /// The error code with which the bus refuses one entry of a call that it accepts.
    fn refuses(&self, _detail: &str) -> Option<&'static str> {
        None
    }

    /// True if a rule reaches its target now.
    fn reaches(&self, _target: &str) -> bool {
        true
    }

    /// The delays of the copies of an event that a rule delivers; empty if the event is lost.
    fn copies(&self, _target: &str, _event: &str) -> Vec<Duration> {
        vec![Duration::ZERO]
    }

    fn invocation(&self, _function: &str, _payload: &[u8]) -> InvocationFault {
        InvocationFault::None
    }
}

/// The delays and the fault of one call to a service.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultDecision {
    /// The travel time of the request.
    pub there: Duration,
    pub fault: Option<CallFault>,
    /// The travel time of the answer.
    pub back: Duration,
}

#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallFault {
    Throttled,
    /// The service fails without any effect.
    Unavailable,
    RequestLost,
    /// The service executes the request, but the answer is lost.
    AnswerLost,
    /// An eventually consistent read does not show the latest items.
    Stale,
}

#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvocationFault {
    None,
    /// The function returns an error.
    Fails(String),
    /// The environment is gone after the function has waited this many times.
    Crashes(u32),
}

/// An occurrence that a platform may count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note<'a> {
    /// An invocation waits.
    Waits {
        function: &'a str,
        /// The index of the function's invocation, from 0.
        invocation: u64,
    },
    /// A service executed a call of a function that can change something.
    Changed { function: &'a str },
    /// An invocation crashed by the platform's decision.
    Crashed { function: &'a str },
    /// An invocation returned an error, timed out or crashed.
    Failed { function: &'a str },
    /// An invocation was refused, because the concurrency of the function is in use.
    Throttled { function: &'a str },
    /// An asynchronous invocation failed and will be retried.
    Retried {
        function: &'a str,
        /// The event, such as `order-...@3`, if the payload is one.
        event: Option<&'a str>,
    },
    /// A message went to a dead-letter queue.
    DeadLetter {
        /// The intended function of the message.
        function: &'a str,
        /// The event, such as `order-...@3`, if the payload is one.
        event: Option<&'a str>,
    },
}

/// Receives the observations of a platform, such as a log of deliveries.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Receives a metrics line of a function.
    fn emit(&self, function: &str, line: &str);

    /// Receives an occurrence.
    fn note(&self, note: &Note<'_>);
}
