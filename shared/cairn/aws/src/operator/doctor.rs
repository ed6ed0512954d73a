//! Compares a deployed stack with its own template.
//!
//! CloudFormation returns the template and the parameters of the deployment. The services return
//! the state of each resource. A difference means that a deployment did not reach the resource, or
//! that a change was made outside CloudFormation. Every call reads.

use std::{error::Error, fmt::Display};

use aws_config::SdkConfig;
use aws_sdk_eventbridge::types::Target;
use aws_sdk_lambda::{
    error::{ProvideErrorMetadata, SdkError},
    types::FunctionResponseType,
};
use aws_sdk_sqs::types::QueueAttributeName;
use serde::Serialize;
use serde_json::Value;

mod routes;

pub use super::query::QueryError;
use super::{
    Stack, cause,
    deployment::Deployment,
    query::{CLOUDWATCH, Record, call},
};

/// A stack with the templates that CloudFormation deployed: its own and those of nested stacks.
#[derive(Debug)]
pub struct Doctor<'s> {
    stack: &'s Stack,
    aws: &'s SdkConfig,
    deployments: Vec<Deployment>,
}

/// A part of a stack that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The description, timeout, memory and environment variables of the alias `live` of each
    /// function.
    Functions,
    /// The response of each route of an HTTP API to a request without a token. The routes of other
    /// APIs are not checked.
    Routes,
    /// The state and the settings of each event source mapping, and the visibility timeout of its
    /// queue.
    Mappings,
    /// The state and the targets of each EventBridge rule.
    Rules,
    /// The existence and the state of each alarm.
    Alarms,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Examined {
    /// The number of resources that the service returned.
    pub examined: usize,
    /// The differences, and the resources that do not exist.
    pub wrong: Vec<String>,
    /// The resources that could not be read, with the reason.
    pub not_checked: Vec<String>,
}

impl Examined {
    fn failed<E>(&mut self, resource: &str, error: &SdkError<E>)
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if error.code() == Some("ResourceNotFoundException") {
            self.wrong.push(format!("{resource} does not exist"));
        } else {
            let reason = error.message().map_or_else(|| cause(error), str::to_owned);
            self.not_checked.push(format!("{resource}: {reason}"));
        }
    }

    /// Compares the properties of a resource. A property without a known value in the template is
    /// not compared.
    fn compare<const N: usize>(
        &mut self,
        deployment: &Deployment,
        (id, properties): (&str, &Value),
        found: [(&str, Option<String>); N],
    ) {
        for (property, found) in found {
            let expected = properties
                .get(property)
                .and_then(|node| deployment.text(node));
            if let Some(expected) = expected
                && found.as_ref() != Some(&expected)
            {
                let found = found.as_deref().unwrap_or("not set");
                self.wrong.push(differs(id, property, found, &expected));
            }
        }
    }
}

fn differs(id: &str, name: &str, found: &str, expected: &str) -> String {
    format!("{id}: {name} is {found:?}, and the template sets {expected:?}")
}

fn text<T: Display>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

impl Stack {
    /// Reads the templates of the stack and of its nested stacks from CloudFormation.
    ///
    /// # Errors
    /// Returns an error if the endpoint does not offer CloudFormation, or rejects a call.
    pub async fn doctor(&self) -> Result<Doctor<'_>, QueryError> {
        Ok(Doctor {
            stack: self,
            aws: &self.aws,
            deployments: Deployment::read(&self.aws, &self.name).await?,
        })
    }
}

impl Doctor<'_> {
    /// Compares a part of the stack with the templates. A call that fails is in the result. The
    /// result is empty if the templates have no resource of this part.
    pub async fn examine(&self, part: Part) -> Examined {
        let mut result = Examined::default();
        for deployment in &self.deployments {
            match part {
                Part::Functions => self.functions(deployment, &mut result).await,
                Part::Routes => routes::examine(deployment, &mut result).await,
                Part::Mappings => self.mappings(deployment, &mut result).await,
                Part::Rules => self.rules(deployment, &mut result).await,
                Part::Alarms => self.alarms(deployment, &mut result).await,
            }
        }
        // The stack was found by its functions, so templates without any were not read as deployed.
        let kind = "AWS::Lambda::Function";
        let mut deployments = self.deployments.iter();
        if deployments.all(|deployment| deployment.resources(kind).next().is_none()) {
            let reason = "the templates that CloudFormation returns have no functions";
            result.not_checked.push(reason.to_owned());
        }
        result
    }

    async fn functions(&self, deployment: &Deployment, result: &mut Examined) {
        for (id, properties, name) in created(deployment, "AWS::Lambda::Function", result) {
            if properties.is_null() {
                let reason = "the template of a nested stack is not read";
                result.not_checked.push(format!("{id}: {reason}"));
                continue;
            }
            let request = self
                .stack
                .lambda
                .get_function_configuration()
                .function_name(name);
            let found = match request.qualifier(&self.stack.alias).send().await {
                Ok(found) => found,
                Err(error) => {
                    result.failed(id, &error);
                    continue;
                }
            };
            result.examined += 1;
            let configured = [
                ("Description", found.description),
                ("Timeout", text(found.timeout)),
                ("MemorySize", text(found.memory_size)),
            ];
            result.compare(deployment, (id, properties), configured);
            let variables = found
                .environment
                .and_then(|environment| environment.variables);
            let mut variables = variables.unwrap_or_default();
            let expected = properties.pointer("/Environment/Variables");
            for (name, node) in expected.and_then(Value::as_object).into_iter().flatten() {
                let Some(node) = deployment.chosen(node) else {
                    continue;
                };
                match (variables.remove(name), deployment.text(node)) {
                    (None, _) => result.wrong.push(format!("{id}: {name} is not set")),
                    (Some(found), Some(expected)) if found != expected => {
                        result.wrong.push(differs(id, name, &found, &expected));
                    }
                    (Some(_), _) => {}
                }
            }
            for name in variables.keys() {
                result
                    .wrong
                    .push(format!("{id}: {name} is not in the template"));
            }
        }
    }

    async fn mappings(&self, deployment: &Deployment, result: &mut Examined) {
        for (id, properties, uuid) in created(deployment, "AWS::Lambda::EventSourceMapping", result)
        {
            let request = self.stack.lambda.get_event_source_mapping().uuid(uuid);
            let found = match request.send().await {
                Ok(found) => found,
                Err(error) => {
                    result.failed(id, &error);
                    continue;
                }
            };
            result.examined += 1;
            let state = found.state.unwrap_or_default();
            if state != "Enabled" {
                result.wrong.push(format!("{id} is {state} (UUID {uuid})"));
            }
            let configured = [
                ("BatchSize", text(found.batch_size)),
                (
                    "BisectBatchOnFunctionError",
                    text(found.bisect_batch_on_function_error),
                ),
                (
                    "MaximumRecordAgeInSeconds",
                    text(found.maximum_record_age_in_seconds),
                ),
                ("MaximumRetryAttempts", text(found.maximum_retry_attempts)),
                ("ParallelizationFactor", text(found.parallelization_factor)),
                (
                    "MaximumBatchingWindowInSeconds",
                    text(found.maximum_batching_window_in_seconds),
                ),
                ("FunctionName", found.function_arn.clone()),
            ];
            result.compare(deployment, (id, properties), configured);
            let reports = found.function_response_types.unwrap_or_default();
            let expected = properties.get("FunctionResponseTypes");
            let expected = expected.and_then(Value::as_array).into_iter().flatten();
            let is_same = reports
                .iter()
                .map(FunctionResponseType::as_str)
                .eq(expected);
            if !properties.is_null() && !is_same {
                let problem = format!("{id}: FunctionResponseTypes is {reports:?}");
                result.wrong.push(problem);
            }
            let source = found.event_source_arn.unwrap_or_default();
            if !source.contains(":sqs:") {
                continue;
            }
            if reports.is_empty() {
                let problem = "reports no failed messages, so a batch fails or succeeds as a whole";
                result.wrong.push(format!("{id} {problem}"));
            }
            let window = found.maximum_batching_window_in_seconds.unwrap_or(0);
            let function = found.function_arn.unwrap_or_default();
            self.visibility(id, (&source, window), &function, result)
                .await;
        }
    }

    /// Checks that messages do not become visible while a function may still handle them.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>
    async fn visibility(
        &self,
        id: &str,
        (queue, window): (&str, i32),
        function: &str,
        result: &mut Examined,
    ) {
        const ATTRIBUTE: QueueAttributeName = QueueAttributeName::VisibilityTimeout;
        let configuration = self.stack.lambda.get_function_configuration();
        let timeout = match configuration.function_name(function).send().await {
            Ok(found) => found.timeout.unwrap_or_default(),
            Err(error) => return result.failed(id, &error),
        };
        let queues = aws_sdk_sqs::Client::new(self.aws);
        let name = queue.rsplit(':').next().unwrap_or_default();
        let url = match queues.get_queue_url().queue_name(name).send().await {
            Ok(found) => found.queue_url.unwrap_or_default(),
            Err(error) => return result.failed(id, &error),
        };
        let attributes = queues.get_queue_attributes().queue_url(url);
        let attributes = match attributes.attribute_names(ATTRIBUTE).send().await {
            Ok(found) => found.attributes.unwrap_or_default(),
            Err(error) => return result.failed(id, &error),
        };
        let visible = attributes
            .get(&ATTRIBUTE)
            .and_then(|text| text.parse().ok());
        let (visible, least) = (visible.unwrap_or(0), 6 * timeout + window);
        if visible < least {
            result.wrong.push(format!(
                "{id}: the visibility timeout of {name} is {visible} s, less than six timeouts of the \
                 function and the window, {least} s"
            ));
        }
    }

    async fn rules(&self, deployment: &Deployment, result: &mut Examined) {
        let events = aws_sdk_eventbridge::Client::new(self.aws);
        for (id, properties, rule) in created(deployment, "AWS::Events::Rule", result) {
            let bus = properties
                .get("EventBusName")
                .and_then(|bus| deployment.text(bus));
            // CloudFormation names a rule of another bus than the default one `BUS|RULE`.
            let (bus, rule) = match rule.split_once('|') {
                Some((bus, rule)) => (Some(bus.to_owned()), rule),
                None => (bus, rule),
            };
            let described = events
                .describe_rule()
                .name(rule)
                .set_event_bus_name(bus.clone());
            let targets = events
                .list_targets_by_rule()
                .rule(rule)
                .set_event_bus_name(bus);
            let described = match described.send().await {
                Ok(described) => described,
                Err(error) => {
                    result.failed(id, &error);
                    continue;
                }
            };
            let targets = match targets.send().await {
                Ok(targets) => targets.targets.unwrap_or_default(),
                Err(error) => {
                    result.failed(id, &error);
                    continue;
                }
            };
            result.examined += 1;
            let state = properties
                .get("State")
                .and_then(|state| deployment.text(state));
            let expected = state.as_deref().unwrap_or("ENABLED");
            if let Some(state) = described.state.filter(|state| state.as_str() != expected) {
                let problem = format!("{id} is {state}, not {expected} (rule {rule})");
                result.wrong.push(problem);
            }
            let expected = properties.get("Targets").and_then(Value::as_array);
            for target in expected.into_iter().flatten() {
                compare_target(deployment, (id, target), &targets, result);
            }
        }
    }

    async fn alarms(&self, deployment: &Deployment, result: &mut Examined) {
        let mut alarms = vec![];
        for kind in ["AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"] {
            alarms.extend(
                created(deployment, kind, result)
                    .into_iter()
                    .map(|(_, _, name)| name),
            );
        }
        // A call takes at most 100 names.
        for names in alarms.chunks(100) {
            let kinds = ["MetricAlarm", "CompositeAlarm"];
            let numbered = |list: &'static str, items: &[&str]| -> Vec<_> {
                let items = items.iter().enumerate();
                let item = |(index, item): (usize, &&str)| {
                    (format!("{list}.member.{}", index + 1), (*item).to_owned())
                };
                items.map(item).collect()
            };
            let mut parameters = numbered("AlarmNames", names);
            parameters.extend(numbered("AlarmTypes", &kinds));
            parameters.push(("MaxRecords".to_owned(), "100".to_owned()));
            let members = ["AlarmName", "StateValue", "ActionsEnabled"];
            let found = call(
                self.aws,
                CLOUDWATCH,
                "DescribeAlarms",
                &parameters,
                &members,
            )
            .await;
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    result.not_checked.push(error.to_string());
                    continue;
                }
            };
            for name in names {
                let is_named =
                    |alarm: &&Record| alarm.get("AlarmName").is_some_and(|known| known == name);
                let Some(alarm) = found.iter().find(is_named) else {
                    result.wrong.push(format!("{name} does not exist"));
                    continue;
                };
                result.examined += 1;
                let has = |member: &str, value: &str| {
                    alarm.get(member).is_some_and(|found| found == value)
                };
                if has("StateValue", "ALARM") {
                    result.wrong.push(format!("{name} is in state ALARM"));
                }
                if has("ActionsEnabled", "false") {
                    result.wrong.push(format!("{name} notifies no operator"));
                }
            }
        }
    }
}

/// Returns the resources of a type with their physical ids. A resource without one was not created.
fn created<'d>(
    deployment: &'d Deployment,
    kind: &'d str,
    result: &mut Examined,
) -> Vec<(&'d str, &'d Value, &'d str)> {
    let mut created = vec![];
    for (id, properties) in deployment.resources(kind) {
        match deployment.value(id) {
            Some(physical) => created.push((id, properties, physical)),
            None => result.wrong.push(format!("{id} was not created")),
        }
    }
    created
}

fn compare_target(
    deployment: &Deployment,
    (id, expected): (&str, &Value),
    targets: &[Target],
    result: &mut Examined,
) {
    let name = expected
        .get("Id")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(found) = targets.iter().find(|target| target.id == name) else {
        result.wrong.push(format!("{id} has no target {name}"));
        return;
    };
    let arn = ("Arn", Some(found.arn.clone()));
    result.compare(deployment, (id, expected), [arn]);
    if expected.get("DeadLetterConfig").is_some() && found.dead_letter_config.is_none() {
        result
            .wrong
            .push(format!("{id}: the target has no dead-letter queue"));
    }
    let policy = expected.get("RetryPolicy").unwrap_or(&Value::Null);
    let retries = found.retry_policy.as_ref();
    let configured = [
        (
            "MaximumRetryAttempts",
            text(retries.and_then(|policy| policy.maximum_retry_attempts)),
        ),
        (
            "MaximumEventAgeInSeconds",
            text(retries.and_then(|policy| policy.maximum_event_age_in_seconds)),
        ),
    ];
    result.compare(deployment, (id, policy), configured);
}
