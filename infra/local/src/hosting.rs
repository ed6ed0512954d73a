//! Functions in this process, each in its own execution environments.
//!
//! An environment handles one invocation at a time and keeps its memory for the next. An
//! environment whose invocation timed out is not reused.
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
//!
//! A function has as many environments as its reserved concurrency allows; all functions without a
//! reservation share the rest of the account's. An asynchronous invocation holds one of a limited
//! number of places, and releases it while it waits.

use std::{
    any::{Any, type_name},
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use cairn::Timestamp;
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler, Invocation, Runtime, http_client::HttpClient,
};
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    aws::{
        Aws,
        sdk::{self, Network, Providers},
    },
    functions::Functions,
    places::{Place, Places, Rank},
    platform::{InvocationFault, Note, Platform},
    template::{ACCOUNT, FunctionSpec, REGION, STACK, Template, TemplateError},
};

pub type Hosts = BTreeMap<String, Hosted>;

pub struct Hosted {
    pub spec: FunctionSpec,
    platform: Arc<dyn Platform>,
    build: Box<Build>,
    idle: Mutex<Vec<Execution>>,
    invocations: AtomicU64,
    places: Places,
    /// The function's reservation, or the part of the account's quota that no function reserves.
    concurrency: Arc<Semaphore>,
}

/// Builds a function and the seat of its environment.
type Build = dyn Fn() -> Result<Execution, ConfigError> + Send + Sync;

struct Execution {
    function: Handler,
    seat: Arc<Seat>,
}

/// The place of the current invocation of an environment.
struct Seat {
    places: Places,
    held: Mutex<Held>,
}

/// Empty if the invocation needs no place.
#[derive(Default)]
struct Held {
    rank: Option<Rank>,
    place: Option<Place>,
}

impl Seat {
    fn sit(&self, rank: Rank, place: Place) {
        *self.held() = Held {
            rank: Some(rank),
            place: Some(place),
        };
    }

    /// Releases the place to other work.
    fn leave(&self) {
        let place = self.held().place.take();
        drop(place);
    }

    /// Takes a place again if the invocation had one.
    async fn sit_again(&self) {
        let rank = self.held().rank;
        if let Some(rank) = rank {
            let place = self.places.take(rank).await;
            let before = self.held().place.replace(place);
            drop(before);
        }
    }

    fn clear(&self) {
        let held = std::mem::take(&mut *self.held());
        drop(held);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The maximum number of concurrent asynchronous invocations of all functions locally. This keeps
/// the processors busy; with more, each would take longer, and all would end later.
const PLACES: usize = 64;
/// An invocation that takes longer counts as waiting.
const WORKS_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub enum InvokeError {
    Unknown,
    /// The concurrency of the function is in use.
    Throttled,
    Failed(String),
    Panicked,
    /// The timeout in seconds.
    TimedOut(u64),
    Exited,
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("function not found"),
            Self::Throttled => f.write_str("Rate Exceeded."),
            Self::Failed(error) => f.write_str(error),
            Self::Panicked => f.write_str("the function panicked"),
            Self::TimedOut(seconds) => write!(f, "Task timed out after {seconds}.00 seconds"),
            Self::Exited => f.write_str("Runtime exited without providing a reason"),
        }
    }
}

impl InvokeError {
    /// The payload with which Lambda and its Rust runtime report the error.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-invokeerror>
    pub(crate) fn payload(&self, request_id: &str) -> Value {
        let (kind, message) = match self {
            Self::Unknown | Self::Failed(_) => (type_name::<&BoxError>(), self.to_string()),
            Self::Panicked => (type_name::<&Box<dyn Any + Send>>(), self.to_string()),
            Self::Throttled => ("TooManyRequestsException", self.to_string()),
            Self::TimedOut(_) => {
                let message = format!("RequestId: {request_id} Error: {self}");
                ("Sandbox.Timedout", message)
            }
            Self::Exited => {
                let message = format!("RequestId: {request_id} Error: {self}");
                ("Runtime.ExitError", message)
            }
        };
        json!({ "errorType": kind, "errorMessage": message })
    }
}

/// The error of a function, named by the Rust runtime.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Builds the functions of a template, with their environment variables and their own clients.
pub(crate) fn host(
    template: &Template,
    functions: &Functions,
    aws: &Arc<Aws>,
    platform: &Arc<dyn Platform>,
) -> Result<Hosts, TemplateError> {
    let services: sdk::Services = Arc::new(OnceLock::from(aws.clone()));
    let network = Network::default();
    let places = Places::new(PLACES);
    let (quota, mut unreserved) = (platform.concurrency(), platform.concurrency());
    for spec in &template.functions {
        // Lambda also refuses to leave fewer than 100.
        let rest = unreserved.checked_sub(spec.reserved.unwrap_or(0));
        unreserved = rest.filter(|rest| *rest > 0).ok_or_else(|| {
            let problem = format!("the reservations use up the {quota} concurrent invocations");
            template.error(spec.line, problem)
        })?;
    }
    let unreserved = Arc::new(Semaphore::new(unreserved));
    let mut hosts = Hosts::new();
    for spec in &template.functions {
        let Some(build) = functions.find(&spec.stem) else {
            let problem = format!("unknown crate {}", spec.stem);
            return Err(template.error(spec.line, problem));
        };
        let settings = spec.settings.clone();
        let (id, services, shared_platform) = (spec.id.clone(), services.clone(), platform.clone());
        let network = network.clone();
        let shared = places.clone();
        let build = move || {
            let settings = settings.clone();
            let seat = Arc::new(Seat {
                places: shared.clone(),
                held: Mutex::default(),
            });
            let clock = Clock {
                seat: seat.clone(),
                function: id.clone(),
                skew_ms: shared_platform.skew_ms(),
                platform: shared_platform.clone(),
            };
            let config = sdk::config(&id, &services, &shared_platform);
            let providers = Providers::new(&id, &shared_platform, &network);
            let function = build(
                &AppContext::new(move |name| settings.get(name).cloned(), config)
                    .with_runtime(Arc::new(clock))
                    .with_http_client(HttpClient::with_connector(providers)),
            )?;
            Ok(Execution { function, seat })
        };
        let build: Box<Build> = Box::new(build);
        let first = build().map_err(|error: ConfigError| {
            template.error(spec.line, format!("{}: {error}", spec.id))
        })?;
        hosts.insert(
            spec.id.clone(),
            Hosted {
                spec: spec.clone(),
                platform: platform.clone(),
                build,
                idle: Mutex::new(vec![first]),
                invocations: AtomicU64::default(),
                places: places.clone(),
                concurrency: spec.reserved.map_or_else(
                    || unreserved.clone(),
                    |reserved| Arc::new(Semaphore::new(reserved)),
                ),
            },
        );
    }
    Ok(hosts)
}

/// The ARN of a function's alias `live`, under which every caller invokes it.
pub(crate) fn live(function: &str) -> String {
    format!("{}:live", arn(function))
}

/// The ARN of a function in this account. The stack's name precedes the function's, as on AWS.
pub fn arn(function: &str) -> String {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-{function}")
}

impl Hosted {
    pub async fn invoke(&self, payload: Vec<u8>, request_id: &str) -> Result<Vec<u8>, InvokeError> {
        self.enter(payload, request_id, None, None).await
    }

    /// Invokes the function once its rank gets a place. `trace` is the tracing header of its event.
    pub(crate) async fn invoke_in_turn(
        &self,
        payload: Vec<u8>,
        request_id: &str,
        trace: Option<&str>,
        rank: Rank,
    ) -> Result<Vec<u8>, InvokeError> {
        let place = self.places.take(rank).await;
        self.enter(payload, request_id, trace, Some((rank, place)))
            .await
    }

    async fn enter(
        &self,
        payload: Vec<u8>,
        request_id: &str,
        trace: Option<&str>,
        place: Option<(Rank, Place)>,
    ) -> Result<Vec<u8>, InvokeError> {
        let function = self.spec.id.as_str();
        let Ok(_running) = self.concurrency.try_acquire() else {
            self.platform.note(&Note::Throttled { function });
            return Err(InvokeError::Throttled);
        };
        let result = self.execute(payload, request_id, trace, place).await;
        if result.is_err() {
            self.platform.note(&Note::Failed { function });
        }
        result
    }

    async fn execute(
        &self,
        payload: Vec<u8>,
        request_id: &str,
        trace: Option<&str>,
        place: Option<(Rank, Place)>,
    ) -> Result<Vec<u8>, InvokeError> {
        let invocation = self.invocations.fetch_add(1, Ordering::Relaxed);
        let wait = match self.platform.invocation(&self.spec.id, &payload) {
            InvocationFault::None => None,
            InvocationFault::Fails(error) => return Err(InvokeError::Failed(error)),
            InvocationFault::Crashes(waits) => Some(waits),
        };
        let environment = self.environment()?;
        let seat = environment.seat.clone();
        let seated = place.map(|(rank, place)| {
            seat.sit(rank, place);
            Seated(seat.clone())
        });
        let limit = Duration::from_secs(self.spec.timeout_s);
        let context = Invocation {
            request_id: request_id.to_owned(),
            function: live(&self.spec.id),
            service: STACK.to_owned(),
            trace: Some(trace.map_or_else(|| new_trace(request_id), str::to_owned)),
            remaining: limit,
        };
        let call = std::panic::AssertUnwindSafe(environment.function.invoke(payload, context));
        let call = Crashable {
            work: Box::pin(call.catch_unwind()),
            waits: wait,
            note: || {
                let function = self.spec.id.as_str();
                self.platform.note(&Note::Waits {
                    function,
                    invocation,
                });
            },
        };
        let long = async {
            sleep(WORKS_FOR).await;
            seat.leave();
            std::future::pending().await
        };
        let call = async {
            tokio::select! {
                biased;
                result = call => result,
                never = long => never,
            }
        };
        let result = match timeout(limit, call).await {
            Ok(Some(Ok(Ok(answer)))) => Ok(answer),
            Ok(Some(Ok(Err(error)))) => Err(InvokeError::Failed(error.to_string())),
            // The runtime catches a panic and keeps its environment.
            Ok(Some(Err(_))) => Err(InvokeError::Panicked),
            Ok(None) => {
                let function = self.spec.id.as_str();
                self.platform.note(&Note::Crashed { function });
                return Err(InvokeError::Exited);
            }
            Err(_) => return Err(InvokeError::TimedOut(self.spec.timeout_s)),
        };
        // Release the seat before the next invocation takes it.
        drop(seated);
        self.idle().push(environment);
        result
    }

    pub fn invocations(&self) -> u64 {
        self.invocations.load(Ordering::Relaxed)
    }

    /// Returns the most recently used environment, or a new one.
    fn environment(&self) -> Result<Execution, InvokeError> {
        let idle = self.idle().pop();
        match idle {
            Some(environment) => Ok(environment),
            None => (self.build)().map_err(|error| InvokeError::Failed(error.to_string())),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Execution>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// Returns the tracing header of an invocation that continues no trace. No trace is sampled.
fn new_trace(request_id: &str) -> String {
    let trace = request_id.replace('-', "");
    let (begin, rest) = trace.split_at_checked(8).unwrap_or(("", trace.as_str()));
    format!("Root=1-{begin}-{rest};Sampled=0")
}

/// An invocation that holds a seat until it is dropped.
struct Seated(Arc<Seat>);

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// A future that ends after a number of waits, as in a crash. It notes each wait.
struct Crashable<F, N> {
    work: Pin<Box<F>>,
    waits: Option<u32>,
    note: N,
}

impl<F: Future, N: Fn() + Unpin> Future for Crashable<F, N> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        (self.note)();
        match &mut self.waits {
            None => Poll::Pending,
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
        }
    }
}

/// The runtime services of an execution environment.
struct Clock {
    seat: Arc<Seat>,
    function: String,
    skew_ms: i64,
    platform: Arc<dyn Platform>,
}

impl Runtime for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.platform.now().as_millis() + self.skew_ms)
    }

    fn new_id(&self) -> Uuid {
        self.platform.new_id()
    }

    fn emit(&self, line: &str) {
        self.platform.emit(&self.function, line);
    }

    fn begin_wait(&self) {
        self.seat.leave();
    }

    fn end_wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.seat.sit_again())
    }
}
