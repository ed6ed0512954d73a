//! The functions of a template, each in its own execution environments.
//!
//! An environment handles one invocation at a time and keeps its memory for the next. An
//! environment whose invocation timed out is not reused. A process that has been idle for long ends.
//! <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
//!
//! A function has as many environments as its reserved concurrency allows; all functions without a
//! reservation share the rest of the account's. An asynchronous invocation holds one of a limited
//! number of places, and releases it while it waits.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_aws::lambda::{AppContext, Invocation, http_client::HttpClient};
use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::instrument::WithSubscriber;

use super::{
    crash::Crashable,
    environment::{Clock, Execution, Running, Seat},
    functions::{Builder, Code, Functions},
    invoke_error::InvokeError,
    log::Log,
    places::{Place, Places, Rank},
    process::{Launcher, Process},
    sdk::{self, Network, Providers},
};
use crate::{
    aws::Aws,
    platform::{InvocationFault, Note, Platform},
    template::{FunctionSpec, Template, TemplateError, Trigger},
};

pub type Hosts = BTreeMap<String, Hosted>;

pub struct Hosted {
    pub spec: FunctionSpec,
    platform: Arc<dyn Platform>,
    build: Box<Build>,
    is_process: bool,
    /// The idle environments, each with the end of its last invocation; the last one is the most
    /// recently used.
    idle: Mutex<Vec<(Instant, Execution)>>,
    invocations: AtomicU64,
    places: Places,
    /// The function's reservation, or the part of the account's quota that no function reserves.
    concurrency: Arc<Semaphore>,
}

/// Builds a function and the seat of its environment.
type Build = dyn Fn() -> Result<Execution, InvokeError> + Send + Sync;

/// The maximum number of concurrent asynchronous invocations of all functions locally. This keeps
/// the processors busy; with more, each would take longer, and all would end later.
const PLACES: usize = 64;
/// An invocation that takes longer counts as waiting.
const WORKS_FOR: Duration = Duration::from_secs(1);
/// The time after which an idle process ends. Lambda documents none.
const IDLE: Duration = Duration::from_mins(5);

/// Builds the functions of a template, with their environment variables and their own clients.
/// Functions that run as processes need the AWS endpoint.
pub(crate) fn host(
    template: &Template,
    functions: &Functions,
    aws: &Arc<Aws>,
    platform: &Arc<dyn Platform>,
    endpoint: Option<SocketAddr>,
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
        check_visibility(template, spec)?;
        let (build, idle, is_process): (Box<Build>, _, _) = match functions.find(spec) {
            None => {
                let problem = format!("unknown crate {}", spec.stem);
                return Err(template.error(spec.line, problem));
            }
            Some(Code::InProcess(builder)) => {
                let shared = (places.clone(), services.clone(), network.clone());
                let build = in_process(spec, builder, platform, shared);
                let first = build()
                    .map_err(|error| template.error(spec.line, format!("{}: {error}", spec.id)))?;
                (Box::new(build), vec![(Instant::now(), first)], false)
            }
            Some(Code::Process(program)) => {
                let Some(endpoint) = endpoint else {
                    let problem = format!("{} runs as a process, which needs a port", spec.id);
                    return Err(template.error(spec.line, problem));
                };
                let launcher = Arc::new(Launcher {
                    spec: spec.clone(),
                    program,
                    endpoint,
                    platform: platform.clone(),
                    runtime: Handle::current(),
                });
                let places = places.clone();
                let build = move || {
                    let function = Running::Process(Process::start(&launcher)?);
                    let seat = Arc::new(Seat::new(places.clone()));
                    Ok(Execution { function, seat })
                };
                (Box::new(build), vec![], true)
            }
        };
        hosts.insert(
            spec.id.clone(),
            Hosted {
                spec: spec.clone(),
                platform: platform.clone(),
                build,
                is_process,
                idle: Mutex::new(idle),
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

/// Refuses a queue whose messages become visible while the function may still handle them, as
/// Lambda does.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>
fn check_visibility(template: &Template, spec: &FunctionSpec) -> Result<(), TemplateError> {
    for trigger in &spec.triggers {
        let Trigger::Queue(mapping) = trigger else {
            continue;
        };
        let mut queues = template.queues.iter();
        let queue = queues.find(|queue| queue.name == mapping.queue);
        let visibility_s = queue.and_then(|queue| u64::try_from(queue.visibility_s).ok());
        if let Some(visibility_s) = visibility_s
            && visibility_s < spec.timeout_s
        {
            let problem = format!(
                "the visibility timeout of {}, {visibility_s} s, is less than the Timeout of {}, \
                 {} s: increase VisibilityTimeout",
                mapping.queue, spec.id, spec.timeout_s
            );
            return Err(template.error(spec.line, problem));
        }
    }
    Ok(())
}

/// Returns the constructor of an environment in this process.
fn in_process(
    spec: &FunctionSpec,
    builder: Builder,
    platform: &Arc<dyn Platform>,
    (places, services, network): (Places, sdk::Services, Network),
) -> impl Fn() -> Result<Execution, InvokeError> + Send + Sync + use<> {
    let (settings, id, platform) = (spec.settings.clone(), spec.id.clone(), platform.clone());
    move || {
        let settings = settings.clone();
        let seat = Arc::new(Seat::new(places.clone()));
        let clock = Clock {
            seat: seat.clone(),
            function: id.clone(),
            skew_ms: platform.skew_ms(),
            platform: platform.clone(),
        };
        let config = sdk::config(&id, &services, &platform);
        let providers = Providers::new(&id, &platform, &network);
        let function = builder(
            &AppContext::new(move |name| settings.get(name).cloned(), config)
                .with_runtime(Arc::new(clock))
                .with_http_client(HttpClient::with_connector(providers)),
        )
        .map_err(|error| InvokeError::Failed(error.to_string()))?;
        let function = Running::InProcess(function);
        Ok(Execution { function, seat })
    }
}

impl Hosted {
    pub async fn invoke(&self, payload: Vec<u8>, request_id: &str) -> Result<Vec<u8>, InvokeError> {
        self.enter(payload, request_id, None, None, None).await
    }

    /// Invokes the function, and copies the lines of its log.
    pub(crate) async fn invoke_logged(
        &self,
        payload: Vec<u8>,
        request_id: &str,
        log: &Log,
    ) -> Result<Vec<u8>, InvokeError> {
        let level = self.spec.settings.get("RUST_LOG");
        let call = self.enter(payload, request_id, None, None, Some(log));
        call.with_subscriber(log.subscriber(level)).await
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
        self.enter(payload, request_id, trace, Some((rank, place)), None)
            .await
    }

    async fn enter(
        &self,
        payload: Vec<u8>,
        request_id: &str,
        trace: Option<&str>,
        place: Option<(Rank, Place)>,
        log: Option<&Log>,
    ) -> Result<Vec<u8>, InvokeError> {
        let function = self.spec.id.as_str();
        let Ok(_running) = self.concurrency.try_acquire() else {
            self.platform.note(&Note::Throttled { function });
            return Err(InvokeError::Throttled);
        };
        let result = self.execute(payload, request_id, trace, place, log).await;
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
        log: Option<&Log>,
    ) -> Result<Vec<u8>, InvokeError> {
        let invocation = self.invocations.fetch_add(1, Ordering::Relaxed);
        let wait = match self.platform.invocation(&self.spec.id, &payload) {
            InvocationFault::None => None,
            InvocationFault::Fails(error) => return Err(InvokeError::Failed(error)),
            InvocationFault::Crashes(waits) => Some(waits),
        };
        let environment = self.environment()?;
        if let Some(log) = log {
            environment.function.begin_log(log);
        }
        environment.function.started().await;
        let seat = environment.seat.clone();
        let seated = place.map(|(rank, place)| seat.sit(rank, place));
        let limit = Duration::from_secs(self.spec.timeout_s);
        let context = Invocation {
            request_id: request_id.to_owned(),
            function: self.spec.alias_arn(),
            service: self.spec.stack.clone(),
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
        let slow = async {
            sleep(WORKS_FOR).await;
            seat.leave();
            std::future::pending().await
        };
        let call = async {
            tokio::select! {
                biased;
                result = call => result,
                never = slow => never,
            }
        };
        let outcome = timeout(limit, call).await;
        if log.is_some() {
            environment.function.end_log().await;
        }
        let result = match outcome {
            Ok(Some(Ok(result))) => result,
            // The runtime catches a panic and keeps its environment.
            Ok(Some(Err(_))) => Err(InvokeError::Panicked),
            Ok(None) => {
                let function = self.spec.id.as_str();
                self.platform.note(&Note::Crashed { function });
                return Err(InvokeError::exited());
            }
            Err(_) => return Err(InvokeError::TimedOut(self.spec.timeout_s)),
        };
        // The next invocation takes the seat with the environment. It finds the environment idle when
        // it gets the place.
        let place = seat.take();
        drop(seated);
        self.idle().push((Instant::now(), environment));
        drop(place);
        result
    }

    pub fn invocations(&self) -> u64 {
        self.invocations.load(Ordering::Relaxed)
    }

    /// Returns the most recently used environment that is usable, or a new one.
    fn environment(&self) -> Result<Execution, InvokeError> {
        loop {
            let last = self.idle().pop();
            match last {
                None => return (self.build)(),
                Some((_, environment)) if environment.function.is_usable() => {
                    return Ok(environment);
                }
                Some(_) => {}
            }
        }
    }

    /// Ends the processes that have been idle for long, again and again.
    pub(crate) async fn end_idle_processes(hosts: Arc<Hosts>) {
        loop {
            sleep(IDLE / 10).await;
            for hosted in hosts.values() {
                hosted.idle().retain(|(since, environment)| {
                    since.elapsed() < IDLE || matches!(environment.function, Running::InProcess(_))
                });
            }
        }
    }

    /// True if the function runs as a process.
    pub fn is_process(&self) -> bool {
        self.is_process
    }

    /// Ends all idle processes.
    pub(crate) fn stop(&self) {
        if self.is_process {
            self.idle().clear();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, Execution)>> {
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
