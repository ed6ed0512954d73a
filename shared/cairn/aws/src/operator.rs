//! Access to a deployed stack for operators and command-line tools.
//!
//! A stack is found through the list of Lambda functions. The environment variables of the
//! functions name its tables and queues, so the tool builds the same [`AppContext`] from them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableCredentialsProvider,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_lambda_events::event::{
    dynamodb::{self, EventRecord},
    streams::DynamoDbEventResponse,
};
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_lambda::{Client, primitives::Blob, types::FunctionConfiguration};
use serde::{Serialize, de::DeserializeOwned};
use serde_dynamo::Item;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    context::{
        AppContext,
        http::{Http, TrustStore},
        http_client::{HttpClient, HttpError},
    },
    dynamodb::TableError,
    lambda::operation::OPERATOR,
};
use cairn::{commit::Commit, error::BoxError, store::StoreError};

mod deployment;
pub mod doctor;
mod query;
mod tail;

pub use tail::{StartPosition, Tail, Unreadable};

/// Loads the AWS configuration as the AWS CLI does: from the environment, a profile, single
/// sign-on, a process or the instance.
///
/// An `endpoint` on this computer is an AWS emulator, which accepts any credentials. If the
/// environment has no region or credentials, it gets default ones. The credentials of a profile are
/// never sent to it.
pub async fn aws(endpoint: Option<&str>, profile: Option<&str>) -> SdkConfig {
    let http = Http::new(TrustStore::System);
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
        if is_here(endpoint) {
            let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
            let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            loader = loader.region(Region::new(region));
            loader = match variable("AWS_ACCESS_KEY_ID") {
                Some(_) => {
                    loader.credentials_provider(EnvironmentVariableCredentialsProvider::new())
                }
                None => loader
                    .credentials_provider(Credentials::new("test", "test", None, None, "none")),
            };
        }
    }
    loader.load().await
}

fn is_here(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

/// A deployed stack.
#[derive(Debug)]
pub struct Stack {
    /// The name of the stack.
    pub name: String,
    aws: SdkConfig,
    app: AppContext,
    /// The function names by logical id.
    functions: BTreeMap<String, String>,
    /// The alias of the functions that is invoked.
    alias: String,
    lambda: Client,
    /// The operator, once it is known.
    operator: OnceCell<Option<String>>,
}

/// A stack was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// AWS cannot be reached, or rejects the request.
    #[error("{0}")]
    Unreachable(String),
    /// The account and region have no stack.
    #[error("no Cairn stack found in this account and region")]
    None,
    /// No stack has this name.
    #[error("stack {0} not found; available: {known}", known = .1.join(", "))]
    Unknown(String, Vec<String>),
    /// Several stacks exist, and no name was given.
    #[error("several stacks found: {}", .0.join(", "))]
    Several(Vec<String>),
}

/// An invocation failed.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// The stack has no such function.
    #[error("the stack {stack} has no function {function}")]
    Unknown {
        /// The stack.
        stack: String,
        /// The function's logical id.
        function: String,
    },
    /// AWS does not return the identity of the credentials.
    #[error("GetCallerIdentity of STS failed: {0}")]
    Unidentified(String),
    /// The function was not invoked, or its response was lost.
    #[error("cannot reach {function}: {problem}")]
    Unreachable {
        /// The function's logical id.
        function: String,
        /// The error of the call.
        problem: String,
    },
    /// The function returned an error.
    #[error("{0}")]
    Failed(String),
}

impl Stack {
    /// The timeout of one attempt to list the functions.
    const LIMIT: Duration = Duration::from_secs(10);
    /// The number of commits per invocation. An item has at most 400 KB, and a payload 6 MB.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
    const BATCH_SIZE: usize = 10;

    /// Finds the stack with this name or, without a name, the only stack. Its functions are invoked
    /// by their alias.
    ///
    /// # Errors
    /// See [`FindError`].
    pub async fn find(aws: &SdkConfig, name: Option<&str>, alias: &str) -> Result<Self, FindError> {
        if aws.region().is_none() {
            let problem = "no region is configured: set AWS_REGION, or use a profile with a region";
            return Err(FindError::Unreachable(problem.to_owned()));
        }
        let mut stacks = stacks(aws).await?;
        let known = || stacks.keys().cloned().collect::<Vec<_>>();
        let name = match (name, known().as_slice()) {
            (Some(name), _) if stacks.contains_key(name) => name.to_owned(),
            (_, []) => return Err(FindError::None),
            (Some(name), known) => {
                return Err(FindError::Unknown(name.to_owned(), known.to_vec()));
            }
            (None, [only]) => only.clone(),
            (None, known) => return Err(FindError::Several(known.to_vec())),
        };
        let StackParts {
            functions,
            settings,
        } = stacks.remove(&name).unwrap_or_default();
        let lambda = aws_sdk_lambda::config::Builder::from(aws)
            .retry_config(RetryConfig::standard())
            .build();
        Ok(Self {
            name,
            aws: aws.clone(),
            app: AppContext::new(move |name| settings.get(name).cloned(), aws.clone()),
            functions,
            alias: alias.to_owned(),
            lambda: Client::from_conf(lambda),
            operator: OnceCell::new(),
        })
    }

    /// Names the operator for the functions to record. Without a name, it is the ARN of the
    /// credentials, or none for an endpoint on this computer, which accepts any credentials.
    #[must_use]
    pub fn operated_by(self, name: String) -> Self {
        let operator = OnceCell::from(Some(name));
        Self { operator, ..self }
    }

    async fn operator(&self) -> Result<Option<&str>, InvokeError> {
        let identify = || async {
            if self.aws.endpoint_url().is_some_and(is_here) {
                return Ok(None);
            }
            let client = aws_sdk_sts::Client::new(&self.aws);
            let identity = client.get_caller_identity().send().await;
            let identity = identity.map_err(|error| InvokeError::Unidentified(cause(&error)))?;
            Ok::<_, InvokeError>(identity.arn)
        };
        let operator = self.operator.get_or_try_init(identify).await?;
        Ok(operator.as_deref())
    }

    /// Returns the environment variables of the functions, and clients of the stack's resources.
    pub fn app(&self) -> &AppContext {
        &self.app
    }

    /// Returns the logical ids of the functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// Follows the commits of the event table.
    ///
    /// # Errors
    /// Returns an error if the table has no DynamoDB Stream, or a call fails.
    pub async fn tail(&self, beginning: StartPosition) -> Result<Tail, StoreError> {
        let refused = |cause: BoxError| StoreError::Permanent(cause);
        let table = self.app.variable("EVENTS_TABLE");
        let table = table.map_err(|error| refused(error.into()))?;
        let client = aws_sdk_dynamodb::Client::new(&self.aws);
        let described = client.describe_table().table_name(&table).send().await;
        let described = described.map_err(TableError::from)?;
        let stream = described.table.and_then(|table| table.latest_stream_arn);
        let stream =
            stream.ok_or_else(|| refused(format!("{table} has no DynamoDB Stream").into()))?;
        Tail::begin(
            aws_sdk_dynamodbstreams::Client::new(&self.aws),
            stream,
            beginning,
        )
        .await
    }

    /// Returns the JSON document that an endpoint on this computer serves at a path; `None` on AWS,
    /// or if the endpoint has no such document.
    ///
    /// # Errors
    /// Returns an error if the endpoint does not respond.
    pub async fn local_document<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Option<T>, HttpError> {
        let Some(endpoint) = self.aws.endpoint_url().filter(|endpoint| is_here(endpoint)) else {
            return Ok(None);
        };
        let url = format!("{}{path}", endpoint.trim_end_matches('/'));
        let answer = HttpClient::network().get(&url).await?;
        let found = (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok());
        Ok(found.flatten())
    }

    /// Invokes a [function for operations](crate::lambda::operation) by its logical id with a
    /// request of an operator, and waits for the report.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn operate<A: DeserializeOwned>(
        &self,
        function: &str,
        mut request: Value,
    ) -> Result<A, InvokeError> {
        if let (Value::Object(members), Some(name)) = (&mut request, self.operator().await?) {
            members.insert(OPERATOR.to_owned(), name.into());
        }
        self.invoke(function, &request).await
    }

    /// Invokes the alias of a function.
    async fn invoke<A: DeserializeOwned>(
        &self,
        function: &str,
        request: &(impl Serialize + Sync),
    ) -> Result<A, InvokeError> {
        let name = self.functions.get(function);
        let name = name.ok_or_else(|| InvokeError::Unknown {
            stack: self.name.clone(),
            function: function.to_owned(),
        })?;
        let failed = |error: &dyn std::fmt::Display| InvokeError::Failed(error.to_string());
        let payload = serde_json::to_vec(request).map_err(|error| failed(&error))?;
        let invoke = self.lambda.invoke().function_name(name);
        let invoke = invoke.qualifier(&self.alias).payload(Blob::new(payload));
        let answer = invoke.send().await;
        let answer = answer.map_err(|error| InvokeError::Unreachable {
            function: function.to_owned(),
            problem: cause(&error),
        })?;
        let said = answer.payload.map(Blob::into_inner).unwrap_or_default();
        if answer.function_error.is_none() {
            return serde_json::from_slice(&said).map_err(|error| failed(&error));
        }
        let error: Value = serde_json::from_slice(&said).unwrap_or_default();
        let message = error.get("errorMessage").and_then(Value::as_str);
        Err(failed(
            &message.unwrap_or("the function returned no reason"),
        ))
    }

    /// Redelivers commits of one stream, in order and in small batches, to a consumer of the
    /// DynamoDB Stream. The consumer skips the events that it applied before.
    ///
    /// # Errors
    /// Returns an error if an invocation fails, or the consumer reports a failed version. The
    /// commits before that version are applied.
    pub async fn redeliver(&self, function: &str, commits: &[Commit]) -> Result<(), InvokeError> {
        let failed = |problem: String| InvokeError::Failed(format!("{function}: {problem}"));
        for batch in commits.chunks(Self::BATCH_SIZE) {
            let records = records(batch).map_err(|error| failed(error.to_string()))?;
            let answer: DynamoDbEventResponse = self.invoke(function, &records).await?;
            if let Some(first) = answer.batch_item_failures.first() {
                let version = first.item_identifier.as_deref().unwrap_or_default();
                return Err(failed(format!("failed at version {version}; try again")));
            }
        }
        Ok(())
    }
}

/// Builds the payload with which a DynamoDB Stream delivers commits.
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>
fn records(commits: &[Commit]) -> serde_dynamo::Result<dynamodb::Event> {
    let record = |commit: &Commit| {
        let image: Item = serde_dynamo::to_item(commit)?;
        let key = |name: &str| Some((name.to_owned(), image.get(name)?.clone()));
        let keys: HashMap<_, _> = ["stream", "version"]
            .iter()
            .filter_map(|name| key(name))
            .collect();
        let mut record = EventRecord::default();
        record.event_name = "INSERT".into();
        record.change.keys = keys.into();
        record.change.new_image = image;
        // A consumer identifies a failed record by its sequence number.
        record.change.sequence_number = Some(commit.version.to_string());
        Ok(record)
    };
    let records: serde_dynamo::Result<_> = commits.iter().map(record).collect();
    let mut event = dynamodb::Event::default();
    event.records = records?;
    Ok(event)
}

#[derive(Debug, Default)]
struct StackParts {
    functions: BTreeMap<String, String>,
    settings: HashMap<String, String>,
}

/// Lists the stacks of an account from the environment variables of its functions.
async fn stacks(aws: &SdkConfig) -> Result<BTreeMap<String, StackParts>, FindError> {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Stack::LIMIT);
    let config = aws_sdk_lambda::config::Builder::from(aws)
        .timeout_config(timeouts.build())
        .build();
    let functions = Client::from_conf(config).list_functions();
    let mut functions = functions.into_paginator().items().send();
    let mut stacks = BTreeMap::<String, StackParts>::new();
    while let Some(function) = functions.next().await {
        let function = function.map_err(|error| FindError::Unreachable(cause(&error)))?;
        let Some((stack, name, settings)) = ours(function) else {
            continue;
        };
        let found = stacks.entry(stack.clone()).or_default();
        if let Some(id) = logical_id(&stack, &name) {
            found.functions.insert(id.to_owned(), name.clone());
        }
        found.settings.extend(settings);
    }
    Ok(stacks)
}

fn ours(function: FunctionConfiguration) -> Option<(String, String, HashMap<String, String>)> {
    let settings = function.environment?.variables?;
    let stack = settings
        .get("STACK")
        .filter(|_| settings.contains_key("EVENTS_TABLE"))?;
    Some((stack.clone(), function.function_name?, settings))
}

/// `PlaceOrderFunction` in `cairn-PlaceOrderFunction-8QZ`.
fn logical_id<'a>(stack: &str, name: &'a str) -> Option<&'a str> {
    let rest = name.strip_prefix(stack)?.strip_prefix('-')?;
    rest.split('-').next()
}

/// Returns the root cause of an SDK error.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use cairn::dead_letter::{self, Condition, Subject};

    #[test]
    fn a_local_endpoint_is_recognized() {
        for url in [
            "http://127.0.0.1:4566",
            "http://localhost",
            "http://[::1]:4566/",
        ] {
            assert!(is_here(url), "{url}");
        }
        for url in [
            "https://lambda.us-east-1.amazonaws.com",
            "http://127.0.0.1.example.org:80",
        ] {
            assert!(!is_here(url), "{url}");
        }
    }

    #[test]
    fn a_dead_letter_of_a_redelivered_commit_names_it() {
        let commit = json!({
            "stream": "stock-TEA-01", "version": 3, "commit": "c",
            "at": "2027-01-15T08:00:00.000Z", "correlation": "c",
            "events": [{ "type": "StockReceived", "schema": 1, "data": "{}" }],
        });
        let commits: [Commit; 1] = [serde_json::from_value(commit).unwrap()];
        let event = serde_json::to_value(records(&commits).unwrap()).unwrap();
        let record = event.pointer("/Records/0").unwrap();
        let letter = dead_letter::from_record("f", record, Condition::Rejected, "test error");
        let subject = Subject::from_message(&letter.to_string(), &BTreeMap::new());
        assert_eq!(subject.to_string(), "stock-TEA-01@3 (sequence number 3)");
    }

    #[test]
    fn a_function_is_known_by_its_logical_id_whatever_stands_behind_it() {
        assert_eq!(
            logical_id("a-b", "a-b-PlaceOrderFunction-8QZ"),
            Some("PlaceOrderFunction")
        );
        assert_eq!(
            logical_id("a-b", "a-b-PlaceOrderFunction"),
            Some("PlaceOrderFunction")
        );
        assert_eq!(logical_id("a-b", "c-PlaceOrderFunction"), None);
    }
}
