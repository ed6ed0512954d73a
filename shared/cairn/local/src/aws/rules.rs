//! EventBridge's rules, as an operator reads them.
//! <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_DescribeRule.html>

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::call::Answer;
use crate::{
    names::{alias_id, queue_arn, rule_arn},
    template::{FunctionSpec, RuleTarget, Template, Trigger},
};

const DEFAULT_BUS: &str = "default";

/// The rules of all buses, by bus and name.
#[derive(Debug)]
pub struct Rules(BTreeMap<(String, String), Rule>);

#[derive(Debug)]
struct Rule {
    is_enabled: bool,
    target: Value,
}

/// The physical name of a rule, and its target as the template sets it.
pub(crate) struct TargetSettings {
    pub(crate) rule: String,
    pub(crate) target: Value,
}

/// Returns the rule of a function's event source in the form of CloudFormation.
pub(crate) fn target(function: &FunctionSpec, rule: &RuleTarget) -> TargetSettings {
    let arn = match &rule.queue {
        Some(queue) => queue_arn(queue).into(),
        None => json!({ "Ref": alias_id(&function.id) }),
    };
    let mut target = json!({
        "Id": format!("{}LambdaTarget", rule.id),
        "Arn": arn,
        "RetryPolicy": {
            "MaximumRetryAttempts": rule.retries,
            "MaximumEventAgeInSeconds": rule.max_age.as_secs(),
        },
    });
    if let (Some(queue), Value::Object(target)) = (&rule.dead_letters, &mut target) {
        target.insert(
            "DeadLetterConfig".to_owned(),
            json!({ "Arn": queue_arn(queue) }),
        );
    }
    TargetSettings {
        rule: format!("{}-{}", function.stack, rule.id),
        target,
    }
}

pub(crate) fn rule_state(is_enabled: bool) -> &'static str {
    if is_enabled { "ENABLED" } else { "DISABLED" }
}

impl Rules {
    pub(crate) fn new(template: &Template) -> Self {
        let mut rules = BTreeMap::new();
        for function in &template.functions {
            let scheduled = function
                .triggers
                .iter()
                .filter_map(|trigger| match trigger {
                    Trigger::Schedule(schedule) => Some((DEFAULT_BUS, &schedule.target)),
                    Trigger::Http(_)
                    | Trigger::Rule(_)
                    | Trigger::Stream(_)
                    | Trigger::Queue(_) => None,
                });
            let on_buses = function
                .rules()
                .map(|rule| (rule.bus.as_str(), &rule.target));
            for (bus, rule) in on_buses.chain(scheduled) {
                let TargetSettings {
                    rule: name,
                    mut target,
                } = target(function, rule);
                if let (None, Value::Object(target)) = (&rule.queue, &mut target) {
                    target.insert("Arn".to_owned(), function.alias_arn().into());
                }
                let is_enabled = rule.is_enabled;
                rules.insert((bus.to_owned(), name), Rule { is_enabled, target });
            }
        }
        Self(rules)
    }

    pub(super) fn call(&self, operation: &str, body: &str) -> Answer {
        let member = match operation {
            "DescribeRule" => "Name",
            "ListTargetsByRule" => "Rule",
            _ => return Answer::unavailable("events", operation),
        };
        let request: Value = match serde_json::from_str(body) {
            Ok(request) => request,
            Err(error) => return Answer::error(400, "SerializationException", &error.to_string()),
        };
        let text = |name| request.get(name).and_then(Value::as_str);
        let (name, bus) = (text(member).unwrap_or_default(), text("EventBusName"));
        let bus = bus.unwrap_or(DEFAULT_BUS);
        let Some(rule) = self.0.get(&(bus.to_owned(), name.to_owned())) else {
            let message = format!("Rule {name} does not exist on EventBus {bus}.");
            return Answer::error(400, "ResourceNotFoundException", &message);
        };
        if operation == "ListTargetsByRule" {
            return Answer::ok(&json!({ "Targets": [rule.target] }));
        }
        let path = match bus {
            DEFAULT_BUS => name.to_owned(),
            bus => format!("{bus}/{name}"),
        };
        Answer::ok(&json!({
            "Name": name,
            "Arn": rule_arn(&path),
            "EventBusName": bus,
            "State": rule_state(rule.is_enabled),
        }))
    }
}
