//! CloudFormation's read operations: the running system as a stack.
//!
//! The stack consists of the functions, their event sources and the API. Its template is the one
//! after the transformation of SAM: a variable that refers to a parameter keeps its reference, and
//! every other value is resolved.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Operations.html>

use std::net::SocketAddr;

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::protocol::{Protocol, XML, answer, escaped, field};
use crate::{
    aws::rules::{TargetSettings, rule_state, target},
    names::{ACCOUNT, REGION, alias_id, queue_arn},
    template::{FunctionSpec, Mapping, Parameters, QueueMapping, RuleTarget, Template, Trigger},
};

const ID: &str = "00000000-0000-0000-0000-000000000000";
/// The creation time of the stack, which is not recorded locally.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// The stack of the system.
#[derive(Debug)]
pub(crate) struct Stack {
    name: String,
    parameters: Parameters,
    /// The logical id, physical id and type of each resource.
    resources: Vec<(String, String, &'static str)>,
    template: Value,
    api: String,
}

impl Stack {
    pub(crate) fn new(template: &Template, api: SocketAddr) -> Self {
        let mut stack = Self {
            name: template.stack.clone(),
            parameters: template.parameters.clone(),
            resources: vec![],
            template: json!({}),
            api: format!("http://{api}"),
        };
        let (mut resources, mut paths) = (Map::new(), Map::new());
        for function in &template.functions {
            stack.function(function, &mut resources, &mut paths);
        }
        let mut outputs = json!({});
        if !paths.is_empty() {
            let api = json!({ "Body": { "openapi": "3.0.1", "paths": paths } });
            stack.add(&mut resources, "Api", "api", "AWS::ApiGatewayV2::Api", &api);
            outputs = json!({ "ApiUrl": { "Value": { "Fn::GetAtt": ["Api", "ApiEndpoint"] } } });
        }
        stack.template = json!({ "Resources": resources, "Outputs": outputs });
        stack
    }

    fn function(
        &mut self,
        function: &FunctionSpec,
        resources: &mut Map<String, Value>,
        paths: &mut Map<String, Value>,
    ) {
        let id = &function.id;
        let properties = json!({
            "Timeout": function.timeout_s,
            "Environment": { "Variables": function.variables },
        });
        self.add(
            resources,
            id,
            &function.name(),
            "AWS::Lambda::Function",
            &properties,
        );
        let (alias, properties) = (alias_id(id), json!({ "Name": "live" }));
        self.add(
            resources,
            &alias,
            &function.alias_arn(),
            "AWS::Lambda::Alias",
            &properties,
        );
        for trigger in &function.triggers {
            match trigger {
                Trigger::Http(route) => {
                    let security = route
                        .scopes
                        .as_ref()
                        .map(|scopes| json!([{ "Jwt": scopes }]));
                    let operation = json!({ "security": security.unwrap_or(json!([])) });
                    let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
                    if let Value::Object(path) = path {
                        path.insert(route.operation(), operation);
                    }
                }
                Trigger::Rule(rule) => {
                    self.rule(resources, function, Some(&rule.bus), &rule.target);
                }
                Trigger::Schedule(schedule) => {
                    self.rule(resources, function, None, &schedule.target);
                }
                Trigger::Queue(mapping) => {
                    for rule in &mapping.rules {
                        self.rule(resources, function, Some(&rule.bus), &rule.target);
                    }
                    self.mapping(resources, id, &mapping.name, queue_settings(mapping));
                }
                Trigger::Stream(mapping) => {
                    self.mapping(resources, id, &mapping.name, settings(mapping));
                }
            }
        }
    }

    fn mapping(
        &mut self,
        resources: &mut Map<String, Value>,
        function: &str,
        name: &str,
        mut properties: Map<String, Value>,
    ) {
        let alias = json!({ "Ref": alias_id(function) });
        properties.insert("FunctionName".to_owned(), alias);
        let kind = "AWS::Lambda::EventSourceMapping";
        let uuid = mapping_id(function, name);
        let id = format!("{function}{name}");
        self.add(resources, &id, &uuid, kind, &properties.into());
    }

    fn rule(
        &mut self,
        resources: &mut Map<String, Value>,
        function: &FunctionSpec,
        bus: Option<&str>,
        rule: &RuleTarget,
    ) {
        let TargetSettings { rule: name, target } = target(function, rule);
        let physical = match bus {
            Some(bus) => format!("{bus}|{name}"),
            None => name,
        };
        let state = rule_state(rule.is_declared_enabled);
        let mut properties = json!({ "State": state, "Targets": [target] });
        if let (Some(bus), Value::Object(properties)) = (bus, &mut properties) {
            properties.insert("EventBusName".to_owned(), bus.into());
        }
        self.add(
            resources,
            &rule.id,
            &physical,
            "AWS::Events::Rule",
            &properties,
        );
    }

    fn add(
        &mut self,
        resources: &mut Map<String, Value>,
        id: &str,
        physical: &str,
        kind: &'static str,
        properties: &Value,
    ) {
        let resource = json!({ "Type": kind, "Properties": properties });
        resources.insert(id.to_owned(), resource);
        self.resources
            .push((id.to_owned(), physical.to_owned(), kind));
    }

    /// Answers an operation; `None` if it is not available.
    pub(super) fn answer(
        &self,
        operation: &str,
        form: &[u8],
        request_id: &str,
    ) -> Option<Response> {
        let result = match operation {
            "DescribeStacks" => self.described(),
            "ListStackResources" => self.listed(),
            "GetTemplate" => {
                let body = escaped(&self.template.to_string());
                format!("<TemplateBody>{body}</TemplateBody>")
            }
            _ => return None,
        };
        let arn = self.arn();
        let is_other = |name: &String| *name != self.name && *name != arn;
        if let Some(name) = field(form, "StackName").filter(is_other) {
            let message = format!("Stack with id {name} does not exist");
            return Some(Protocol::Query.error(400, "ValidationError", &message, request_id));
        }
        let xml = format!(
            "<{operation}Response xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\">\
             <{operation}Result>{result}</{operation}Result>\
             <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\
             </{operation}Response>"
        );
        Some(answer(200, XML, request_id, xml))
    }

    fn described(&self) -> String {
        let parameters: String = self
            .parameters
            .iter()
            .map(|(name, value)| member(&[("ParameterKey", name), ("ParameterValue", value)]))
            .collect();
        let output = member(&[("OutputKey", "ApiUrl"), ("OutputValue", &self.api)]);
        format!(
            "<Stacks><member><StackName>{}</StackName><StackId>{}</StackId>\
             <StackStatus>CREATE_COMPLETE</StackStatus><CreationTime>{CREATED}</CreationTime>\
             <Parameters>{parameters}</Parameters><Outputs>{output}</Outputs></member></Stacks>",
            self.name,
            self.arn()
        )
    }

    fn arn(&self) -> String {
        let name = &self.name;
        format!("arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/{ID}")
    }

    fn listed(&self) -> String {
        let members: String = self
            .resources
            .iter()
            .map(|(id, physical, kind)| {
                member(&[
                    ("LogicalResourceId", id),
                    ("PhysicalResourceId", physical),
                    ("ResourceType", kind),
                    ("ResourceStatus", "CREATE_COMPLETE"),
                    ("LastUpdatedTimestamp", CREATED),
                ])
            })
            .collect();
        format!("<StackResourceSummaries>{members}</StackResourceSummaries>")
    }
}

/// Returns an item of a list with these texts.
fn member(texts: &[(&str, &str)]) -> String {
    let mut xml = String::from("<member>");
    for &(name, text) in texts {
        xml.extend(["<", name, ">", &escaped(text), "</", name, ">"]);
    }
    xml + "</member>"
}

/// The id of a mapping, the same at every start.
pub(super) fn mapping_id(function: &str, mapping: &str) -> String {
    let name = format!("{function}{mapping}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// The settings of a mapping that the template can set, without those that it leaves out.
pub(super) fn settings(mapping: &Mapping) -> Map<String, Value> {
    let optional = [
        ("MaximumRetryAttempts", mapping.retries.map(u64::from)),
        (
            "MaximumRecordAgeInSeconds",
            mapping.max_age.map(|age| age.as_secs()),
        ),
    ];
    let fixed = [
        ("BatchSize", json!(mapping.batch_size)),
        ("BisectBatchOnFunctionError", json!(mapping.bisects)),
        ("FunctionResponseTypes", reports(mapping.reports_failures)),
    ];
    let optional = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, json!(value?))));
    let settings = fixed.into_iter().chain(optional);
    settings
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The settings of the mapping of a queue.
pub(super) fn queue_settings(mapping: &QueueMapping) -> Map<String, Value> {
    let settings = [
        ("EventSourceArn", queue_arn(&mapping.queue).into()),
        ("BatchSize", json!(mapping.batch_size)),
        (
            "MaximumBatchingWindowInSeconds",
            json!(mapping.window.as_secs()),
        ),
        ("FunctionResponseTypes", reports(mapping.reports_failures)),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    settings.into_iter().collect()
}

fn reports(is_on: bool) -> Value {
    if is_on {
        json!(["ReportBatchItemFailures"])
    } else {
        json!([])
    }
}
