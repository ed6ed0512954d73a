//! Event buses: an event goes to every target whose rule matches.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;

use super::{
    async_queue::{AsyncQueue, Outgoing, Target},
    call::Answer,
};
use crate::{
    names::{ACCOUNT, REGION},
    pattern::Pattern,
    platform::Platform,
    template::Template,
};

/// The most entries of one call, and their most bytes together.
/// <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>
const MAX_ENTRIES: usize = 10;
const MAX_BYTES: usize = 1024 * 1024;

const MAX_TRACE_HEADER: usize = 500;

pub struct Bus {
    buses: HashMap<String, Vec<Rule>>,
    async_queue: AsyncQueue,
    seen: broadcast::Sender<Seen>,
    accepted: AtomicU64,
    platform: Arc<dyn Platform>,
}

/// An event on a bus, for observers.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Timestamp,
    pub kind: String,
    pub detail: String,
    /// The tracing header of X-Ray.
    pub trace: Option<String>,
}

struct Rule {
    pattern: Pattern,
    target: Target,
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
    resources: Option<Vec<String>>,
    /// Seconds since 1970.
    time: Option<f64>,
    trace_header: Option<String>,
}

struct Refusal(&'static str, String);

impl Bus {
    pub fn new(template: &Template, async_queue: AsyncQueue, platform: Arc<dyn Platform>) -> Self {
        let mut buses: HashMap<_, Vec<_>> = template
            .buses
            .iter()
            .map(|name| (name.clone(), vec![]))
            .collect();
        for function in &template.functions {
            for rule in function.rules().filter(|rule| rule.target.is_enabled) {
                buses.entry(rule.bus.clone()).or_default().push(Rule {
                    pattern: rule.matcher.clone(),
                    target: Target {
                        function: function.id.clone(),
                        rule: Some(rule.target.name.clone()),
                    },
                });
            }
        }
        Self {
            buses,
            async_queue,
            seen: broadcast::Sender::new(4096),
            accepted: AtomicU64::default(),
            platform,
        }
    }

    /// Subscribes to all events from now on.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// The number of events that the buses accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub fn call(&self, operation: &str, body: &str) -> Answer {
        if operation != "PutEvents" {
            let message = format!("the operation {operation} is not supported by the local system");
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
        if let Some(problem) = request.entries.iter().find_map(Entry::invalid) {
            return Answer::error(400, "ValidationException", &problem);
        }
        let (mut outgoing, mut seen) = (vec![], vec![]);
        let answers: Vec<_> = request
            .entries
            .into_iter()
            .map(|entry| match self.route(&entry, &mut outgoing) {
                Ok(id) => {
                    seen.push(Seen {
                        at: self.platform.now(),
                        kind: entry.detail_type.unwrap_or_default(),
                        detail: entry.detail.unwrap_or_default(),
                        trace: entry.trace_header,
                    });
                    json!({ "EventId": id })
                }
                Err(Refusal(code, message)) => {
                    json!({ "ErrorCode": code, "ErrorMessage": message })
                }
            })
            .collect();
        // One invalid entry makes the whole call invalid.
        let is_invalid = |answer: &&Value| answer["ErrorCode"] == "ValidationException";
        if let Some(invalid) = answers.iter().find(is_invalid) {
            let message = invalid["ErrorMessage"].as_str().unwrap_or_default();
            return Answer::error(400, "ValidationException", message);
        }
        if let Err(error) = self.async_queue.accept(outgoing) {
            return Answer::error(500, "InternalException", &error.to_string());
        }
        self.accepted
            .fetch_add(seen.len() as u64, Ordering::Relaxed);
        for event in seen {
            // A bus without observers is not an error.
            let _ = self.seen.send(event);
        }
        let failed = answers
            .iter()
            .filter(|answer| answer.get("ErrorCode").is_some())
            .count();
        Answer::ok(&json!({ "FailedEntryCount": failed, "Entries": answers }))
    }

    fn route(&self, entry: &Entry, outgoing: &mut Vec<Outgoing>) -> Result<String, Refusal> {
        let refused = entry.detail.as_deref();
        if let Some(code) = refused.and_then(|detail| self.platform.refuses(detail)) {
            return Err(Refusal(code, "refused by the platform".to_owned()));
        }
        let source = required("Source", entry.source.as_deref())?;
        let kind = required("DetailType", entry.detail_type.as_deref())?;
        let detail = required("Detail", entry.detail.as_deref())?;
        if source.starts_with("aws.") {
            let message = "Not authorized for the source.".to_owned();
            return Err(Refusal("NotAuthorizedForSourceException", message));
        }
        let detail: Map<String, Value> = serde_json::from_str(detail)
            .map_err(|_| Refusal("MalformedDetail", "Detail is malformed.".to_owned()))?;
        let id = self.platform.new_id().to_string();
        let bus = entry.event_bus_name.as_deref().unwrap_or("default");
        let bus = bus.rsplit('/').next().unwrap_or(bus);
        // A bus without rules accepts the event and delivers it to no target.
        let Some(rules) = self.buses.get(bus) else {
            return Ok(id);
        };
        let event = json!({
            "version": "0",
            "id": id,
            "detail-type": kind,
            "source": source,
            "account": ACCOUNT,
            "time": in_seconds(entry.at().unwrap_or_else(|| self.platform.now())),
            "region": REGION,
            "resources": entry.resources(),
            "detail": detail,
        });
        let payload = event.to_string();
        for rule in rules.iter().filter(|rule| rule.pattern.matches(&event)) {
            outgoing.push(Outgoing {
                target: rule.target.clone(),
                payload: payload.clone(),
                trace: entry.trace_header.clone(),
            });
        }
        Ok(id)
    }
}

/// Returns a required, non-empty parameter of an entry.
fn required<'e>(name: &str, value: Option<&'e str>) -> Result<&'e str, Refusal> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        let message =
            format!("Parameter {name} is not valid. Reason: {name} is a required argument.");
        Refusal("InvalidArgument", message)
    })
}

/// The time of an event in the form of `EventBridge`: without fractions of a second.
fn in_seconds(at: Timestamp) -> String {
    let mut text = at.to_string();
    text.truncate("2026-11-23T09:30:00".len());
    text + "Z"
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("deliveries", &self.async_queue)
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// The size as `EventBridge` counts it.
    /// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html#eb-putevents-calculate-size>
    fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let resources: usize = self.resources().iter().map(String::len).sum();
        let time = if self.time.is_some() { 14 } else { 0 };
        time + length(&self.source) + length(&self.detail_type) + length(&self.detail) + resources
    }

    fn resources(&self) -> &[String] {
        self.resources.as_deref().unwrap_or_default()
    }

    fn at(&self) -> Option<Timestamp> {
        // A float beyond the range becomes the nearest end, then the nearest year with a text.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        self.time
            .map(|seconds| Timestamp::from_millis((seconds * 1000.0) as i64))
    }

    /// The reason to refuse the whole call because of this entry.
    fn invalid(&self) -> Option<String> {
        let length = self
            .trace_header
            .as_ref()
            .map_or(0, |header| header.chars().count());
        (length > MAX_TRACE_HEADER).then(|| {
            format!("TraceHeader has {length} characters: it can have up to {MAX_TRACE_HEADER}")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::{aws::journal::Journal, local_platform::LocalPlatform};

    /// Creates a bus with a rule and a function for each pattern.
    fn bus(patterns: &[&str]) -> Bus {
        let mut text = String::from(
            "Resources:\n  Bus: { Type: AWS::Events::EventBus, Properties: { Name: orders } }\n",
        );
        for (index, pattern) in patterns.iter().enumerate() {
            write!(
                text,
                "  F{index}:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/f
      Events:
        Rule: {{ Type: EventBridgeRule, Properties: {{ EventBusName: !Ref Bus, Pattern: {{ detail: {pattern} }} }} }}
"
            )
            .unwrap();
        }
        let template = Template::parse(&text).unwrap();
        let (async_queue, _) = AsyncQueue::new(Arc::new(Journal::open(None).unwrap()));
        Bus::new(&template, async_queue, Arc::new(LocalPlatform::default()))
    }

    fn targets(bus: &Bus, detail: &str) -> Vec<String> {
        let entry = json!({
            "EventBusName": "orders", "Source": "s", "DetailType": "t", "Detail": detail,
        });
        let mut outgoing = vec![];
        let entry = serde_json::from_value(entry).unwrap();
        assert!(bus.route(&entry, &mut outgoing).is_ok());
        outgoing
            .into_iter()
            .map(|outgoing| outgoing.target.function)
            .collect()
    }

    #[test]
    fn a_rule_changes_no_other_rule_in_any_order() {
        for (one, other, detail) in [
            (
                "{ total: [{ numeric: ['<=', 500] }] }",
                "{ total: [500] }",
                r#"{"total":100}"#,
            ),
            (
                "{ lines: [{ exists: true }] }",
                "{ sku: [T] }",
                r#"{"lines":[1,{"sku":"T"}]}"#,
            ),
            (
                "{ x: [{ prefix: a }] }",
                "{ x: [{ anything-but: ab }] }",
                r#"{"x":"ab"}"#,
            ),
            (
                "{ x: [{ wildcard: 'a*' }] }",
                "{ x: [{ exists: false }] }",
                r#"{"x":"ab"}"#,
            ),
        ] {
            assert_eq!(targets(&bus(&[one]), detail), ["F0"], "{one}");
            assert!(targets(&bus(&[other]), detail).is_empty(), "{other}");
            assert_eq!(targets(&bus(&[one, other]), detail), ["F0"]);
            assert_eq!(targets(&bus(&[other, one]), detail), ["F1"]);
        }
    }
}
