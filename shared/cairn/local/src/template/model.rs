//! The part of a template that runs locally.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::{error::TemplateError, route::Route};
use crate::{
    names::{alias_arn, function_arn},
    pattern::Pattern,
};

/// Parameter values by name, which replace the defaults.
pub type Parameters = BTreeMap<String, String>;

/// The part of a template that runs locally.
#[derive(Debug, Clone, Default)]
pub struct Template {
    pub(super) file: String,
    /// The name of the stack.
    pub stack: String,
    /// The values of all parameters.
    pub parameters: Parameters,
    pub tables: Vec<Table>,
    pub buses: Vec<String>,
    pub queues: Vec<Queue>,
    pub keys: Vec<MasterKey>,
    pub functions: Vec<FunctionSpec>,
    /// The issuer of the tokens that protected routes accept.
    pub authorizer: Option<Authorizer>,
    pub throttling: Throttling,
    /// The permissions boundary of all functions; `None` if only their roles restrict them.
    pub boundary: Option<BTreeSet<Grant>>,
}

#[derive(Debug, Clone)]
pub struct Table {
    /// The name, which is the logical id.
    pub name: String,
    /// The `CreateTable` request.
    pub create: Value,
}

impl Table {
    /// True if the table has a `DynamoDB` Stream.
    pub(crate) fn has_stream(&self) -> bool {
        self.create.get("StreamSpecification").is_some()
    }
}

/// A KMS key that wraps other keys.
#[derive(Debug, Clone)]
pub struct MasterKey {
    /// The id, which is the logical id.
    pub id: String,
    /// The aliases, such as `alias/personal-data`.
    pub aliases: Vec<String>,
}

/// A queue, with the defaults of its messages.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-sqs-queue.html>
#[derive(Debug, Clone)]
pub struct Queue {
    pub name: String,
    pub visibility_s: i64,
    pub delay_s: i64,
    /// The wait time of a receive in seconds.
    pub wait_s: i64,
    /// The retention on AWS in seconds. Locally a message stays until it is deleted.
    pub retention_s: i64,
    pub max_bytes: usize,
    /// The limit of receives; `None` without a dead-letter queue.
    pub redrive: Option<Redrive>,
}

/// A queue's policy for messages that are received too often.
#[derive(Debug, Clone)]
pub struct Redrive {
    /// The dead-letter queue.
    pub queue: String,
    /// The receives after which a message is moved.
    pub receives: u32,
}

/// An event source mapping from a queue to a function.
#[derive(Debug, Clone)]
pub struct QueueMapping {
    /// The name of the mapping among the function's events.
    pub name: String,
    /// True if messages are delivered.
    pub is_enabled: bool,
    pub queue: String,
    pub batch_size: usize,
    /// The time on AWS for which a batch waits for more messages.
    pub window: Duration,
    /// The batches that are invoked at the same time.
    pub concurrency: usize,
    /// True if the function reports unhandled messages.
    pub reports_failures: bool,
    /// The rules that send events to the queue.
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub struct FunctionSpec {
    pub id: String,
    /// The name of the stack.
    pub stack: String,
    /// The name of the crate: the last part of `CodeUri`.
    pub stem: String,
    pub code: Code,
    pub line: usize,
    pub settings: BTreeMap<String, String>,
    /// The same variables as the template sets them: a reference to a parameter is a `Ref`.
    pub variables: BTreeMap<String, Value>,
    /// The timeout of an invocation in seconds.
    pub timeout_s: u64,
    pub reserved: Option<usize>,
    /// The retries of a failed asynchronous invocation.
    pub retries: u32,
    /// The maximum age of an asynchronous event on AWS.
    pub max_age: Duration,
    /// The queue for asynchronous invocations that failed permanently.
    pub on_failure: Option<String>,
    pub grants: BTreeSet<Grant>,
    pub triggers: Vec<Trigger>,
}

/// The entries of a function that lead to its program.
#[derive(Debug, Clone)]
pub struct Code {
    /// The folder in `CodeUri`, relative to the template.
    pub uri: String,
    pub runtime: Option<String>,
    pub handler: Option<String>,
    /// The memory size in MiB.
    pub memory_mb: u64,
    /// The binary in the build properties of the metadata.
    pub binary: Option<String>,
    /// The `LocalCommand` of the metadata: a program and its arguments.
    pub command: Option<Vec<String>>,
}

impl Code {
    /// The last part of the folder.
    pub(super) fn stem(&self) -> &str {
        let folder = self.uri.trim_end_matches('/');
        folder.rsplit('/').next().unwrap_or_default()
    }
}

impl FunctionSpec {
    /// Returns the name of the function, which begins with that of the stack, as on AWS.
    pub fn name(&self) -> String {
        format!("{}-{}", self.stack, self.id)
    }

    /// Returns the ARN of the function.
    pub fn arn(&self) -> String {
        function_arn(&self.name())
    }

    /// Returns the ARN of the function's alias, under which every caller invokes it.
    pub(crate) fn alias_arn(&self) -> String {
        alias_arn(&self.name())
    }

    /// Returns the rules whose events reach the function, directly or through a queue.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.triggers.iter().flat_map(|trigger| match trigger {
            Trigger::Rule(rule) => std::slice::from_ref(rule),
            Trigger::Queue(mapping) => &mapping.rules,
            Trigger::Http(_) | Trigger::Stream(_) | Trigger::Schedule(_) => &[],
        })
    }

    /// Returns the target of a rule or a schedule, by its name among the function's events.
    pub fn target(&self, rule: Option<&str>) -> Option<&RuleTarget> {
        let scheduled = self.triggers.iter().filter_map(|trigger| match trigger {
            Trigger::Schedule(schedule) => Some(&schedule.target),
            Trigger::Http(_) | Trigger::Rule(_) | Trigger::Stream(_) | Trigger::Queue(_) => None,
        });
        let mut targets = self.rules().map(|rule| &rule.target).chain(scheduled);
        targets.find(|target| Some(target.name.as_str()) == rule)
    }

    /// Returns the name under which the position of a stream mapping is stored.
    pub(crate) fn consumer(&self, mapping: &Mapping) -> String {
        let is_stream = |trigger: &&Trigger| matches!(trigger, Trigger::Stream(_));
        if self.triggers.iter().filter(is_stream).count() > 1 {
            format!("{}/{}", self.id, mapping.name)
        } else {
            self.id.clone()
        }
    }

    /// True if the rule is a schedule of the function.
    pub(crate) fn is_scheduled(&self, rule: Option<&str>) -> bool {
        self.triggers.iter().any(|trigger| match trigger {
            Trigger::Schedule(schedule) => Some(schedule.target.name.as_str()) == rule,
            Trigger::Http(_) | Trigger::Rule(_) | Trigger::Stream(_) | Trigger::Queue(_) => false,
        })
    }
}

#[derive(Debug, Clone)]
pub enum Trigger {
    Http(Route),
    Rule(Rule),
    /// The `DynamoDB` Stream of a table.
    Stream(Mapping),
    Schedule(Schedule),
    /// The messages of a queue.
    Queue(QueueMapping),
}

/// The request limits of an HTTP API, which answers 429 beyond them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttling {
    /// The shared limits of all routes without their own; `None` if unlimited.
    pub default: Option<Throttle>,
    /// The limits of routes with their own settings, by method and path, such as `POST /orders`.
    pub routes: BTreeMap<String, Throttle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Requests per second.
    pub rate: u64,
    /// Requests in a burst.
    pub burst: u64,
}

/// The issuer whose tokens an API accepts.
#[derive(Debug, Clone)]
pub struct Authorizer {
    /// The URL of the issuer, whose keys are found by `OpenID` discovery.
    pub issuer: String,
    /// The audiences or client ids, one of which a token must name.
    pub audience: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub bus: String,
    pub pattern: Value,
    pub matcher: Pattern,
    pub line: usize,
    pub target: RuleTarget,
}

/// The delivery settings of a rule.
#[derive(Debug, Clone)]
pub struct RuleTarget {
    /// The logical id of the rule.
    pub id: String,
    /// The name of the rule among the function's events; the logical id of one that is not there.
    pub name: String,
    /// The queue to which the rule sends; `None` if it invokes the function.
    pub queue: Option<String>,
    /// True if the template enables the rule.
    pub is_declared_enabled: bool,
    /// True if the rule delivers events.
    pub is_enabled: bool,
    pub retries: u32,
    /// The maximum age of an event on AWS.
    pub max_age: Duration,
    /// The queue for events that could not be delivered.
    pub dead_letters: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Schedule {
    /// The interval on AWS.
    pub every: Duration,
    /// The constant input that replaces the event.
    pub input: Option<String>,
    pub target: RuleTarget,
}

/// An event source mapping from the `DynamoDB` Stream of a table to a function.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The name of the mapping among the function's events.
    pub name: String,
    /// True if records are delivered.
    pub is_enabled: bool,
    pub table: String,
    pub batch_size: usize,
    /// True if the function reports unhandled records.
    pub reports_failures: bool,
    /// True if a failed batch is halved.
    pub bisects: bool,
    /// The retries of a failed batch; `None` if it is retried until its records expire.
    pub retries: Option<u32>,
    /// The maximum age of a record on AWS; `None` if only the stream's retention limits it.
    pub max_age: Option<Duration>,
    /// The queue for pointers to records that failed permanently.
    pub on_failure: Option<String>,
}

/// An action that is allowed on resources that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The action, such as `dynamodb:Query`.
    pub action: String,
    /// An ARN in which `*` matches any text.
    pub resource: String,
    /// The value that the call must have for a condition key.
    pub condition: Option<(ConditionKey, String)>,
}

/// The subject of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKey {
    /// `events:source`, the source of each event.
    Source,
    /// `ses:FromAddress`, the sender of an email.
    Sender,
}

impl Template {
    pub(crate) fn error(&self, line: usize, problem: impl Into<String>) -> TemplateError {
        TemplateError::new(line, problem).within(&self.file)
    }

    /// The folder that relative paths of the template start from.
    pub(crate) fn directory(&self) -> &Path {
        Path::new(&self.file).parent().unwrap_or(Path::new(""))
    }

    /// Removes the request limits of the API.
    #[must_use]
    pub fn unthrottled(self) -> Self {
        let throttling = Throttling::default();
        Self { throttling, ..self }
    }

    /// Multiplies the windows in which queues collect batches.
    #[must_use]
    pub fn with_windows(mut self, factor: u32) -> Self {
        let functions = self.functions.iter_mut();
        for trigger in functions.flat_map(|function| &mut function.triggers) {
            if let Trigger::Queue(mapping) = trigger {
                mapping.window *= factor;
            }
        }
        self
    }
}
