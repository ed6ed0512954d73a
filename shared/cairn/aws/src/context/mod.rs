//! The environment of a function: its variables, clock, random ids and SDK configuration.
//!
//! An adapter adds the method that creates it to [`AppContext`], in its own file.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};
use uuid::Uuid;

use self::{http_client::HttpClient, metrics::Metrics};
use cairn::timestamp::Timestamp;

mod config_error;
pub(crate) mod http;
pub mod http_client;
pub mod metrics;
mod process;

pub use config_error::ConfigError;

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The runtime services of a function: clock, random ids and metrics.
pub trait Runtime: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns a new random id.
    fn new_id(&self) -> Uuid;

    /// Writes a line of metrics in the embedded metric format.
    fn emit(&self, line: &str);

    /// Marks the start of a wait for a provider. A runtime that shares processors among functions
    /// runs another one during the wait.
    fn begin_wait(&self) {}

    /// Marks the end of the wait. The invocation continues when the returned future is ready.
    fn end_wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// The runtime on Lambda. It writes metrics to standard output, which Lambda reads.
#[derive(Clone, Copy, Debug)]
struct LambdaRuntime;

impl Runtime for LambdaRuntime {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn emit(&self, line: &str) {
        use std::io::Write;
        // If standard output is closed, no reader is left.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// The environment of a function: its environment variables, clock, random ids and SDK
/// configuration, from which the adapters are created.
#[derive(Clone)]
pub struct AppContext {
    lookup: Arc<Lookup>,
    pub(crate) aws: SdkConfig,
    dynamodb: Arc<OnceLock<aws_sdk_dynamodb::Client>>,
    runtime: Arc<dyn Runtime>,
    http_client: Option<HttpClient>,
    /// The number of append conflicts since the last `emit`.
    pub(crate) conflicts: Arc<AtomicU64>,
}

impl AppContext {
    /// The time limit of one attempt of an AWS call. Healthy services answer in a fraction of it,
    /// and a lost connection must not use up the time of the function.
    const CALL_LIMIT: Duration = Duration::from_secs(3);
    /// The time limit of one AWS call with all its attempts. A load and an append both fit into the
    /// time of a function.
    const CALLS_LIMIT: Duration = Duration::from_secs(6);
    /// The maximum delay before the first retry. It doubles with each retry, and each delay has
    /// jitter. The default of the SDK is one second, which dominates the time of a function with
    /// many calls when DynamoDB throttles, although DynamoDB and EventBridge recover within
    /// milliseconds.
    const FIRST_PAUSE: Duration = Duration::from_millis(50);
    /// The maximum number of attempts of a call. The delays between them add up to about 1.5
    /// seconds at most.
    const TRIES: u32 = 6;

    /// Creates a context from a lookup of environment variables and one SDK configuration for all
    /// clients.
    pub fn new(
        lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        aws: SdkConfig,
    ) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(Self::CALL_LIMIT)
            .operation_timeout(Self::CALLS_LIMIT)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(Self::TRIES)
            .with_initial_backoff(Self::FIRST_PAUSE);
        let aws = aws
            .into_builder()
            .timeout_config(timeouts)
            .retry_config(retries)
            .build();
        Self {
            lookup: Arc::new(lookup),
            aws,
            dynamodb: Arc::default(),
            runtime: Arc::new(LambdaRuntime),
            http_client: None,
            conflicts: Arc::default(),
        }
    }

    /// Replaces the runtime services.
    #[must_use]
    pub fn with_runtime(self, runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, ..self }
    }

    /// Replaces the HTTP client for calls outside AWS.
    #[must_use]
    pub fn with_http_client(self, http_client: HttpClient) -> Self {
        let http_client = Some(http_client);
        Self {
            http_client,
            ..self
        }
    }

    /// Creates the context of this process.
    pub fn of_process() -> Result<Self, ConfigError> {
        Ok(Self::new(|name| std::env::var(name).ok(), process::aws()?))
    }

    /// Returns an environment variable, which must not be empty.
    pub fn variable(&self, name: &str) -> Result<String, ConfigError> {
        (self.lookup)(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| ConfigError::new(name, "is missing"))
    }

    /// Returns an environment variable as a number of whole seconds.
    pub fn seconds(&self, variable: &str) -> Result<Duration, ConfigError> {
        let text = self.variable(variable)?;
        let seconds = text.parse().map_err(|_| {
            let problem = format!("is `{text}`, not a number of seconds");
            ConfigError::new(variable, problem)
        })?;
        Ok(Duration::from_secs(seconds))
    }

    /// Returns the HTTP client for calls outside AWS. It is created on demand, because few
    /// functions need it.
    pub fn http_client(&self) -> HttpClient {
        self.http_client.clone().unwrap_or_else(HttpClient::network)
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        self.runtime.now()
    }

    /// Returns a new random id.
    pub fn new_id(&self) -> Uuid {
        self.runtime.new_id()
    }

    /// Emits the metrics, plus the number of append conflicts since the last call.
    pub fn emit(&self, metrics: Metrics) {
        let metrics = match self.conflicts.swap(0, Ordering::Relaxed) {
            0 => metrics,
            conflicts => metrics.count("Conflicts", conflicts),
        };
        if !metrics.is_empty() {
            let stack = self.variable("STACK").unwrap_or_default();
            self.runtime.emit(&metrics.line(&stack, self.now()));
        }
    }

    pub(crate) async fn waiting<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.begin_wait();
        let result = work.await;
        self.runtime.end_wait().await;
        result
    }

    /// Returns the client that all tables share.
    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let make = || {
            let config = client_config!(aws_sdk_dynamodb::config::Builder, &self.aws);
            aws_sdk_dynamodb::Client::from_conf(config)
        };
        self.dynamodb.get_or_init(make).clone()
    }
}

/// Builds the configuration of one client. Without credentials its calls are not signed, for a local
/// runtime in the same process, which knows its callers.
macro_rules! client_config {
    ($builder:ty, $aws:expr) => {{
        let aws = $aws;
        let config = <$builder>::from(aws).retry_partition($crate::context::retries());
        match aws.credentials_provider() {
            Some(_) => config.build(),
            None => config.allow_no_auth().build(),
        }
    }};
}
pub(crate) use client_config;

/// Creates a retry quota for one client. By default all clients of a process share one quota. The
/// local runtime runs all functions in one process, so the failures of one would use up the retries
/// of the others.
pub(crate) fn retries() -> RetryPartition {
    RetryPartition::custom("client")
        .token_bucket(TokenBucket::default())
        .build()
}

impl fmt::Debug for AppContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppContext")
    }
}
