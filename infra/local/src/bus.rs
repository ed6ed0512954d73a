//! Buses: what is put on one goes to every target whose rule matches.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use cairn::Timestamp;
use quamina::Quamina;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use crate::{
    aws::Answer,
    deliveries::{Deliveries, Outgoing, Target},
    template::{ACCOUNT, REGION, Rule, Template, TemplateError, Trigger},
    world::World,
};

/// The most entries of one call, and the most bytes of them together.
/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>
const MAX_ENTRIES: usize = 10;
const MAX_BYTES: usize = 1024 * 1024;

/// The buses and their rules.
pub struct Bus {
    buses: HashMap<String, Rules>,
    deliveries: Deliveries,
    seen: broadcast::Sender<Seen>,
    world: Arc<dyn World>,
}

/// An event that was put on a bus, for who watches.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was put there.
    pub at: Timestamp,
    /// The event's type.
    pub kind: String,
    /// What it carries.
    pub detail: String,
}

struct Rules {
    matcher: Quamina<usize>,
    /// The target of each rule.
    targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    event_bus_name: Option<String>,
    source: Option<String>,
    detail_type: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
}

impl Bus {
    /// The buses of a template.
    ///
    /// # Errors
    /// When a rule is of a bus that is not there, or its pattern uses what cannot be matched here.
    pub fn new(
        template: &Template,
        deliveries: Deliveries,
        world: Arc<dyn World>,
    ) -> Result<Self, TemplateError> {
        let mut buses: HashMap<_, _> = template
            .buses
            .iter()
            .map(|name| (name.clone(), Rules::new()))
            .collect();
        for function in &template.functions {
            for trigger in &function.triggers {
                let Trigger::Rule(rule) = trigger else {
                    continue;
                };
                let Some(rules) = buses.get_mut(&rule.bus) else {
                    let problem = format!("there is no bus {}", rule.bus);
                    return Err(TemplateError::new(rule.line, problem));
                };
                rules.add(rule, &function.id)?;
            }
        }
        Ok(Self {
            buses,
            deliveries,
            seen: broadcast::Sender::new(4096),
            world,
        })
    }

    /// Every event from now on.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Answers a call.
    pub fn call(&self, operation: &str, body: &str) -> Answer {
        if operation != "PutEvents" {
            let message = format!("the operation {operation} cannot be had on one machine");
            return Answer::error(400, "UnknownOperationException", &message);
        }
        let request: Request = match serde_json::from_str(body) {
            Ok(request) => request,
            Err(error) => return Answer::error(400, "SerializationException", &error.to_string()),
        };
        let bytes: usize = request.entries.iter().map(Entry::bytes).sum();
        if request.entries.is_empty() || request.entries.len() > MAX_ENTRIES || bytes > MAX_BYTES {
            return Answer::error(
                400,
                "ValidationException",
                "a call takes 1 to 10 entries of together at most 1 MB",
            );
        }
        let mut outgoing = vec![];
        let answers: Vec<_> = request
            .entries
            .iter()
            .map(|entry| match self.route(entry, &mut outgoing) {
                Ok(id) => json!({ "EventId": id }),
                Err((code, message)) => json!({ "ErrorCode": code, "ErrorMessage": message }),
            })
            .collect();
        if let Err(error) = self.deliveries.accept(outgoing) {
            return Answer::error(500, "InternalException", &error.to_string());
        }
        for entry in request.entries {
            // Nobody may be watching.
            let _ = self.seen.send(Seen {
                at: self.world.now(),
                kind: entry.detail_type.unwrap_or_default(),
                detail: entry.detail.unwrap_or_default(),
            });
        }
        let failed = answers
            .iter()
            .filter(|answer| answer.get("ErrorCode").is_some())
            .count();
        Answer::ok(&json!({ "FailedEntryCount": failed, "Entries": answers }))
    }

    /// Finds who gets an entry, and returns its id.
    fn route(
        &self,
        entry: &Entry,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<String, (&'static str, &'static str)> {
        let refuse = |message| ("InvalidArgument", message);
        if !self.world.takes() {
            return Err(("ThrottlingException", "Rate exceeded"));
        }
        let source = entry
            .source
            .as_deref()
            .ok_or(refuse("Source is required."))?;
        let kind = entry
            .detail_type
            .as_deref()
            .ok_or(refuse("DetailType is required."))?;
        let detail = entry
            .detail
            .as_deref()
            .ok_or(refuse("Detail is required."))?;
        let detail: Map<String, Value> = serde_json::from_str(detail)
            .map_err(|_| ("MalformedDetail", "Detail is malformed."))?;
        let id = self.world.new_id().to_string();
        let bus = entry.event_bus_name.as_deref().unwrap_or("default");
        let bus = bus.rsplit('/').next().unwrap_or(bus);
        // An event on a bus without rules is taken, and goes nowhere.
        let Some(rules) = self.buses.get(bus) else {
            return Ok(id);
        };
        let event = json!({
            "version": "0",
            "id": id,
            "detail-type": kind,
            "source": source,
            "account": ACCOUNT,
            "time": self.world.now(),
            "region": REGION,
            "resources": entry.resources,
            "detail": detail,
        })
        .to_string();
        let matched = rules
            .matcher
            .matches_for_event(event.as_bytes())
            .map_err(|_| ("MalformedDetail", "Detail is malformed."))?;
        for rule in BTreeSet::from_iter(matched) {
            if let Some(target) = rules.targets.get(rule) {
                outgoing.push(Outgoing {
                    target: target.clone(),
                    payload: event.clone(),
                });
            }
        }
        Ok(id)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        length(&self.source) + length(&self.detail_type) + length(&self.detail)
    }
}

impl Rules {
    fn new() -> Self {
        Self {
            matcher: Quamina::new(),
            targets: vec![],
        }
    }

    fn add(&mut self, rule: &Rule, function: &str) -> Result<(), TemplateError> {
        let index = self.targets.len();
        for pattern in alternatives(&rule.pattern) {
            self.matcher
                .add_pattern(index, &pattern.to_string())
                .map_err(|error| {
                    let problem = format!("the pattern cannot be matched here: {error}");
                    TemplateError::new(rule.line, problem)
                })?;
        }
        self.targets.push(Target {
            function: function.to_owned(),
            rule: Some(rule.target.name.clone()),
        });
        Ok(())
    }
}

/// A pattern without `$or`: one for each alternative. The matcher lacks `$or`, and takes several
/// patterns of one name for alternatives.
fn alternatives(pattern: &Value) -> Vec<Value> {
    let Value::Object(fields) = pattern else {
        return vec![pattern.clone()];
    };
    let mut expanded = vec![Map::new()];
    for (name, value) in fields {
        let choices: Vec<Map<String, Value>> = match (name.as_str(), value) {
            ("$or", Value::Array(options)) => options
                .iter()
                .flat_map(alternatives)
                .filter_map(|option| match option {
                    Value::Object(option) => Some(option),
                    _ => None,
                })
                .collect(),
            _ => alternatives(value)
                .into_iter()
                .map(|value| Map::from_iter([(name.clone(), value)]))
                .collect(),
        };
        expanded = expanded
            .iter()
            .flat_map(|so_far| {
                choices.iter().map(move |choice| {
                    let mut both = so_far.clone();
                    both.extend(choice.clone());
                    both
                })
            })
            .collect();
    }
    expanded.into_iter().map(Value::Object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_or_becomes_one_pattern_for_each_alternative() {
        let pattern = json!({ "source": ["s"], "detail": { "$or": [{ "a": [1] }, { "b": [2] }] } });
        assert_eq!(
            alternatives(&pattern),
            [
                json!({ "source": ["s"], "detail": { "a": [1] } }),
                json!({ "source": ["s"], "detail": { "b": [2] } }),
            ]
        );
    }
}
