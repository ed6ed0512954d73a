//! The environment of a function: variables, clients, clock and random ids.

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

use super::handler::{Handler, function_name};
use crate::{
    dynamodb::{
        Answers, AnyProjection, Audit, AuditMark, Counters, Deadlines, DynamoStore, Generations,
        KeyTable, Keyring, MailGate, Projection, Repository, Rows,
    },
    eventbridge::EventBridge,
    invoker::Invoker,
    kms::KmsKey,
    lambda::{http_client::HttpClient, metrics::Metrics, secret::Secret},
    lazy_client::LazyClient,
    sqs::Queue,
};
use cairn::{
    decider::Aggregate,
    read_model::{AnyReadModel, CounterProjection, ReadModel},
    system::System,
    timestamp::Timestamp,
};

/// A constructor of a function.
pub type Build = fn(&AppContext) -> Result<Handler, ConfigError>;

/// An environment variable is missing or invalid.
#[derive(Debug, thiserror::Error)]
#[error("environment variable {name} {problem}")]
pub struct ConfigError {
    name: String,
    problem: String,
}

impl ConfigError {
    /// Creates an error from the name of the variable and the problem, for example `is missing`.
    pub fn new(name: &str, problem: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            problem: problem.into(),
        }
    }
}

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

/// The environment of a function: its environment variables, clients, clock and random ids.
#[derive(Clone)]
pub struct AppContext {
    lookup: Arc<Lookup>,
    pub(crate) aws: SdkConfig,
    dynamodb: Arc<OnceLock<aws_sdk_dynamodb::Client>>,
    runtime: Arc<dyn Runtime>,
    http_client: Option<HttpClient>,
    /// The number of append conflicts since the last `emit`.
    conflicts: Arc<AtomicU64>,
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
        Ok(Self::new(
            |name| std::env::var(name).ok(),
            super::process::aws()?,
        ))
    }

    /// Returns an environment variable, which must not be empty.
    pub fn variable(&self, name: &str) -> Result<String, ConfigError> {
        (self.lookup)(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| ConfigError::new(name, "is missing"))
    }

    /// Returns the event store in the table of `EVENTS_TABLE`.
    pub fn event_store(&self) -> Result<DynamoStore, ConfigError> {
        let table = self.variable("EVENTS_TABLE")?;
        Ok(DynamoStore::new(self.dynamodb(), table).with_conflict_counter(self.conflicts.clone()))
    }

    /// Returns the streams of an aggregate in the table of `EVENTS_TABLE`. Its cache lives as long
    /// as the execution environment.
    pub fn repository<A: Aggregate>(&self) -> Result<Repository<A>, ConfigError> {
        Ok(Repository::new(self.event_store()?))
    }

    /// Returns the rows of a read model. `READ_MODELS_TABLE` has the table of generation sets.
    pub fn rows<M: ReadModel>(&self) -> Result<Generations<Rows<M>>, ConfigError> {
        self.generations(Rows::new(self.dynamodb(), self.variable(M::TABLE)?))
    }

    /// Returns the counters of a read model. `READ_MODELS_TABLE` has the table of generation sets.
    pub fn counters<T: CounterProjection>(&self) -> Result<Generations<Counters<T>>, ConfigError> {
        self.generations(Counters::new(self.dynamodb(), self.variable(T::TABLE)?))
    }

    /// Returns the rows or counters of each read model of a system.
    pub fn read_models(
        &self,
        system: &System,
    ) -> Result<Vec<Generations<AnyProjection>>, ConfigError> {
        let read_models = system.read_models().iter();
        let read_models = read_models.map(|model| self.read_model(*model));
        read_models.collect()
    }

    /// Returns the rows or counters of any read model.
    pub fn read_model(
        &self,
        model: AnyReadModel,
    ) -> Result<Generations<AnyProjection>, ConfigError> {
        let table = self.variable(model.table())?;
        self.generations(AnyProjection::new(self.dynamodb(), table, model))
    }

    fn generations<P: Projection>(&self, rows: P) -> Result<Generations<P>, ConfigError> {
        Ok(Generations::new(self.variable("READ_MODELS_TABLE")?, rows))
    }

    /// Returns an audit of all streams, read models and deadlines of a system at the time `now`.
    pub fn audit(&self, system: &System, now: Timestamp) -> Result<Audit, ConfigError> {
        Ok(Audit::new(
            self.event_store()?,
            self.deadlines("DEADLINES_TABLE")?,
            system.processes().to_vec(),
            self.read_models(system)?,
            now,
        ))
    }

    /// Returns the mark of the last clean audit, in the table of `READ_MODELS_TABLE`.
    pub fn audit_mark(&self) -> Result<AuditMark, ConfigError> {
        let table = self.variable("READ_MODELS_TABLE")?;
        Ok(AuditMark::new(self.dynamodb(), table))
    }

    /// Returns the event bus of `EVENT_BUS`, with `EVENT_SOURCE` as the source of its events.
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

    /// Returns the queue whose URL is in an environment variable.
    pub fn queue(&self, variable: &str) -> Result<Queue, ConfigError> {
        let config = aws_sdk_sqs::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        let client = LazyClient::new(|| aws_sdk_sqs::Client::from_conf(config));
        Ok(Queue::new(client, self.variable(variable)?))
    }

    /// Returns the deadlines in the table of an environment variable.
    pub fn deadlines(&self, variable: &str) -> Result<Deadlines, ConfigError> {
        Ok(Deadlines::new(self.dynamodb(), self.variable(variable)?))
    }

    /// Returns the mail gate in the table of an environment variable.
    pub fn mail_gate(&self, variable: &str) -> Result<MailGate, ConfigError> {
        Ok(MailGate::new(self.dynamodb(), self.variable(variable)?))
    }

    /// Returns the stored responses in the table of an environment variable.
    pub fn answers(&self, variable: &str) -> Result<Answers, ConfigError> {
        Ok(Answers::new(self.dynamodb(), self.variable(variable)?))
    }

    /// Returns the key table of an environment variable.
    pub fn key_table(&self, variable: &str) -> Result<KeyTable, ConfigError> {
        Ok(KeyTable::new(self.dynamodb(), self.variable(variable)?))
    }

    /// Returns the encryption keys of subjects. `table` and `master` name the environment variables
    /// with their table and with the id of the KMS key that wraps them.
    pub fn keyring(&self, table: &str, master: &str) -> Result<Keyring, ConfigError> {
        let config = aws_sdk_kms::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        let client = LazyClient::new(|| aws_sdk_kms::Client::from_conf(config));
        let master = KmsKey::new(client, self.variable(master)?);
        Ok(Keyring::new(self.key_table(table)?, Arc::new(master)))
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

    /// Returns the secret whose ARN is in an environment variable.
    pub fn secret(&self, variable: &str) -> Result<Secret, ConfigError> {
        let config = aws_sdk_secretsmanager::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        let client = aws_sdk_secretsmanager::Client::from_conf(config);
        Ok(Secret::managed(client, self.variable(variable)?))
    }

    /// Returns a client to invoke the functions of this account.
    pub fn invoker(&self) -> Invoker {
        let config = aws_sdk_lambda::config::Builder::from(&self.aws);
        let config = config.retry_partition(retries()).build();
        Invoker::new(aws_sdk_lambda::Client::from_conf(config))
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

    /// Returns the logical name of a function, for example `ProjectOrdersFunction`, from its ARN.
    pub(super) fn short_name(&self, arn: &str) -> String {
        let name = function_name(arn);
        let stack = self.variable("STACK").unwrap_or_default();
        let rest = name.strip_prefix(stack.as_str()).unwrap_or(name);
        // CloudFormation appends a random suffix.
        let mut parts = rest.trim_start_matches('-').split('-');
        parts.next().unwrap_or(name).to_owned()
    }

    pub(super) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let make = || {
            let config = aws_sdk_dynamodb::config::Builder::from(&self.aws);
            let config = config.retry_partition(retries()).build();
            aws_sdk_dynamodb::Client::from_conf(config)
        };
        self.dynamodb.get_or_init(make).clone()
    }
}

/// Creates a retry quota for one client. By default all clients of a process share one quota. The
/// local runtime runs all functions in one process, so the failures of one would use up the retries
/// of the others.
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
