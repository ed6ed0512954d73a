//! The edge: the handler of a function, its context, and its runtime.
//!
//! A function is built from an [`AppContext`] and takes JSON. On Lambda [`run`] does both; the
//! local system builds the same functions from the template's environment variables and calls them in
//! process.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};
use uuid::Uuid;

use crate::{
    decider::Aggregate,
    dynamodb::{
        Answers, Counters, Deadlines, DynamoStore, Generations, KeyTable, Keyring, MailGate,
        Projection, Repository, Rows,
    },
    eventbridge::EventBridge,
    functions::Functions,
    kms::MasterKey,
    lambda::{http_client::HttpClient, metrics::Metrics, secret::Secret},
    lazy_client::LazyClient,
    mail::Mailer,
    read_model::{CounterProjection, ReadModel},
    sqs::Queue,
    timestamp::Timestamp,
};

pub mod api;
pub mod caller;
pub mod consumer;
pub(crate) mod http;
pub mod http_client;
pub mod metrics;
pub mod operation;
mod process;
pub mod secret;
pub mod step;
pub mod stream;

type Answer = Pin<Box<dyn Future<Output = Result<Vec<u8>, FunctionError>> + Send>>;

/// The handler of a function: JSON in, JSON out. Cloning it shares its clients.
#[derive(Clone)]
pub struct Handler(Arc<dyn Fn(Vec<u8>, Invocation) -> Answer + Send + Sync>);

/// What an invocation knows besides its payload.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The id of the request, the same for every try of an asynchronous invocation.
    pub request_id: String,
    /// The ARN of the function.
    pub function: String,
    /// How long the function may take.
    pub remaining: Duration,
}

/// The function failed: the caller may try again.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FunctionError {
    message: String,
    throttled: Option<Throttled>,
}

/// A provider has had too many calls and did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    /// The time that the provider asks for before the next call.
    pub retry_after: Option<Duration>,
}

impl Throttled {
    /// The pause where the provider asks for none.
    const PAUSE: Duration = Duration::from_secs(5);

    /// The pause before the next call: what the provider asks for and, at random, up to as much again,
    /// so that those who were throttled together do not come back together.
    pub fn pause(self) -> Duration {
        let least = self.retry_after.unwrap_or(Self::PAUSE).max(Self::PAUSE);
        least.mul_f64(1.0 + fastrand::f64())
    }
}

impl FunctionError {
    /// A failure, in words.
    pub fn new(error: impl fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            throttled: None,
        }
    }

    /// A provider throttles, in its words.
    pub fn throttled(error: impl fmt::Display, retry_after: Option<Duration>) -> Self {
        Self {
            throttled: Some(Throttled { retry_after }),
            ..Self::new(error)
        }
    }

    /// Set where a provider throttles: nothing has failed, and the work is to be done later.
    pub fn is_throttled(&self) -> Option<Throttled> {
        self.throttled
    }
}

impl Handler {
    /// A function from what it does with a payload.
    pub fn new<F>(invoke: impl Fn(Vec<u8>, Invocation) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<u8>, FunctionError>> + Send + 'static,
    {
        Self(Arc::new(move |payload, invocation| {
            Box::pin(invoke(payload, invocation))
        }))
    }

    /// Invokes it.
    ///
    /// # Errors
    /// What the function returned as an error.
    pub async fn invoke(
        &self,
        payload: Vec<u8>,
        invocation: Invocation,
    ) -> Result<Vec<u8>, FunctionError> {
        (self.0)(payload, invocation).await
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// What builds a function.
pub type Build = fn(&AppContext) -> Result<Handler, ConfigError>;

/// An environment variable is missing or invalid.
#[derive(Debug, thiserror::Error)]
#[error("environment variable {name} {problem}")]
pub struct ConfigError {
    name: String,
    problem: String,
}

impl ConfigError {
    /// An environment variable and its problem.
    pub fn new(name: &str, problem: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            problem: problem.into(),
        }
    }
}

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The runtime of a function: the time, random ids, and the output for metrics.
pub trait Runtime: Send + Sync {
    /// The present.
    fn now(&self) -> Timestamp;

    /// A fresh random id.
    fn new_id(&self) -> Uuid;

    /// Takes metrics, as one line of JSON in the embedded metric format.
    fn emit(&self, line: &str);

    /// Notes that the invocation begins to wait for a provider. A runtime that shares its processors
    /// among functions lets another one work meanwhile.
    fn begin_wait(&self) {}

    /// Notes that the wait is over. The invocation continues when the returned future is ready.
    fn end_wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// The runtime on Lambda: the clock, random numbers, and standard output, where Lambda reads metrics.
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
        // Without an output there is nobody to read it.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// The context of a function: its environment variables, its clients, the time and fresh ids.
#[derive(Clone)]
pub struct AppContext {
    lookup: Arc<Lookup>,
    aws: SdkConfig,
    dynamodb: Arc<OnceLock<aws_sdk_dynamodb::Client>>,
    runtime: Arc<dyn Runtime>,
    http_client: Option<HttpClient>,
    /// Appends that others were faster than, since they were last told of.
    conflicts: Arc<AtomicU64>,
}

impl AppContext {
    /// How long one try of a call may take. A service that answers at all answers in a fraction of it; a
    /// connection that is gone must not use up the time of the function.
    const CALL_LIMIT: Duration = Duration::from_secs(3);
    /// How long one call may take with all its tries: a load and an append both fit into the time that functions have.
    const CALLS_LIMIT: Duration = Duration::from_secs(6);
    /// The longest first pause before a call is tried again; each next one may be twice as long, and each is cut short at
    /// random. The SDK's own is a second: at one throttle in ten that is most of the time of a function with a dozen
    /// calls, though `DynamoDB` and `EventBridge` answer again within milliseconds.
    const FIRST_PAUSE: Duration = Duration::from_millis(50);
    /// How often a call is tried: the pauses between are up to a second and a half in all.
    const TRIES: u32 = 6;

    /// A context with environment variables from a lookup, and clients from one SDK configuration.
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

    /// The same context with another runtime.
    #[must_use]
    pub fn with_runtime(self, runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, ..self }
    }

    /// The same context with another HTTP client.
    #[must_use]
    pub fn with_http_client(self, http_client: HttpClient) -> Self {
        let http_client = Some(http_client);
        Self {
            http_client,
            ..self
        }
    }

    /// The context of this process.
    ///
    /// # Errors
    /// When Lambda has not said in which region it is.
    pub fn of_process() -> Result<Self, ConfigError> {
        Ok(Self::new(|name| std::env::var(name).ok(), process::aws()?))
    }

    /// The value of an environment variable.
    ///
    /// # Errors
    /// When it is missing or empty.
    pub fn variable(&self, name: &str) -> Result<String, ConfigError> {
        (self.lookup)(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| ConfigError::new(name, "is missing"))
    }

    /// The event store in the table that `EVENTS_TABLE` names.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn event_store(&self) -> Result<DynamoStore, ConfigError> {
        let table = self.variable("EVENTS_TABLE")?;
        Ok(DynamoStore::new(self.dynamodb(), table).with_conflict_counter(self.conflicts.clone()))
    }

    /// The streams of an aggregate in the table that `EVENTS_TABLE` names.
    ///
    /// What it remembers lasts as long as the function's environment.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn repository<A: Aggregate>(&self) -> Result<Repository<A>, ConfigError> {
        Ok(Repository::new(self.event_store()?))
    }

    /// The rows of a read model in the table that an environment variable names. `READ_MODELS_TABLE` names the one that knows
    /// their generations.
    ///
    /// # Errors
    /// When an environment variable is missing.
    pub fn rows<M: ReadModel>(&self, variable: &str) -> Result<Generations<Rows<M>>, ConfigError> {
        self.generations(Rows::new(self.dynamodb(), self.variable(variable)?))
    }

    /// The counters of a read model in the table that an environment variable names. `READ_MODELS_TABLE` names the one that knows
    /// their generations.
    ///
    /// # Errors
    /// When an environment variable is missing.
    pub fn counters<T: CounterProjection>(
        &self,
        variable: &str,
    ) -> Result<Generations<Counters<T>>, ConfigError> {
        self.generations(Counters::new(self.dynamodb(), self.variable(variable)?))
    }

    fn generations<P: Projection>(&self, rows: P) -> Result<Generations<P>, ConfigError> {
        Ok(Generations::new(self.variable("READ_MODELS_TABLE")?, rows))
    }

    /// The bus that `EVENT_BUS` names, written to as `EVENT_SOURCE`.
    ///
    /// # Errors
    /// When an environment variable is missing.
    pub fn bus(&self) -> Result<EventBridge, ConfigError> {
        let config = aws_sdk_eventbridge::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        let client = aws_sdk_eventbridge::Client::from_conf(config);
        Ok(EventBridge::new(
            client,
            self.variable("EVENT_BUS")?,
            self.variable("EVENT_SOURCE")?,
        ))
    }

    /// The queue whose URL an environment variable holds.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn queue(&self, variable: &str) -> Result<Queue, ConfigError> {
        let config = aws_sdk_sqs::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        let client = LazyClient::new(|| aws_sdk_sqs::Client::from_conf(config));
        Ok(Queue::new(client, self.variable(variable)?))
    }

    /// The deadlines in the table that an environment variable names.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn deadlines(&self, variable: &str) -> Result<Deadlines, ConfigError> {
        Ok(Deadlines::new(self.dynamodb(), self.variable(variable)?))
    }

    /// The gate of mails in the table that an environment variable names.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn mail_gate(&self, variable: &str) -> Result<MailGate, ConfigError> {
        Ok(MailGate::new(self.dynamodb(), self.variable(variable)?))
    }

    /// The kept answers in the table that an environment variable names.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn answers(&self, variable: &str) -> Result<Answers, ConfigError> {
        Ok(Answers::new(self.dynamodb(), self.variable(variable)?))
    }

    /// The subjects' keys in the table that an environment variable names.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn key_table(&self, variable: &str) -> Result<KeyTable, ConfigError> {
        Ok(KeyTable::new(self.dynamodb(), self.variable(variable)?))
    }

    /// The subjects' keys in the table that an environment variable names, wrapped by the key of KMS whose id another holds.
    ///
    /// # Errors
    /// When an environment variable is missing.
    pub fn keyring(&self, table: &str, master: &str) -> Result<Keyring, ConfigError> {
        let config = aws_sdk_kms::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        let client = LazyClient::new(|| aws_sdk_kms::Client::from_conf(config));
        let master = MasterKey::new(client, self.variable(master)?);
        Ok(Keyring::new(self.key_table(table)?, master))
    }

    /// An environment variable in whole seconds.
    ///
    /// # Errors
    /// When it is missing or no number.
    pub fn seconds(&self, variable: &str) -> Result<Duration, ConfigError> {
        let text = self.variable(variable)?;
        let seconds = text.parse().map_err(|_| {
            let problem = format!("is `{text}`: it takes a number of seconds");
            ConfigError::new(variable, problem)
        })?;
        Ok(Duration::from_secs(seconds))
    }

    /// The HTTP client for what is not AWS. Made when it is asked for: few functions need it.
    pub fn http_client(&self) -> HttpClient {
        self.http_client.clone().unwrap_or_else(HttpClient::network)
    }

    /// The mailer of the sender that an environment variable names.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn mailer(&self, variable: &str) -> Result<Mailer, ConfigError> {
        // A try without an answer may have sent a mail: who asked for it decides on another.
        let config = aws_sdk_sesv2::config::Builder::from(&self.aws);
        let config = config.retry_config(RetryConfig::disabled()).build();
        let client = aws_sdk_sesv2::Client::from_conf(config);
        Ok(Mailer::new(client, self.variable(variable)?))
    }

    /// The secret whose ARN an environment variable holds.
    ///
    /// # Errors
    /// When the variable is missing.
    pub fn secret(&self, variable: &str) -> Result<Secret, ConfigError> {
        let config = aws_sdk_secretsmanager::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        let client = aws_sdk_secretsmanager::Client::from_conf(config);
        Ok(Secret::managed(client, self.variable(variable)?))
    }

    /// The functions of this account.
    pub fn functions(&self) -> Functions {
        let config = aws_sdk_lambda::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        Functions::new(aws_sdk_lambda::Client::from_conf(config))
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.runtime.now()
    }

    /// A fresh random id.
    pub fn new_id(&self) -> Uuid {
        self.runtime.new_id()
    }

    /// Emits metrics, and the number of conflicts since the last call.
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

    /// Does work that waits for a provider.
    pub(crate) async fn waiting<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.begin_wait();
        let result = work.await;
        self.runtime.end_wait().await;
        result
    }

    /// A function's name among those of the stack, from its ARN: `ProjectOrdersFunction`.
    fn short_name(&self, arn: &str) -> String {
        let name = arn.split(':').nth(6).unwrap_or(arn);
        let stack = self.variable("STACK").unwrap_or_default();
        let rest = name.strip_prefix(stack.as_str()).unwrap_or(name);
        // CloudFormation puts its own mark behind the name.
        let mut parts = rest.trim_start_matches('-').split('-');
        parts.next().unwrap_or(name).to_owned()
    }

    /// One for all tables of the function.
    fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let make = || {
            let config = aws_sdk_dynamodb::config::Builder::from(&self.aws);
            let config = config.retry_partition(retries()).build();
            aws_sdk_dynamodb::Client::from_conf(config)
        };
        self.dynamodb.get_or_init(make).clone()
    }
}

/// Retries that a client has to itself. By default all clients of a process share theirs, and on one
/// machine all functions are in one process: the failures of one would use up the retries of another.
fn retries() -> RetryPartition {
    RetryPartition::custom("client")
        .token_bucket(TokenBucket::default())
        .build()
}

impl fmt::Debug for AppContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppContext")
    }
}

/// Runs a function on Lambda until the environment is shut down.
///
/// The clients that every event needs are built before the first event is asked for. A panic in it becomes an error of
/// that one invocation.
pub fn run(build: Build) -> ExitCode {
    tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .json()
                .with_span_list(false),
        )
        .with(logged())
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(build)),
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "function failed to start");
            ExitCode::FAILURE
        }
    }
}

/// What is logged: as `RUST_LOG` says, by target and level, and errors where it says nothing. It knows no more
/// than that: matching fields of spans takes a regular expression engine, which every function would carry.
pub fn logged() -> Targets {
    let said = std::env::var("RUST_LOG")
        .ok()
        .filter(|said| !said.is_empty());
    let said = said.and_then(|said| said.parse().ok());
    said.unwrap_or_else(|| Targets::new().with_default(LevelFilter::ERROR))
}

async fn serve(build: Build) -> Result<(), lambda_runtime::Error> {
    let function = build(&AppContext::of_process()?)?;
    let service = lambda_runtime::service_fn(
        move |event: lambda_runtime::LambdaEvent<Box<serde_json::value::RawValue>>| {
            let function = function.clone();
            async move {
                let invocation = Invocation {
                    request_id: event.context.request_id.clone(),
                    function: event.context.invoked_function_arn.clone(),
                    remaining: remaining(event.context.deadline()),
                };
                let (begun, time) = (Instant::now(), invocation.remaining);
                let payload = event.payload.get().as_bytes().to_vec();
                let answer = function.invoke(payload, invocation).await?;
                if begun.elapsed() > time.mul_f32(NEAR) {
                    // An alarm counts these lines.
                    tracing::warn!("close to timeout");
                }
                let answer = String::from_utf8(answer)?;
                Ok::<_, lambda_runtime::Error>(serde_json::value::RawValue::from_string(answer)?)
            }
        },
    );
    lambda_runtime::run(service).await
}

/// The part of its time after which an invocation is close to its timeout.
const NEAR: f32 = 0.8;

fn remaining(deadline: std::time::SystemTime) -> Duration {
    deadline
        .duration_since(std::time::SystemTime::now())
        .unwrap_or_default()
}

/// What a function may use of its time for trying again: it has to answer within the rest.
fn time_budget(invocation: &Invocation) -> Duration {
    invocation
        .remaining
        .saturating_sub(Duration::from_millis(500))
}
