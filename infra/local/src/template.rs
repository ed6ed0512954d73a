//! template.yaml, read strictly.
//!
//! Every property of every resource is either used, or named here as one that changes nothing on
//! one machine, or an error that names its line. So the one-machine system cannot drift from what
//! is deployed by overlooking something.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    aws::roles::{Grant, queue_arn},
    conditions::Conditions,
    hosting::arn,
    yaml::{Kind, Node, parse},
};

/// The region that ARNs and clients name.
pub const REGION: &str = "us-east-1";
/// The account that ARNs name.
pub const ACCOUNT: &str = "000000000000";
/// The name of the stack.
pub const STACK: &str = "cairn";

/// What is wrong with the template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: {problem}")]
pub struct TemplateError {
    file: String,
    line: usize,
    problem: String,
}

impl TemplateError {
    pub(crate) fn new(line: usize, problem: impl Into<String>) -> Self {
        Self {
            file: "template.yaml".to_owned(),
            line,
            problem: problem.into(),
        }
    }

    /// The same in a file that the template takes in.
    fn within(self, file: &str) -> Self {
        let file = file.to_owned();
        Self { file, ..self }
    }
}

/// Values of a template's parameters, by name, in place of their defaults.
pub type Parameters = BTreeMap<String, String>;

/// The system, as far as it runs on one machine.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// The tables.
    pub tables: Vec<Table>,
    /// The names of the buses.
    pub buses: Vec<String>,
    /// The names of the queues.
    pub queues: Vec<String>,
    /// The functions.
    pub functions: Vec<FunctionSpec>,
    /// Who may call the routes that do not take everybody.
    pub authorizer: Option<Authorizer>,
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
    /// Whether it takes only requests with a token.
    pub takes_tokens: bool,
    /// The line that it stands on.
    pub line: usize,
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
    /// The event pattern.
    pub pattern: Value,
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
        Self::parse_in(directory, &read(path)?, parameters)
    }

    /// The names of the parameters that a file declares.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parameters_of(path: &Path) -> Result<Vec<String>, TemplateError> {
        let mut root = Fields::of("the template", parse(&read(path)?)?)?;
        Ok(Names::new(root.take("Parameters"), &Parameters::default())?.declared)
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
            queues: nested.queues,
            ..Self::default()
        };
        let mut api = Api::default();
        let mut policies = BTreeMap::new();
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
                "AWS::SQS::Queue" => template.queues.push(queue(&id, properties)?),
                "AWS::Serverless::Function" => {
                    template
                        .functions
                        .push(function(&id, line, properties, &globals, &names)?);
                }
                "AWS::Serverless::HttpApi" => api = Api::new(properties, &names)?,
                "AWS::IAM::ManagedPolicy" => {
                    policies.insert(id, managed_policy(properties, &names)?);
                }
                // Its resources are known by now.
                "AWS::CloudFormation::Stack" => {}
                _ if WATCHING.contains(&kind.as_str()) => {}
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
                    route.takes_tokens = api.takes_tokens(route)?;
                }
            }
        }
        template.authorizer = api.authorizer;
        template.boundary = globals.boundary.and_then(|name| policies.remove(&name));
        Ok(template)
    }
}

/// Kinds of resources that watch over others, or say who may send to them, and do no work themselves.
const WATCHING: [&str; 7] = [
    "AWS::SQS::QueuePolicy",
    "AWS::Logs::LogGroup",
    "AWS::Logs::MetricFilter",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::SNS::Topic",
    "AWS::SNS::Subscription",
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

/// Templates that the template takes in. What they hold goes by the name of the nested stack and its own.
struct Nested {
    directory: PathBuf,
    queues: Vec<String>,
}

impl Nested {
    fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            queues: vec![],
        }
    }

    /// Takes a nested stack in, and returns its outputs.
    fn take_in(
        &mut self,
        stack: &Resource,
        names: &Names,
    ) -> Result<Vec<(String, String)>, TemplateError> {
        let mut properties = Fields::of(&stack.id, stack.properties.clone())?;
        properties.ignore(&["Parameters"]);
        let url = names.text(&properties.required("TemplateURL")?)?;
        properties.finish()?;
        let file = self.directory.join(&url);
        let text = std::fs::read_to_string(&file).map_err(|error| {
            let problem = format!("{} cannot be read: {error}", file.display());
            TemplateError::new(stack.line, problem)
        })?;
        self.outputs(&stack.id, &text)
            .map_err(|error| error.within(&url))
    }

    fn outputs(&mut self, stack: &str, text: &str) -> Result<Vec<(String, String)>, TemplateError> {
        let mut root = Fields::of("the template", parse(text)?)?;
        root.ignore(&["AWSTemplateFormatVersion", "Description", "Parameters"]);
        let mut names = Names::default();
        let conditions = Conditions::default();
        for (id, node) in Fields::of("Resources", root.required("Resources")?)?.entries {
            let Some(found) = resource(&id, node, &conditions, &names)? else {
                continue;
            };
            match found.kind.as_str() {
                "AWS::SQS::Queue" => {
                    let name = format!("{stack}{id}");
                    self.queues
                        .push(queue(&name, Fields::of(&id, found.properties)?)?);
                    names.queue(&id, &name);
                }
                kind if WATCHING.contains(&kind) => {}
                kind => {
                    let problem =
                        format!("{id} is a {kind}, which cannot be nested on one machine");
                    return Err(TemplateError::new(found.line, problem));
                }
            }
        }
        let mut outputs = vec![];
        if let Some(section) = root.take("Outputs") {
            for (id, output) in Fields::of("Outputs", section)?.entries {
                let mut output = Fields::of(&id, output)?;
                output.ignore(&["Description"]);
                outputs.push((id, names.text(&output.required("Value")?)?));
                output.finish()?;
            }
        }
        root.finish()?;
        Ok(outputs)
    }
}

/// What the definition of an HTTP API says about its routes.
#[derive(Default)]
struct Api {
    authorizer: Option<Authorizer>,
    /// By method and path, whether a route takes tokens only. Without a definition all take everybody.
    routes: Option<BTreeMap<(String, String), bool>>,
}

impl Api {
    fn new(mut properties: Fields, names: &Names) -> Result<Self, TemplateError> {
        properties.ignore(&["AccessLogSettings", "DefaultRouteSettings"]);
        let definition = properties.take("DefinitionBody");
        properties.finish()?;
        let Some(definition) = definition else {
            return Ok(Self::default());
        };
        let mut definition = Fields::of("DefinitionBody", definition)?;
        definition.ignore(&["openapi", "info"]);
        let authorizer = match definition.take("components") {
            Some(components) => Some(authorizer(components, names)?),
            None => None,
        };
        let mut routes = BTreeMap::new();
        for (path, methods) in Fields::of("paths", definition.required("paths")?)?.entries {
            for (method, operation) in Fields::of(&path, methods)?.entries {
                let mut operation = Fields::of(&method, operation)?;
                let security = operation.take("security");
                operation.finish()?;
                let line = security.as_ref().map_or(0, |node| node.line);
                let schemes = match security {
                    Some(security) => names.value(&security)?,
                    None => json!([]),
                };
                let takes_tokens = if schemes == json!([]) {
                    false
                } else if schemes == json!([{ "Jwt": [] }]) && authorizer.is_some() {
                    true
                } else {
                    let problem = "a route takes everybody, or tokens by the scheme Jwt";
                    return Err(TemplateError::new(line, problem));
                };
                routes.insert((method.to_uppercase(), path.clone()), takes_tokens);
            }
        }
        definition.finish()?;
        Ok(Self {
            authorizer,
            routes: Some(routes),
        })
    }

    fn takes_tokens(&self, route: &Route) -> Result<bool, TemplateError> {
        let Some(routes) = &self.routes else {
            return Ok(false);
        };
        let key = (route.method.clone(), route.path.clone());
        routes.get(&key).copied().ok_or_else(|| {
            let (method, path) = key;
            let problem =
                format!("the definition of the API does not say who may call {method} {path}");
            TemplateError::new(route.line, problem)
        })
    }
}

/// The one scheme of an API that is understood here: tokens, by the name of `Jwt`.
fn authorizer(components: Node, names: &Names) -> Result<Authorizer, TemplateError> {
    let mut components = Fields::of("components", components)?;
    let mut schemes = Fields::of("securitySchemes", components.required("securitySchemes")?)?;
    components.finish()?;
    let mut scheme = Fields::of("Jwt", schemes.required("Jwt")?)?;
    schemes.finish()?;
    scheme.ignore(&["type"]);
    let name = "x-amazon-apigateway-authorizer";
    let mut authorizer = Fields::of(name, scheme.required(name)?)?;
    scheme.finish()?;
    for (name, only) in [
        ("type", "jwt"),
        ("identitySource", "$request.header.Authorization"),
    ] {
        let node = authorizer.required(name)?;
        if names.text(&node)? != only {
            let problem = format!("{name} of an authorizer can only be {only} here");
            return Err(TemplateError::new(node.line, problem));
        }
    }
    let mut jwt = Fields::of("jwtConfiguration", authorizer.required("jwtConfiguration")?)?;
    authorizer.finish()?;
    let issuer = names.text(&jwt.required("issuer")?)?;
    let audience = listed(jwt.required("audience")?);
    jwt.finish()?;
    Ok(Authorizer {
        issuer,
        audience: audience
            .iter()
            .map(|audience| names.text(audience))
            .collect::<Result<_, _>>()?,
    })
}

fn managed_policy(mut properties: Fields, names: &Names) -> Result<BTreeSet<Grant>, TemplateError> {
    properties.ignore(&["Description", "ManagedPolicyName"]);
    let mut document = Fields::of("PolicyDocument", properties.required("PolicyDocument")?)?;
    properties.finish()?;
    document.ignore(&["Version"]);
    let statements = document.required("Statement")?;
    document.finish()?;
    statements_of(statements, names)
}

fn read(path: &Path) -> Result<String, TemplateError> {
    std::fs::read_to_string(path).map_err(|error| {
        TemplateError::new(0, format!("{} cannot be read: {error}", path.display()))
    })
}

fn table(id: &str, mut properties: Fields, names: &Names) -> Result<Table, TemplateError> {
    properties.ignore(&[
        "PointInTimeRecoverySpecification",
        "DeletionProtectionEnabled",
        "SSESpecification",
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

fn bus(mut properties: Fields, names: &Names) -> Result<String, TemplateError> {
    let name = names.text(&properties.required("Name")?)?;
    properties.finish()?;
    Ok(name)
}

fn queue(id: &str, mut properties: Fields) -> Result<String, TemplateError> {
    properties.ignore(&[
        "MessageRetentionPeriod",
        "KmsMasterKeyId",
        "SqsManagedSseEnabled",
    ]);
    properties.finish()?;
    Ok(id.to_owned())
}

#[derive(Default)]
struct Globals {
    settings: BTreeMap<String, String>,
    timeout_s: Option<u64>,
    boundary: Option<String>,
}

/// What says where a function's code runs, which here is this process, and how a new version replaces it.
const RUNTIME: [&str; 9] = [
    "Runtime",
    "Architectures",
    "Handler",
    "MemorySize",
    "Tracing",
    "LoggingConfig",
    "Description",
    "AutoPublishAlias",
    "DeploymentPreference",
];

impl Globals {
    fn new(node: Option<Node>, names: &Names) -> Result<Self, TemplateError> {
        let Some(node) = node else {
            return Ok(Self::default());
        };
        let mut globals = Fields::of("Globals", node)?;
        let mut function = Fields::of("Globals.Function", globals.required("Function")?)?;
        if let Some(api) = globals.take("HttpApi") {
            Api::new(Fields::of("Globals.HttpApi", api)?, names)?;
        }
        globals.finish()?;
        function.ignore(&RUNTIME);
        let boundary = function
            .take("PermissionsBoundary")
            .map(|boundary| names.text(&boundary))
            .transpose()?;
        let timeout_s = function
            .take("Timeout")
            .map(|node| names.number(&node))
            .transpose()?;
        let settings = function
            .take("Environment")
            .map_or(Ok(BTreeMap::new()), |node| settings_of(node, names))?;
        function.finish()?;
        Ok(Self {
            settings,
            timeout_s,
            boundary,
        })
    }
}

fn settings_of(node: Node, names: &Names) -> Result<BTreeMap<String, String>, TemplateError> {
    let mut environment = Fields::of("Environment", node)?;
    let variables = Fields::of("Variables", environment.required("Variables")?)?;
    environment.finish()?;
    variables
        .entries
        .into_iter()
        .map(|(name, value)| Ok((name, names.text(&value)?)))
        .collect()
}

fn function(
    id: &str,
    line: usize,
    mut properties: Fields,
    globals: &Globals,
    names: &Names,
) -> Result<FunctionSpec, TemplateError> {
    properties.ignore(&RUNTIME);
    let code = names.text(&properties.required("CodeUri")?)?;
    let mut settings = globals.settings.clone();
    if let Some(environment) = properties.take("Environment") {
        settings.extend(settings_of(environment, names)?);
    }
    let timeout_s = match properties.take("Timeout") {
        Some(timeout) => names.number(&timeout)?,
        // AWS's own default.
        None => globals.timeout_s.unwrap_or(3),
    };
    let reserved = properties
        .take("ReservedConcurrentExecutions")
        .map(|reserved| names.number(&reserved))
        .transpose()?;
    let (mut retries, mut max_age_s, mut on_failure) = (2, 6 * 60 * 60, None);
    if let Some(config) = properties.take("EventInvokeConfig") {
        let mut config = Fields::of("EventInvokeConfig", config)?;
        if let Some(age) = config.take("MaximumEventAgeInSeconds") {
            max_age_s = names.number(&age)?;
        }
        if let Some(attempts) = config.take("MaximumRetryAttempts") {
            retries = names.number(&attempts)?;
        }
        on_failure = destination(config.take("DestinationConfig"), names)?;
        config.finish()?;
    }
    let grants = match properties.take("Policies") {
        Some(policies) => grants(policies, names)?,
        None => BTreeSet::new(),
    };
    let mut triggers = vec![];
    if let Some(events) = properties.take("Events") {
        for (name, event) in Fields::of("Events", events)?.entries {
            let mut event = Fields::of(&name, event)?;
            let kind = names.text(&event.required("Type")?)?;
            let properties = Fields::of(&name, event.required("Properties")?)?;
            let line = event.line;
            event.finish()?;
            triggers.push(match kind.as_str() {
                "HttpApi" => Trigger::Http(route(properties, names)?),
                "EventBridgeRule" => Trigger::Rule(rule(&name, properties, names)?),
                "Schedule" => Trigger::Schedule(schedule(&name, properties, names)?),
                "DynamoDB" => Trigger::Stream(mapping(properties, names)?),
                _ => {
                    let problem = format!("an event of type {kind} cannot be had on one machine");
                    return Err(TemplateError::new(line, problem));
                }
            });
        }
    }
    properties.finish()?;
    Ok(FunctionSpec {
        id: id.to_owned(),
        stem: code.rsplit('/').next().unwrap_or_default().to_owned(),
        line,
        settings,
        timeout_s,
        reserved,
        retries,
        max_age: Duration::from_secs(max_age_s),
        on_failure,
        grants,
        triggers,
    })
}

/// What policies allow: statements, written out.
fn grants(policies: Node, names: &Names) -> Result<BTreeSet<Grant>, TemplateError> {
    let mut grants = BTreeSet::new();
    for policy in listed(policies) {
        let mut policy = Fields::of("a policy", policy)?;
        let statements = policy.required("Statement")?;
        policy.finish()?;
        grants.extend(statements_of(statements, names)?);
    }
    Ok(grants)
}

fn statements_of(statements: Node, names: &Names) -> Result<BTreeSet<Grant>, TemplateError> {
    let mut grants = BTreeSet::new();
    for statement in listed(statements) {
        let mut statement = Fields::of("a statement", statement)?;
        statement.ignore(&["Sid"]);
        let effect = statement.required("Effect")?;
        if names.text(&effect)? != "Allow" {
            return Err(TemplateError::new(
                effect.line,
                "a policy can only allow here",
            ));
        }
        let source = statement
            .take("Condition")
            .map(|condition| source_of(condition, names))
            .transpose()?;
        let actions = listed(statement.required("Action")?);
        let resources = listed(statement.required("Resource")?);
        statement.finish()?;
        for (action, resource) in actions
            .iter()
            .flat_map(|action| resources.iter().map(move |resource| (action, resource)))
        {
            grants.insert(Grant {
                action: names.text(action)?,
                resource: names.text(resource)?,
                source: source.clone(),
            });
        }
    }
    Ok(grants)
}

/// The one condition that is understood here: the source of the events that may be put.
fn source_of(condition: Node, names: &Names) -> Result<String, TemplateError> {
    let operator = "ForAllValues:StringEquals";
    let mut condition = Fields::of("Condition", condition)?;
    let mut equals = Fields::of(operator, condition.required(operator)?)?;
    condition.finish()?;
    let source = names.text(&equals.required("events:source")?)?;
    equals.finish()?;
    Ok(source)
}

/// The items of a list; what is none is the only one.
pub(crate) fn listed(node: Node) -> Vec<Node> {
    match node.kind {
        Kind::List(items) => items,
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Text(_)
        | Kind::Map(_)
        | Kind::Call(..) => vec![node],
    }
}

fn route(mut properties: Fields, names: &Names) -> Result<Route, TemplateError> {
    properties.ignore(&["ApiId"]);
    let method = properties.required("Method")?;
    let known = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
    let name = names.text(&method)?.to_uppercase();
    if !known.contains(&name.as_str()) {
        return Err(TemplateError::new(
            method.line,
            format!("{name} is no method"),
        ));
    }
    let route = Route {
        method: name,
        path: names.text(&properties.required("Path")?)?,
        takes_tokens: false,
        line: method.line,
    };
    properties.finish()?;
    Ok(route)
}

fn rule(name: &str, mut properties: Fields, names: &Names) -> Result<Rule, TemplateError> {
    let target = target(name, &mut properties, names)?;
    let pattern = properties.required("Pattern")?;
    let rule = Rule {
        bus: names.text(&properties.required("EventBusName")?)?,
        pattern: names.value(&pattern)?,
        line: pattern.line,
        target,
    };
    properties.finish()?;
    Ok(rule)
}

/// What rules and schedules have in common: the way to their target.
fn target(name: &str, properties: &mut Fields, names: &Names) -> Result<RuleTarget, TemplateError> {
    // What `EventBridge` does without a policy.
    let (mut retries, mut max_age_s) = (185, 24 * 60 * 60);
    if let Some(policy) = properties.take("RetryPolicy") {
        let mut policy = Fields::of("RetryPolicy", policy)?;
        if let Some(attempts) = policy.take("MaximumRetryAttempts") {
            retries = names.number(&attempts)?;
        }
        if let Some(age) = policy.take("MaximumEventAgeInSeconds") {
            max_age_s = names.number(&age)?;
        }
        policy.finish()?;
    }
    let dead_letters = match properties.take("DeadLetterConfig") {
        Some(config) => {
            let mut config = Fields::of("DeadLetterConfig", config)?;
            let arn = config.required("Arn")?;
            config.finish()?;
            Some(queue_of(&arn, names)?)
        }
        None => None,
    };
    Ok(RuleTarget {
        name: name.to_owned(),
        retries,
        max_age: Duration::from_secs(max_age_s),
        dead_letters,
    })
}

fn schedule(name: &str, mut properties: Fields, names: &Names) -> Result<Schedule, TemplateError> {
    properties.ignore(&["Name", "Description"]);
    let target = target(name, &mut properties, names)?;
    let expression = properties.required("Schedule")?;
    let input = properties
        .take("Input")
        .map(|input| names.text(&input))
        .transpose()?;
    properties.finish()?;
    let text = names.text(&expression)?;
    let every = rate(&text).ok_or_else(|| {
        let problem =
            format!("{text} cannot be had on one machine: a rate in minutes, hours or days can");
        TemplateError::new(expression.line, problem)
    })?;
    Ok(Schedule {
        every,
        input,
        target,
    })
}

/// The time of `rate(5 minutes)`.
fn rate(expression: &str) -> Option<Duration> {
    let rate = expression.strip_prefix("rate(")?.strip_suffix(')')?;
    let (value, unit) = rate.split_once(' ')?;
    let minutes = match unit {
        "minute" | "minutes" => 1,
        "hour" | "hours" => 60,
        "day" | "days" => 24 * 60,
        _ => return None,
    };
    let value: u64 = value.parse().ok().filter(|value| *value > 0)?;
    Some(Duration::from_secs(value * minutes * 60))
}

fn mapping(mut properties: Fields, names: &Names) -> Result<Mapping, TemplateError> {
    let stream = properties.required("Stream")?;
    let arn = names.text(&stream)?;
    let table = arn
        .split("table/")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .ok_or_else(|| {
            TemplateError::new(stream.line, "Stream must be the ARN of a table's stream")
        })?
        .to_owned();
    let start = properties.required("StartingPosition")?;
    if names.text(&start)? != "TRIM_HORIZON" {
        let problem = "a stream is read from TRIM_HORIZON here: anything later could miss events";
        return Err(TemplateError::new(start.line, problem));
    }
    let mut number = |name: &str| {
        let node = properties.take(name);
        node.map(|node| names.number::<u32>(&node)).transpose()
    };
    let batch_size = number("BatchSize")?.unwrap_or(100);
    let retries = number("MaximumRetryAttempts")?;
    let max_age = number("MaximumRecordAgeInSeconds")?;
    let mut switch = |name: &str, on: Value| match properties.take(name) {
        Some(node) if names.value(&node)? == on => Ok(true),
        Some(node) => Err(TemplateError::new(
            node.line,
            format!("{name} must be {on} or absent"),
        )),
        None => Ok(false),
    };
    let reports_failures = switch("FunctionResponseTypes", json!(["ReportBatchItemFailures"]))?;
    let bisects = switch("BisectBatchOnFunctionError", json!(true))?;
    let on_failure = destination(properties.take("DestinationConfig"), names)?;
    properties.finish()?;
    Ok(Mapping {
        table,
        batch_size: batch_size.try_into().unwrap_or(100),
        reports_failures,
        bisects,
        retries,
        max_age: max_age.map(|age| Duration::from_secs(age.into())),
        on_failure,
    })
}

/// The queue of a failure destination.
fn destination(node: Option<Node>, names: &Names) -> Result<Option<String>, TemplateError> {
    let Some(node) = node else {
        return Ok(None);
    };
    let mut config = Fields::of("DestinationConfig", node)?;
    let mut failure = Fields::of("OnFailure", config.required("OnFailure")?)?;
    config.finish()?;
    failure.ignore(&["Type"]);
    let destination = failure.required("Destination")?;
    failure.finish()?;
    queue_of(&destination, names).map(Some)
}

/// The queue that an ARN names.
fn queue_of(arn: &Node, names: &Names) -> Result<String, TemplateError> {
    let text = names.text(arn)?;
    match text.strip_prefix(&queue_arn("")) {
        Some(queue) => Ok(queue.to_owned()),
        None => Err(TemplateError::new(
            arn.line,
            "what fails must go to a queue",
        )),
    }
}

/// What references stand for.
#[derive(Default)]
pub(crate) struct Names {
    declared: Vec<String>,
    parameters: HashMap<String, String>,
    refs: HashMap<String, String>,
    attributes: HashMap<(String, String), String>,
}

impl Names {
    fn new(parameters: Option<Node>, given: &Parameters) -> Result<Self, TemplateError> {
        let mut names = Self::default();
        for (name, value) in [
            ("AWS::Region", REGION),
            ("AWS::AccountId", ACCOUNT),
            ("AWS::StackName", STACK),
            ("AWS::Partition", "aws"),
            ("AWS::URLSuffix", "amazonaws.com"),
        ] {
            names.parameters.insert(name.to_owned(), value.to_owned());
        }
        let declared = match parameters {
            Some(parameters) => Fields::of("Parameters", parameters)?.entries,
            None => vec![],
        };
        let is_declared = |name: &&String| declared.iter().any(|(known, _)| known == *name);
        if let Some(unknown) = given.keys().find(|name| !is_declared(name)) {
            let problem = format!("there is no parameter {unknown}");
            return Err(TemplateError::new(0, problem));
        }
        for (name, node) in declared {
            let mut parameter = Fields::of(&name, node)?;
            parameter.ignore(&["Type", "Description", "MinValue", "NoEcho"]);
            let default = names.text(&parameter.required("Default")?)?;
            let allowed = parameter.take("AllowedValues");
            parameter.finish()?;
            let value = given.get(&name).cloned().unwrap_or(default);
            if let Some(allowed) = allowed {
                let line = allowed.line;
                let allowed: Vec<_> = listed(allowed)
                    .iter()
                    .map(|value| names.text(value))
                    .collect::<Result<_, _>>()?;
                if !allowed.contains(&value) {
                    let problem = format!("{name} takes {}, not {value}", allowed.join(" or "));
                    return Err(TemplateError::new(line, problem));
                }
            }
            names.declared.push(name.clone());
            names.parameters.insert(name, value);
        }
        Ok(names)
    }

    /// Makes a resource known. Its own properties may refer to those before it.
    fn resource(&mut self, resource: &Resource, nested: &mut Nested) -> Result<(), TemplateError> {
        let id = resource.id.as_str();
        let reference = match resource.kind.as_str() {
            "AWS::DynamoDB::Table" => {
                let arn = format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{id}");
                self.attribute(id, "StreamArn", format!("{arn}/stream/latest"));
                self.attribute(id, "Arn", arn);
                id.to_owned()
            }
            "AWS::SQS::Queue" => {
                self.queue(id, id);
                return Ok(());
            }
            "AWS::Events::EventBus" => {
                let mut bus = Fields::of(id, resource.properties.clone())?;
                let name = self.text(&bus.required("Name")?)?;
                let arn = format!("arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{name}");
                self.attribute(id, "Arn", arn);
                name
            }
            "AWS::Serverless::Function" => {
                self.attribute(id, "Arn", arn(id));
                id.to_owned()
            }
            "AWS::Logs::LogGroup" => {
                let arn = format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{id}:*");
                self.attribute(id, "Arn", arn);
                id.to_owned()
            }
            "AWS::CloudFormation::Stack" => {
                for (output, value) in nested.take_in(resource, self)? {
                    self.attribute(id, &format!("Outputs.{output}"), value);
                }
                id.to_owned()
            }
            _ => id.to_owned(),
        };
        self.refs.insert(id.to_owned(), reference);
        Ok(())
    }

    /// Makes a queue known that the template calls one thing, and this machine perhaps another.
    fn queue(&mut self, id: &str, name: &str) {
        self.attribute(id, "Arn", queue_arn(name));
        self.attribute(id, "QueueName", name.to_owned());
        self.refs
            .insert(id.to_owned(), crate::aws::queues::url(name));
    }

    fn attribute(&mut self, id: &str, name: &str, value: String) {
        self.attributes
            .insert((id.to_owned(), name.to_owned()), value);
    }

    fn reference(&self, name: &str, line: usize) -> Result<String, TemplateError> {
        let known = self.refs.get(name).or_else(|| self.parameters.get(name));
        if let Some(value) = known {
            return Ok(value.clone());
        }
        if let Some((id, attribute)) = name.split_once('.') {
            let key = (id.to_owned(), attribute.to_owned());
            if let Some(value) = self.attributes.get(&key) {
                return Ok(value.clone());
            }
        }
        Err(TemplateError::new(
            line,
            format!("{name} is not known here"),
        ))
    }

    /// A value with every reference resolved.
    fn value(&self, node: &Node) -> Result<Value, TemplateError> {
        Ok(match &node.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Int(value) => (*value).into(),
            Kind::Text(text) => text.as_str().into(),
            Kind::List(items) => items
                .iter()
                .map(|item| self.value(item))
                .collect::<Result<_, _>>()?,
            Kind::Map(entries) => {
                let entry = |(key, value): &(String, Node)| Ok((key.clone(), self.value(value)?));
                Value::Object(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Kind::Call(function, argument) => self.call(function, argument)?.into(),
        })
    }

    fn call(&self, function: &str, argument: &Node) -> Result<String, TemplateError> {
        match (function, &argument.kind) {
            ("Ref" | "GetAtt", Kind::Text(name)) => self.reference(name, argument.line),
            ("Sub", Kind::Text(text)) => {
                let mut out = String::new();
                let mut rest = text.as_str();
                while let Some((before, after)) = rest.split_once("${") {
                    let (name, after) = after.split_once('}').ok_or_else(|| {
                        TemplateError::new(argument.line, "a ${ in this text is not closed")
                    })?;
                    out.push_str(before);
                    out.push_str(&self.reference(name, argument.line)?);
                    rest = after;
                }
                Ok(out + rest)
            }
            _ => {
                let problem = format!("!{function} is not understood here");
                Err(TemplateError::new(argument.line, problem))
            }
        }
    }

    pub(crate) fn text(&self, node: &Node) -> Result<String, TemplateError> {
        match self.value(node)? {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(TemplateError::new(node.line, "a text is wanted here"))
            }
        }
    }

    fn number<T: TryFrom<u64>>(&self, node: &Node) -> Result<T, TemplateError> {
        self.value(node)?
            .as_u64()
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| TemplateError::new(node.line, "a number is wanted here"))
    }
}

/// A map whose entries have to be used up.
pub(crate) struct Fields {
    of: String,
    line: usize,
    pub(crate) entries: Vec<(String, Node)>,
}

impl Fields {
    pub(crate) fn of(what: &str, node: Node) -> Result<Self, TemplateError> {
        match node.kind {
            Kind::Map(entries) => Ok(Self {
                of: what.to_owned(),
                line: node.line,
                entries,
            }),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Call(..) => Err(TemplateError::new(
                node.line,
                format!("{what} must be a map"),
            )),
        }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(key, _)| key == name)?;
        Some(self.entries.remove(index).1)
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<Node, TemplateError> {
        self.take(name)
            .ok_or_else(|| TemplateError::new(self.line, format!("{} has no {name}", self.of)))
    }

    /// Drops what changes nothing on one machine.
    fn ignore(&mut self, names: &[&str]) {
        self.entries
            .retain(|(key, _)| !names.contains(&key.as_str()));
    }

    /// An error if anything was not used.
    pub(crate) fn finish(self) -> Result<(), TemplateError> {
        match self.entries.first() {
            None => Ok(()),
            Some((key, node)) => Err(TemplateError::new(
                node.line,
                format!("{} of {} is not understood on one machine", key, self.of),
            )),
        }
    }
}
