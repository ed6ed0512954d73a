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
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_aws::lambda::{AppContext, ConfigError, Invocation, http_client::HttpClient};
use futures_util::FutureExt;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    crash::Crashable,
    environment::{Clock, Execution, Seat},
    functions::Functions,
    invoke_error::InvokeError,
    places::{Place, Places, Rank},
    sdk::{self, Network, Providers},
};
use crate::{
    aws::Aws,
    names::{STACK, alias_arn},
    platform::{InvocationFault, Note, Platform},
    template::{FunctionSpec, Template, TemplateError},
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

/// The maximum number of concurrent asynchronous invocations of all functions locally. This keeps
/// the processors busy; with more, each would take longer, and all would end later.
const PLACES: usize = 64;
/// An invocation that takes longer counts as waiting.
const WORKS_FOR: Duration = Duration::from_secs(1);

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
            let seat = Arc::new(Seat::new(shared.clone()));
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
        let seated = place.map(|(rank, place)| seat.sit(rank, place));
        let limit = Duration::from_secs(self.spec.timeout_s);
        let context = Invocation {
            request_id: request_id.to_owned(),
            function: alias_arn(&self.spec.id),
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

    fn idle(&self) -> MutexGuard<'_, Vec<Execution>> {
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
