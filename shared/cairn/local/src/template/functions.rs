//! Functions: their configuration and their event sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    api::Api,
    error::TemplateError,
    fields::{Fields, listed},
    model::{Code, FunctionSpec, Mapping, QueueMapping, Rule, RuleTarget, Schedule, Trigger},
    policies::grants,
    references::References,
    resource::queue_of,
    route::Route,
};
use crate::{pattern::Pattern, yaml::Node};

/// The environment variables of a function: their values, and how the template sets them.
type Settings = BTreeMap<String, (String, Value)>;

#[derive(Default)]
pub(super) struct Globals {
    settings: Settings,
    timeout_s: Option<u64>,
    code_uri: Option<String>,
    runtime: Option<String>,
    handler: Option<String>,
    memory_mb: Option<u64>,
    pub(super) boundary: Option<String>,
    pub(super) api: Api,
}

/// The bus of rules that name none.
pub(super) const DEFAULT_BUS: &str = "default";

/// Properties of the runtime and of deployments, which have no local effect.
const RUNTIME: [&str; 9] = [
    "Architectures",
    "Tracing",
    "LoggingConfig",
    "Description",
    "AutoPublishAlias",
    "AutoPublishAliasAllProperties",
    "AutoPublishCodeSha256",
    "DeploymentPreference",
    "Tags",
];

/// Sections of `Globals` for resources that do no work locally, or that a template cannot have here.
/// <https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification-template-anatomy-globals.html>
const OTHER_GLOBALS: [&str; 5] = [
    "Api",
    "CapacityProvider",
    "SimpleTable",
    "StateMachine",
    "WebSocketApi",
];

impl Globals {
    pub(super) fn new(node: Option<Node>, names: &References) -> Result<Self, TemplateError> {
        let Some(node) = node else {
            return Ok(Self::default());
        };
        let mut globals = Fields::new("Globals", node)?;
        globals.ignore(&OTHER_GLOBALS);
        let mut function = match globals.take("Function") {
            Some(function) => Fields::new("Globals.Function", function)?,
            None => Fields::empty("Globals.Function", globals.line),
        };
        let api = match globals.take("HttpApi") {
            Some(api) => Api::new(Fields::new("Globals.HttpApi", api)?, &Api::default(), names)?,
            None => Api::default(),
        };
        globals.finish()?;
        function.ignore(&RUNTIME);
        let boundary = function
            .take("PermissionsBoundary")
            .map(|boundary| names.text(&boundary))
            .transpose()?;
        let timeout_s = timeout(&mut function, names)?;
        let settings = function
            .take("Environment")
            .map_or(Ok(BTreeMap::new()), |node| settings_of(node, names))?;
        let code_uri = text(&mut function, "CodeUri", names)?;
        let runtime = text(&mut function, "Runtime", names)?;
        let handler = text(&mut function, "Handler", names)?;
        let memory_mb = memory(&mut function, names)?;
        function.finish()?;
        Ok(Self {
            settings,
            timeout_s,
            code_uri,
            runtime,
            handler,
            memory_mb,
            boundary,
            api,
        })
    }
}

fn settings_of(node: Node, names: &References) -> Result<Settings, TemplateError> {
    let mut environment = Fields::new("Environment", node)?;
    let variables = Fields::new("Variables", environment.required("Variables")?)?;
    environment.finish()?;
    variables
        .entries
        .into_iter()
        .map(|(name, value)| Ok((name, (names.text(&value)?, names.unresolved(&value)?))))
        .collect()
}

fn text(
    fields: &mut Fields,
    name: &str,
    names: &References,
) -> Result<Option<String>, TemplateError> {
    fields.take(name).map(|node| names.text(&node)).transpose()
}

fn memory(fields: &mut Fields, names: &References) -> Result<Option<u64>, TemplateError> {
    limited(fields, "MemorySize", 128..=10_240, names)
}

fn timeout(fields: &mut Fields, names: &References) -> Result<Option<u64>, TemplateError> {
    limited(fields, "Timeout", 1..=900, names)
}

/// Reads a number within the limits of Lambda.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
fn limited(
    fields: &mut Fields,
    name: &str,
    limits: RangeInclusive<u64>,
    names: &References,
) -> Result<Option<u64>, TemplateError> {
    let Some(node) = fields.take(name) else {
        return Ok(None);
    };
    let number = names.number(&node)?;
    if !limits.contains(&number) {
        let (least, most) = limits.into_inner();
        let problem = format!("{name} takes a number from {least} to {most}, not {number}");
        return Err(TemplateError::new(node.line, problem));
    }
    Ok(Some(number))
}

/// Reads the properties and the metadata that lead to the program of a function.
fn code(
    properties: &mut Fields,
    metadata: Option<Node>,
    globals: &Globals,
    names: &References,
) -> Result<Code, TemplateError> {
    let mut code = Code {
        uri: match (properties.take("CodeUri"), &globals.code_uri) {
            (Some(uri), _) => names.text(&uri)?,
            (None, Some(uri)) => uri.clone(),
            (None, None) => names.text(&properties.required("CodeUri")?)?,
        },
        runtime: text(properties, "Runtime", names)?.or_else(|| globals.runtime.clone()),
        handler: text(properties, "Handler", names)?.or_else(|| globals.handler.clone()),
        // The default of AWS.
        memory_mb: memory(properties, names)?
            .or(globals.memory_mb)
            .unwrap_or(128),
        binary: None,
        command: None,
    };
    let Some(metadata) = metadata else {
        return Ok(code);
    };
    let mut metadata = Fields::new("Metadata", metadata)?;
    if let Some(build) = metadata.take("BuildProperties") {
        code.binary = text(&mut Fields::new("BuildProperties", build)?, "Binary", names)?;
    }
    if let Some(command) = metadata.take("LocalCommand") {
        let words = names.texts(&command)?;
        if words.is_empty() {
            let problem = "LocalCommand is a list of a program and its arguments";
            return Err(TemplateError::new(command.line, problem));
        }
        code.command = Some(words);
    }
    Ok(code)
}

pub(super) fn function(
    (id, line): (&str, usize),
    mut properties: Fields,
    metadata: Option<Node>,
    globals: &Globals,
    names: &References,
) -> Result<FunctionSpec, TemplateError> {
    properties.ignore(&RUNTIME);
    let code = code(&mut properties, metadata, globals, names)?;
    let mut settings = globals.settings.clone();
    if let Some(environment) = properties.take("Environment") {
        settings.extend(settings_of(environment, names)?);
    }
    // The default of AWS.
    let timeout_s = timeout(&mut properties, names)?
        .or(globals.timeout_s)
        .unwrap_or(3);
    let reserved = properties
        .take("ReservedConcurrentExecutions")
        .map(|reserved| names.number(&reserved))
        .transpose()?;
    let (mut retries, mut max_age_s, mut on_failure) = (2, 6 * 60 * 60, None);
    if let Some(config) = properties.take("EventInvokeConfig") {
        let mut config = Fields::new("EventInvokeConfig", config)?;
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
        for (name, event) in Fields::new("Events", events)?.entries {
            let mut event = Fields::new(&name, event)?;
            let kind = names.text(&event.required("Type")?)?;
            let line = event.line;
            let properties = match event.take("Properties") {
                Some(properties) => Fields::new(&name, properties)?,
                None => Fields::empty(&name, line),
            };
            event.finish()?;
            triggers.push(match kind.as_str() {
                "HttpApi" => Trigger::Http(Route::new(properties, names)?),
                "EventBridgeRule" => Trigger::Rule(rule((id, &name), properties, names)?),
                "Schedule" => Trigger::Schedule(schedule((id, &name), properties, names)?),
                "DynamoDB" => Trigger::Stream(mapping(&name, properties, names)?),
                "SQS" => Trigger::Queue(queue_mapping(&name, properties, names)?),
                _ => {
                    let problem =
                        format!("an event of type {kind} is not supported by the local system");
                    return Err(TemplateError::new(line, problem));
                }
            });
        }
    }
    properties.finish()?;
    let variables = settings
        .iter()
        .map(|(name, (_, variable))| (name.clone(), variable.clone()));
    let variables = variables.collect();
    let settings = settings.into_iter().map(|(name, (value, _))| (name, value));
    Ok(FunctionSpec {
        id: id.to_owned(),
        stack: names.stack_name().to_owned(),
        stem: code.stem().to_owned(),
        code,
        line,
        settings: settings.collect(),
        variables,
        timeout_s,
        reserved,
        retries,
        max_age: Duration::from_secs(max_age_s),
        on_failure,
        grants,
        triggers,
    })
}

fn rule(
    event: (&str, &str),
    mut properties: Fields,
    names: &References,
) -> Result<Rule, TemplateError> {
    let target = event_target(event, &mut properties, names)?;
    let pattern = properties.required("Pattern")?;
    on_bus(target, &pattern, properties, names)
}

/// Reads the target of an event of a function, whose rule has the names of both.
fn event_target(
    (function, name): (&str, &str),
    properties: &mut Fields,
    names: &References,
) -> Result<RuleTarget, TemplateError> {
    let state = properties.take("State");
    let id = format!("{function}{name}");
    target(&id, name, properties, state, names)
}

/// Reads a rule that is a resource of its own, and the ARN of its target.
pub(super) fn own_rule(
    id: &str,
    mut properties: Fields,
    names: &References,
) -> Result<(Rule, Node), TemplateError> {
    properties.ignore(&["Name", "Description"]);
    let targets = properties.required("Targets")?;
    let line = targets.line;
    let Ok([one]) = <[Node; 1]>::try_from(listed(targets)) else {
        let problem = "the local system supports rules with one target";
        return Err(TemplateError::new(line, problem));
    };
    let mut fields = Fields::new("Targets", one)?;
    fields.ignore(&["Id"]);
    let arn = fields.required("Arn")?;
    let state = properties.take("State");
    let target = target(id, id, &mut fields, state, names)?;
    fields.finish()?;
    let pattern = properties.required("EventPattern")?;
    let rule = on_bus(target, &pattern, properties, names)?;
    Ok((rule, arn))
}

fn on_bus(
    target: RuleTarget,
    pattern: &Node,
    mut properties: Fields,
    names: &References,
) -> Result<Rule, TemplateError> {
    let pattern = names.resolved(pattern)?;
    let matcher = Pattern::parse(&pattern).map_err(TemplateError::at)?;
    let rule = Rule {
        bus: match properties.take("EventBusName") {
            Some(bus) => names.text(&bus)?,
            None => DEFAULT_BUS.to_owned(),
        },
        pattern: names.value(&pattern)?,
        matcher,
        line: pattern.line,
        target,
    };
    properties.finish()?;
    Ok(rule)
}

/// Reads the common part of rules and schedules: their delivery settings.
fn target(
    id: &str,
    name: &str,
    properties: &mut Fields,
    state: Option<Node>,
    names: &References,
) -> Result<RuleTarget, TemplateError> {
    // The defaults of `EventBridge`.
    let (mut retries, mut max_age_s) = (185, 24 * 60 * 60);
    if let Some(policy) = properties.take("RetryPolicy") {
        let mut policy = Fields::new("RetryPolicy", policy)?;
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
            let mut config = Fields::new("DeadLetterConfig", config)?;
            let arn = config.required("Arn")?;
            config.finish()?;
            Some(queue_of(&arn, names)?)
        }
        None => None,
    };
    let is_enabled = is_on(state, names)?;
    Ok(RuleTarget {
        id: id.to_owned(),
        name: name.to_owned(),
        queue: None,
        is_declared_enabled: is_enabled,
        is_enabled,
        retries,
        max_age: Duration::from_secs(max_age_s),
        dead_letters,
    })
}

fn schedule(
    event: (&str, &str),
    mut properties: Fields,
    names: &References,
) -> Result<Schedule, TemplateError> {
    properties.ignore(&["Name", "Description"]);
    let target = event_target(event, &mut properties, names)?;
    let expression = properties.required("Schedule")?;
    let input = properties
        .take("Input")
        .map(|input| names.text(&input))
        .transpose()?;
    properties.finish()?;
    let text = names.text(&expression)?;
    let every = rate(&text).ok_or_else(|| {
        let problem = format!(
            "{text} is not supported by the local system; use a rate in minutes, hours or days"
        );
        TemplateError::new(expression.line, problem)
    })?;
    Ok(Schedule {
        every,
        input,
        target,
    })
}

/// Parses an expression such as `rate(5 minutes)`.
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

fn mapping(
    name: &str,
    mut properties: Fields,
    names: &References,
) -> Result<Mapping, TemplateError> {
    let is_enabled = is_on(properties.take("Enabled"), names)?;
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
        let problem = "a stream must start at TRIM_HORIZON: a later position could miss events";
        return Err(TemplateError::new(start.line, problem));
    }
    let mut number = |name: &str| {
        let node = properties.take(name);
        node.map(|node| names.number::<u32>(&node)).transpose()
    };
    let batch_size = number("BatchSize")?.unwrap_or(100);
    let retries = number("MaximumRetryAttempts")?;
    let max_age = number("MaximumRecordAgeInSeconds")?;
    let mut switch = |name: &str, on: Value| switch(&mut properties, name, &on, names);
    let reports_failures = switch("FunctionResponseTypes", json!(["ReportBatchItemFailures"]))?;
    let bisects = switch("BisectBatchOnFunctionError", json!(true))?;
    let on_failure = destination(properties.take("DestinationConfig"), names)?;
    properties.finish()?;
    Ok(Mapping {
        name: name.to_owned(),
        is_enabled,
        table,
        batch_size: batch_size.try_into().unwrap_or(100),
        reports_failures,
        bisects,
        retries,
        max_age: max_age.map(|age| Duration::from_secs(age.into())),
        on_failure,
    })
}

/// The batches that are invoked at the same time, with no limit in the template. Lambda starts with
/// five.
const BATCHES: usize = 5;
/// The largest batch that does not need a window.
const SMALL_BATCH: usize = 10;

fn queue_mapping(
    name: &str,
    mut properties: Fields,
    names: &References,
) -> Result<QueueMapping, TemplateError> {
    let is_enabled = is_on(properties.take("Enabled"), names)?;
    let queue = queue_of(&properties.required("Queue")?, names)?;
    let (batch_size, line) = match properties.take("BatchSize") {
        Some(size) => (names.number::<u32>(&size)? as usize, size.line),
        None => (SMALL_BATCH, properties.line),
    };
    let window_s: u64 = match properties.take("MaximumBatchingWindowInSeconds") {
        Some(window) => names.number(&window)?,
        None => 0,
    };
    if batch_size > SMALL_BATCH && window_s == 0 {
        let problem = "a BatchSize over 10 requires MaximumBatchingWindowInSeconds";
        return Err(TemplateError::new(line, problem));
    }
    let concurrency = match properties.take("ScalingConfig") {
        Some(scaling) => {
            let mut scaling = Fields::new("ScalingConfig", scaling)?;
            let most = names.number::<u32>(&scaling.required("MaximumConcurrency")?)?;
            scaling.finish()?;
            BATCHES.min(most as usize)
        }
        None => BATCHES,
    };
    let report = json!(["ReportBatchItemFailures"]);
    let reports_failures = switch(&mut properties, "FunctionResponseTypes", &report, names)?;
    properties.finish()?;
    Ok(QueueMapping {
        name: name.to_owned(),
        is_enabled,
        queue,
        batch_size,
        window: Duration::from_secs(window_s),
        concurrency,
        reports_failures,
        rules: vec![],
    })
}

/// Reads a property that has one value or is absent.
fn switch(
    properties: &mut Fields,
    name: &str,
    on: &Value,
    names: &References,
) -> Result<bool, TemplateError> {
    match properties.take(name) {
        Some(node) if names.value(&node)? == *on => Ok(true),
        Some(node) => Err(TemplateError::new(
            node.line,
            format!("{name} must be {on} or absent"),
        )),
        None => Ok(false),
    }
}

/// Reads the switch of an event source, which is on by default.
fn is_on(node: Option<Node>, names: &References) -> Result<bool, TemplateError> {
    let Some(node) = node else {
        return Ok(true);
    };
    match names.text(&node)?.as_str() {
        "true" | "ENABLED" => Ok(true),
        "false" | "DISABLED" => Ok(false),
        _ => Err(TemplateError::new(
            node.line,
            "an event source is enabled or disabled",
        )),
    }
}

fn destination(node: Option<Node>, names: &References) -> Result<Option<String>, TemplateError> {
    let Some(node) = node else {
        return Ok(None);
    };
    let mut config = Fields::new("DestinationConfig", node)?;
    let mut failure = Fields::new("OnFailure", config.required("OnFailure")?)?;
    config.finish()?;
    failure.ignore(&["Type"]);
    let destination = failure.required("Destination")?;
    failure.finish()?;
    queue_of(&destination, names).map(Some)
}
