//! template.yaml, read strictly.
//!
//! Every property of every resource is either used, or named here as one that changes nothing on
//! one machine, or an error that names its line. So the one-machine system cannot drift from what
//! is deployed by overlooking something.

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

/// The region that ARNs and clients name.
pub const REGION: &str = "us-east-1";
/// The account that ARNs name.
pub const ACCOUNT: &str = "000000000000";
/// The name of the stack.
pub const STACK: &str = "cairn";

/// The name of a template that is given as a text.
const DEFAULT_FILE: &str = "template.yaml";

/// Values of a template's parameters, by name, in place of their defaults.
pub type Parameters = BTreeMap<String, String>;

/// The system, as far as it runs on one machine.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// Its file, as errors name it.
    file: String,
    /// The tables.
    pub tables: Vec<Table>,
    /// The names of the buses.
    pub buses: Vec<String>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// The keys of KMS.
    pub keys: Vec<MasterKey>,
    /// The functions.
    pub functions: Vec<FunctionSpec>,
    /// Who may call the routes that do not take everybody.
    pub authorizer: Option<Authorizer>,
    /// The number of requests that the HTTP API takes.
    pub throttling: Throttling,
    /// What no function goes beyond; `None`: nothing holds them but their roles.
    pub boundary: Option<BTreeSet<Grant>>,
}

/// A table, as `CreateTable` takes it.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name, which is its logical id.
    pub name: String,
    /// The request that creates it.
    pub create: Value,
}

/// A key of KMS, which wraps others.
#[derive(Debug, Clone)]
pub struct MasterKey {
    /// Its id, which is its logical id.
    pub id: String,
    /// Its aliases: `alias/personal-data`.
    pub aliases: Vec<String>,
}

/// A queue, with the attributes that its messages have by default.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-sqs-queue.html>
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// The time for which a received message is hidden, in seconds.
    pub visibility_s: i64,
    /// The delay of a delivery, in seconds.
    pub delay_s: i64,
    /// The time that a receiver waits for a message, in seconds.
    pub wait_s: i64,
    /// The time that AWS keeps a message, in seconds. Locally it stays until it is deleted.
    pub retention_s: i64,
    /// The most bytes of a message.
    pub max_bytes: usize,
}

/// A function.
#[derive(Debug, Clone)]
pub struct FunctionSpec {
    /// Its logical id.
    pub id: String,
    /// The name of its crate: the last part of `CodeUri`.
    pub stem: String,
    /// The line it begins on.
    pub line: usize,
    /// Its environment variables.
    pub settings: BTreeMap<String, String>,
    /// How long an invocation may take, in seconds.
    pub timeout_s: u64,
    /// How many invocations run at once at most, where that is fixed.
    pub reserved: Option<usize>,
    /// How often a failed asynchronous invocation is tried again.
    pub retries: u32,
    /// How long an asynchronous invocation is kept, on AWS.
    pub max_age: Duration,
    /// The queue for asynchronous invocations that failed for good.
    pub on_failure: Option<String>,
    /// What its role allows.
    pub grants: BTreeSet<Grant>,
    /// What invokes it.
    pub triggers: Vec<Trigger>,
}

impl FunctionSpec {
    /// The target of a rule or a schedule, by its name among the function's events.
    pub fn target(&self, rule: Option<&str>) -> Option<&RuleTarget> {
        let targets = self.triggers.iter().filter_map(|trigger| match trigger {
            Trigger::Rule(rule) => Some(&rule.target),
            Trigger::Schedule(schedule) => Some(&schedule.target),
            Trigger::Http(_) | Trigger::Stream(_) => None,
        });
        let mut named = targets.filter(|target| Some(target.name.as_str()) == rule);
        named.next()
    }

    /// True if the clock invokes the function by this rule.
    pub(crate) fn is_scheduled(&self, rule: Option<&str>) -> bool {
        self.triggers.iter().any(|trigger| match trigger {
            Trigger::Schedule(schedule) => Some(schedule.target.name.as_str()) == rule,
            Trigger::Http(_) | Trigger::Rule(_) | Trigger::Stream(_) => false,
        })
    }
}

/// What invokes a function.
#[derive(Debug, Clone)]
pub enum Trigger {
    /// A route of the HTTP API.
    Http(Route),
    /// A rule of a bus.
    Rule(Rule),
    /// The stream of a table.
    Stream(Mapping),
    /// The clock.
    Schedule(Schedule),
}

/// A route of the HTTP API.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method.
    pub method: String,
    /// The path, with parameters in braces.
    pub path: String,
    /// The scopes of which a token needs one, where there are any; `None`: it needs no token.
    pub scopes: Option<Vec<String>>,
    /// The line that it stands on.
    pub line: usize,
}

impl Route {
    /// The route's key: its method and path.
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The number of requests that an HTTP API takes before it answers 429.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Of all routes together that have no settings of their own; `None`: any number.
    pub default: Option<Throttle>,
    /// Of the routes with settings of their own, by method and path as in `POST /orders`.
    pub routes: BTreeMap<String, Throttle>,
}

/// The limits of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Requests a second.
    pub rate: u64,
    /// Requests at once.
    pub burst: u64,
}

/// Whose tokens an API takes.
#[derive(Debug, Clone)]
pub struct Authorizer {
    /// The issuer, as an URL. Its keys are found by `OpenID` discovery.
    pub issuer: String,
    /// The audiences or client ids, one of which a token must be for.
    pub audience: Vec<String>,
}

/// A rule of a bus.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The bus.
    pub bus: String,
    /// The event pattern as it is written.
    pub pattern: Value,
    /// The event pattern as it is matched.
    pub matcher: Pattern,
    /// The line the pattern begins on.
    pub line: usize,
    /// What happens when its target is not reached.
    pub target: RuleTarget,
}

/// What happens when the function of a rule is not reached.
#[derive(Debug, Clone)]
pub struct RuleTarget {
    /// The rule's name among the function's events.
    pub name: String,
    /// How often it is tried again.
    pub retries: u32,
    /// How long it is tried, on AWS.
    pub max_age: Duration,
    /// The queue for events that were not handed over.
    pub dead_letters: Option<String>,
}

/// A rule that the clock sets off.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// How often, on AWS.
    pub every: Duration,
    /// What the function gets instead of the event.
    pub input: Option<String>,
    /// What happens when its target is not reached.
    pub target: RuleTarget,
}

/// A mapping of a table's stream to a function.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The table.
    pub table: String,
    /// The most records of one batch.
    pub batch_size: usize,
    /// Whether the function reports what it could not handle.
    pub reports_failures: bool,
    /// Whether a failed batch is halved.
    pub bisects: bool,
    /// How often a failed batch is tried again; `None`: until its records are gone.
    pub retries: Option<u32>,
    /// How old a record may be, on AWS; `None`: as old as the stream keeps it.
    pub max_age: Option<Duration>,
    /// The queue for pointers to records that failed for good.
    pub on_failure: Option<String>,
}

impl Template {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds what is not understood here.
    pub fn load(path: &Path) -> Result<Self, TemplateError> {
        Self::load_with(path, &Parameters::default())
    }

    /// Reads a file, with values for some of its parameters.
    ///
    /// # Errors
    /// When it cannot be read, holds what is not understood here, or lacks such a parameter.
    pub fn load_with(path: &Path, parameters: &Parameters) -> Result<Self, TemplateError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let file = path.display().to_string();
        let template = read(path).and_then(|text| Self::parse_in(directory, &text, parameters));
        match template {
            Ok(template) => Ok(Self { file, ..template }),
            Err(error) => Err(error.within(&file)),
        }
    }

    /// The names of the parameters that a file declares.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parameters_of(path: &Path) -> Result<Vec<String>, TemplateError> {
        let declared = |text: String| {
            let mut root = Fields::of("the template", parse(&text)?)?;
            let parameters = root.take("Parameters");
            parameters.map_or(Ok(vec![]), parameters::names)
        };
        read(path)
            .and_then(declared)
            .map_err(|error| error.within(&path.display().to_string()))
    }

    /// An error of this template.
    pub(crate) fn error(&self, line: usize, problem: impl Into<String>) -> TemplateError {
        TemplateError::new(line, problem).within(&self.file)
    }

    /// The same system with an API that takes any number of requests.
    #[must_use]
    pub fn unthrottled(self) -> Self {
        let throttling = Throttling::default();
        Self { throttling, ..self }
    }

    /// Reads a text that takes no other file in.
    ///
    /// # Errors
    /// When it holds what is not understood here.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_in(Path::new(""), text, &Parameters::default())
    }

    /// Reads a text, with values for some of its parameters. Nested templates are read from a directory.
    ///
    /// # Errors
    /// When it holds what is not understood here, or lacks such a parameter.
    pub fn parse_in(
        directory: &Path,
        text: &str,
        parameters: &Parameters,
    ) -> Result<Self, TemplateError> {
        let mut root = Fields::of("the template", parse(text)?)?;
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
        for (id, node) in Fields::of("Resources", root.required("Resources")?)?.entries {
            if let Some(resource) = resource(&id, node, &conditions, &names)? {
                names.resource(&resource, &mut nested)?;
                resources.push(resource);
            }
        }
        root.finish()?;

        // Globals refer to resources, so they are read when all of those are known.
        let globals = Globals::new(globals, &names)?;
        let mut template = Self {
            file: DEFAULT_FILE.to_owned(),
            queues: nested.queues,
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
            let properties = Fields::of(&id, properties)?;
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
                // Its resources are known by now.
                "AWS::CloudFormation::Stack" => {}
                _ if WATCHING.contains(&kind.as_str()) => {}
                // Its steps are a function's, and an operator takes them here.
                "AWS::Serverless::StateMachine" => {}
                _ => {
                    return Err(TemplateError::new(
                        line,
                        format!("{id} is a {kind}, which cannot run on one machine"),
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
                let problem = format!("{alias} names the key {target}, which is not there");
                return Err(TemplateError::new(line, problem));
            };
            key.aliases.push(alias);
        }
        template.throttling = api.throttling(&template.functions)?;
        template.authorizer = api.authorizer;
        template.boundary = globals.boundary.and_then(|name| policies.remove(&name));
        Ok(template)
    }

    /// Checks that every rule is a rule of a bus of the template.
    fn check_buses(&self) -> Result<(), TemplateError> {
        let triggers = self.functions.iter().flat_map(|spec| &spec.triggers);
        for trigger in triggers {
            if let Trigger::Rule(rule) = trigger
                && !self.buses.contains(&rule.bus)
            {
                let problem = format!("there is no bus {}", rule.bus);
                return Err(TemplateError::new(rule.line, problem));
            }
        }
        Ok(())
    }
}

/// Kinds of resources that monitor or describe others or limit the access to them, and do no work themselves.
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

/// A resource that is there, with every choice made.
struct Resource {
    id: String,
    kind: String,
    line: usize,
    properties: Node,
}

/// Reads what all resources have in common; nothing where its condition does not hold.
fn resource(
    id: &str,
    node: Node,
    conditions: &Conditions,
    names: &Names,
) -> Result<Option<Resource>, TemplateError> {
    let mut resource = Fields::of(id, node)?;
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
        let mut stream = Fields::of("StreamSpecification", stream)?;
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

/// An alias of a key, and the id or the ARN of that.
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
