//! Reads template.yaml strictly.
//!
//! Every property of every resource is used, or listed here as one without a local effect, or an
//! error with its line. So the local system cannot differ from the deployed one by an overlooked
//! property.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    aws::roles::{Grant, key_arn},
    conditions::Conditions,
    pattern::Pattern,
    yaml::{Kind, Node, parse},
};

mod api;
mod error;
mod functions;
pub(crate) mod names;
mod nested;
mod parameters;
mod policies;

use api::Api;
pub use error::TemplateError;
use functions::{Globals, function};
use names::{Fields, Names};
use nested::Nested;
use policies::managed_policy;

pub const REGION: &str = "us-east-1";
pub const ACCOUNT: &str = "000000000000";
pub const STACK: &str = "cairn";

/// The file name of a template that is given as a text.
const DEFAULT_FILE: &str = "template.yaml";

/// Parameter values by name, which replace the defaults.
pub type Parameters = BTreeMap<String, String>;

/// The part of a template that runs locally.
#[derive(Debug, Clone, Default)]
pub struct Template {
    file: String,
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
}

#[derive(Debug, Clone)]
pub struct FunctionSpec {
    pub id: String,
    /// The name of the crate: the last part of `CodeUri`.
    pub stem: String,
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

impl FunctionSpec {
    /// Returns the target of a rule or a schedule, by its name among the function's events.
    pub fn target(&self, rule: Option<&str>) -> Option<&RuleTarget> {
        let targets = self.triggers.iter().filter_map(|trigger| match trigger {
            Trigger::Rule(rule) => Some(&rule.target),
            Trigger::Schedule(schedule) => Some(&schedule.target),
            Trigger::Http(_) | Trigger::Stream(_) => None,
        });
        let mut named = targets.filter(|target| Some(target.name.as_str()) == rule);
        named.next()
    }

    /// True if the rule is a schedule of the function.
    pub(crate) fn is_scheduled(&self, rule: Option<&str>) -> bool {
        self.triggers.iter().any(|trigger| match trigger {
            Trigger::Schedule(schedule) => Some(schedule.target.name.as_str()) == rule,
            Trigger::Http(_) | Trigger::Rule(_) | Trigger::Stream(_) => false,
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
}

#[derive(Debug, Clone)]
pub struct Route {
    pub method: String,
    /// The path, with parameters in braces.
    pub path: String,
    /// The scopes of which a token needs one, if any are listed; `None` if no token is needed.
    pub scopes: Option<Vec<String>>,
    pub line: usize,
}

impl Route {
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
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
    /// The name of the rule among the function's events.
    pub name: String,
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

impl Template {
    pub fn load(path: &Path) -> Result<Self, TemplateError> {
        Self::load_with(path, &Parameters::default())
    }

    pub fn load_with(path: &Path, parameters: &Parameters) -> Result<Self, TemplateError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let file = path.display().to_string();
        let template = read(path).and_then(|text| Self::parse_in(directory, &text, parameters));
        match template {
            Ok(template) => Ok(Self { file, ..template }),
            Err(error) => Err(error.within(&file)),
        }
    }

    pub fn parameters_of(path: &Path) -> Result<Vec<String>, TemplateError> {
        let declared = |text: String| {
            let mut root = Fields::new("the template", parse(&text)?)?;
            let parameters = root.take("Parameters");
            parameters.map_or(Ok(vec![]), parameters::names)
        };
        read(path)
            .and_then(declared)
            .map_err(|error| error.within(&path.display().to_string()))
    }

    pub(crate) fn error(&self, line: usize, problem: impl Into<String>) -> TemplateError {
        TemplateError::new(line, problem).within(&self.file)
    }

    /// Removes the request limits of the API.
    #[must_use]
    pub fn unthrottled(self) -> Self {
        let throttling = Throttling::default();
        Self { throttling, ..self }
    }

    /// Reads a text without nested templates.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_in(Path::new(""), text, &Parameters::default())
    }

    /// Reads a text, with values for some parameters. Nested templates are read from `directory`.
    pub fn parse_in(
        directory: &Path,
        text: &str,
        parameters: &Parameters,
    ) -> Result<Self, TemplateError> {
        let mut root = Fields::new("the template", parse(text)?)?;
        root.ignore(&[
            "AWSTemplateFormatVersion",
            "Transform",
            "Description",
            "Metadata",
            "Outputs",
        ]);
        let mut names = Names::new(root.take("Parameters"), parameters)?;
        let conditions = Conditions::new(root.take("Conditions"), &names)?;
        conditions.check(root.take("Rules"), &names)?;
        let globals = match root.take("Globals") {
            Some(globals) => conditions.choose(globals)?,
            None => None,
        };
        let mut nested = Nested::new(directory);
        let mut resources = vec![];
        for (id, node) in Fields::new("Resources", root.required("Resources")?)?.entries {
            if let Some(resource) = resource(&id, node, &conditions, &names)? {
                names.resource(&resource, &mut nested)?;
                resources.push(resource);
            }
        }
        root.finish()?;

        // Globals refer to resources, so they are read after all resources are known.
        let globals = Globals::new(globals, &names)?;
        let mut template = Self {
            file: DEFAULT_FILE.to_owned(),
            queues: nested.queues,
            parameters: names.given(),
            ..Self::default()
        };
        let mut api = globals.api.clone();
        let mut policies = BTreeMap::new();
        let mut aliases = vec![];
        for Resource {
            id,
            kind,
            line,
            properties,
        } in resources
        {
            let properties = Fields::new(&id, properties)?;
            match kind.as_str() {
                "AWS::DynamoDB::Table" => template.tables.push(table(&id, properties, &names)?),
                "AWS::Events::EventBus" => template.buses.push(bus(properties, &names)?),
                "AWS::KMS::Key" => template.keys.push(key(&id, properties)?),
                "AWS::KMS::Alias" => aliases.push((alias(properties, &names)?, line)),
                "AWS::SQS::Queue" => template.queues.push(queue(&id, properties, &names)?),
                "AWS::Serverless::Function" => {
                    template
                        .functions
                        .push(function(&id, line, properties, &globals, &names)?);
                }
                "AWS::Serverless::HttpApi" => {
                    api = Api::new(properties, &globals.api, &names)?;
                }
                "AWS::IAM::ManagedPolicy" => {
                    policies.insert(id, managed_policy(properties, &names)?);
                }
                // Its resources are already known.
                "AWS::CloudFormation::Stack" => {}
                _ if WATCHING.contains(&kind.as_str()) => {}
                // A function implements its steps; locally an operator runs them.
                "AWS::Serverless::StateMachine" => {}
                _ => {
                    return Err(TemplateError::new(
                        line,
                        format!("{id} is a {kind}, which the local system does not support"),
                    ));
                }
            }
        }
        for function in &mut template.functions {
            for trigger in &mut function.triggers {
                if let Trigger::Http(route) = trigger {
                    route.scopes = api.scopes(route)?;
                }
            }
        }
        template.check_buses()?;
        for ((alias, target), line) in aliases {
            let mut keys = template.keys.iter_mut();
            let Some(key) = keys.find(|key| target == key.id || target == key_arn(&key.id)) else {
                let problem = format!("{alias} names the key {target}, which does not exist");
                return Err(TemplateError::new(line, problem));
            };
            key.aliases.push(alias);
        }
        template.throttling = api.throttling(&template.functions)?;
        template.authorizer = api.authorizer;
        template.boundary = globals.boundary.and_then(|name| policies.remove(&name));
        Ok(template)
    }

    /// Checks that every rule names a bus of the template.
    fn check_buses(&self) -> Result<(), TemplateError> {
        let triggers = self.functions.iter().flat_map(|spec| &spec.triggers);
        for trigger in triggers {
            if let Trigger::Rule(rule) = trigger
                && !self.buses.contains(&rule.bus)
            {
                let problem = format!("unknown bus {}", rule.bus);
                return Err(TemplateError::new(rule.line, problem));
            }
        }
        Ok(())
    }
}

/// Resource types that monitor or describe others or limit the access to them, and do no work
/// themselves.
const WATCHING: [&str; 11] = [
    "AWS::SQS::QueuePolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
    "AWS::Logs::MetricFilter",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::SNS::Topic",
    "AWS::SNS::Subscription",
    "AWS::EventSchemas::Registry",
    "AWS::EventSchemas::Schema",
];

/// An existing resource, with every choice resolved.
struct Resource {
    id: String,
    kind: String,
    line: usize,
    properties: Node,
}

/// Reads the common part of all resources; `None` if the resource's condition is false.
fn resource(
    id: &str,
    node: Node,
    conditions: &Conditions,
    names: &Names,
) -> Result<Option<Resource>, TemplateError> {
    let mut resource = Fields::new(id, node)?;
    resource.ignore(&[
        "DeletionPolicy",
        "UpdateReplacePolicy",
        "Metadata",
        "DependsOn",
    ]);
    let line = resource.line;
    let kind = names.text(&resource.required("Type")?)?;
    let condition = resource.take("Condition");
    let properties = resource.take("Properties");
    resource.finish()?;
    if let Some(condition) = condition
        && !conditions.named(&names.text(&condition)?, condition.line)?
    {
        return Ok(None);
    }
    let properties = match properties {
        Some(properties) => conditions.choose(properties)?,
        None => None,
    };
    let nothing = || Node {
        line,
        kind: Kind::Map(vec![]),
    };
    Ok(Some(Resource {
        id: id.to_owned(),
        kind,
        line,
        properties: properties.unwrap_or_else(nothing),
    }))
}

fn read(path: &Path) -> Result<String, TemplateError> {
    std::fs::read_to_string(path)
        .map_err(|error| TemplateError::of_all(format!("reading the file failed: {error}")))
}

fn table(id: &str, mut properties: Fields, names: &Names) -> Result<Table, TemplateError> {
    properties.ignore(&[
        "PointInTimeRecoverySpecification",
        "DeletionProtectionEnabled",
        "SSESpecification",
        "ResourcePolicy",
        // An expired item stays, as it can for days on AWS.
        "TimeToLiveSpecification",
        "WarmThroughput",
        "OnDemandThroughput",
        "Tags",
    ]);
    let mut create = serde_json::Map::new();
    create.insert("TableName".to_owned(), id.into());
    for name in ["BillingMode", "AttributeDefinitions", "KeySchema"] {
        create.insert(name.to_owned(), names.value(&properties.required(name)?)?);
    }
    if let Some(indexes) = properties.take("GlobalSecondaryIndexes") {
        create.insert("GlobalSecondaryIndexes".to_owned(), names.value(&indexes)?);
    }
    if let Some(stream) = properties.take("StreamSpecification") {
        let mut stream = Fields::new("StreamSpecification", stream)?;
        let view = names.text(&stream.required("StreamViewType")?)?;
        stream.finish()?;
        let specification = json!({ "StreamEnabled": true, "StreamViewType": view });
        create.insert("StreamSpecification".to_owned(), specification);
    }
    properties.finish()?;
    Ok(Table {
        name: id.to_owned(),
        create: create.into(),
    })
}

fn key(id: &str, mut properties: Fields) -> Result<MasterKey, TemplateError> {
    properties.ignore(&[
        "Description",
        "EnableKeyRotation",
        "KeyPolicy",
        "MultiRegion",
        "PendingWindowInDays",
        "Tags",
    ]);
    properties.finish()?;
    Ok(MasterKey {
        id: id.to_owned(),
        aliases: vec![],
    })
}

fn alias(mut properties: Fields, names: &Names) -> Result<(String, String), TemplateError> {
    let alias = names.text(&properties.required("AliasName")?)?;
    let target = names.text(&properties.required("TargetKeyId")?)?;
    properties.finish()?;
    Ok((alias, target))
}

fn bus(mut properties: Fields, names: &Names) -> Result<String, TemplateError> {
    let name = names.text(&properties.required("Name")?)?;
    properties.finish()?;
    Ok(name)
}

fn queue(id: &str, mut properties: Fields, names: &Names) -> Result<Queue, TemplateError> {
    properties.ignore(&["KmsMasterKeyId", "SqsManagedSseEnabled"]);
    let mut number = |name: &str, default: u32| match properties.take(name) {
        Some(node) => names.number(&node),
        None => Ok(default),
    };
    let queue = Queue {
        name: id.to_owned(),
        visibility_s: number("VisibilityTimeout", 30)?.into(),
        delay_s: number("DelaySeconds", 0)?.into(),
        wait_s: number("ReceiveMessageWaitTimeSeconds", 0)?.into(),
        retention_s: number("MessageRetentionPeriod", 345_600)?.into(),
        max_bytes: number("MaximumMessageSize", 1_048_576)? as usize,
    };
    properties.finish()?;
    Ok(queue)
}
