//! A function, its invocations, and their failures.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::{Instrument, Span, field::Empty};

use crate::{
    context::{AppContext, ConfigError},
    trace,
};
use cairn::error::BoxError;

/// A constructor of a function.
pub type Build = fn(&AppContext) -> Result<Handler, ConfigError>;

/// The fraction of its time after which an invocation is close to its timeout.
const NEAR: f32 = 0.8;

type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, FunctionError>> + Send>>;

/// A function: JSON in, JSON out. Clones share its clients.
#[derive(Clone)]
pub struct Handler {
    invoke: Arc<dyn Fn(Vec<u8>, Invocation) -> Answer + Send + Sync>,
    /// True until the first invocation.
    is_cold: Arc<AtomicBool>,
}

/// The context of an invocation.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The request id, the same for every retry of an asynchronous invocation.
    pub request_id: String,
    /// The ARN of the function.
    pub function: String,
    /// The name of the stack, for the log.
    pub service: String,
    /// The [tracing
    /// header](https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader)
    /// of X-Ray.
    pub trace: Option<String>,
    /// The remaining time of the invocation.
    pub remaining: Duration,
}

impl Invocation {
    /// Creates the span of an invocation, which every line of its log contains. The fields have the
    /// names of [Powertools](https://docs.powertools.aws.dev/lambda/python/latest/core/logger/#standard-structured-keys);
    /// the empty ones are known when the payload is read.
    fn span(&self, cold_start: bool) -> Span {
        tracing::info_span!(
            "invocation",
            service = self.service,
            function_name = function_name(&self.function),
            function_request_id = self.request_id,
            cold_start,
            xray_trace_id = self.trace.as_deref().and_then(trace::root),
            correlation = Empty,
            traceparent = Empty,
            event = Empty,
            operator = Empty,
        )
    }
}

/// Returns the logical name of a function, for example `ProjectOrdersFunction`, from its ARN.
pub(super) fn short_name(app: &AppContext, arn: &str) -> String {
    let name = function_name(arn);
    let stack = app.variable("STACK").unwrap_or_default();
    let rest = name.strip_prefix(stack.as_str()).unwrap_or(name);
    // CloudFormation appends a random suffix.
    let mut parts = rest.trim_start_matches('-').split('-');
    parts.next().unwrap_or(name).to_owned()
}

/// Returns the name of a function from its ARN.
pub(super) fn function_name(arn: &str) -> &str {
    arn.split(':').nth(6).unwrap_or(arn)
}

/// The invocation failed; the caller may retry it. Its text is that of its cause.
///
/// Every error converts to it. It is no [`std::error::Error`] itself, because two such conversions
/// would overlap.
#[derive(Debug)]
pub struct FunctionError {
    cause: BoxError,
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for FunctionError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl From<FunctionError> for BoxError {
    fn from(error: FunctionError) -> Self {
        error.cause
    }
}

/// A provider rejected a call because of its rate limit, and did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// The minimum delay that the provider asks for.
    pub retry_after: Option<Duration>,
}

impl Throttled {
    /// The minimum delay, also if the provider asks for none.
    const PAUSE: Duration = Duration::from_secs(5);

    /// Returns the delay before the next call: the requested delay, plus jitter of up to the same
    /// length. Callers that were throttled together then do not return together.
    pub fn pause(self) -> Duration {
        let least = self.retry_after.unwrap_or(Self::PAUSE).max(Self::PAUSE);
        least.mul_f64(1.0 + fastrand::f64())
    }
}

impl FunctionError {
    /// Creates an error from its cause, or from a message.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self {
            cause: cause.into(),
        }
    }
}

impl Handler {
    /// Creates a function from a closure.
    pub fn new<F>(invoke: impl Fn(Vec<u8>, Invocation) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<u8>, FunctionError>> + Send + 'static,
    {
        Self {
            invoke: Arc::new(move |payload, invocation| Box::pin(invoke(payload, invocation))),
            is_cold: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Invokes the function. The lines of its log have the fields of the invocation in their span.
    pub async fn invoke(
        &self,
        payload: Vec<u8>,
        invocation: Invocation,
    ) -> Result<Vec<u8>, FunctionError> {
        let span = invocation.span(self.is_cold.swap(false, Ordering::Relaxed));
        let (begun, time) = (Instant::now(), invocation.remaining);
        let answer = async {
            let answer = (self.invoke)(payload, invocation).await;
            if answer.is_ok() && begun.elapsed() > time.mul_f32(NEAR) {
                // An alarm counts these lines.
                tracing::warn!("close to timeout");
            }
            answer
        };
        answer.instrument(span).await
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}
