//! docs/asyncapi.yaml matches the bus: every version of every event, its envelope, and the
//! consumers that the template's rules select.

use std::{fmt::Write, path::Path};

use cairn::{
    cloudevent::CloudEvent,
    schema::{EventType, generate, structure},
};
use orders::system;
use orders_local::references;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Map, Value, json};

use crate::{
    fixture::{template, template_file},
    openapi::plain,
};

const MESSAGES: &str = "#/components/messages/";
/// The key of the streams of examples.
const EXAMPLE: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

fn file(name: &str) -> String {
    let file = template_file().with_file_name(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn document() -> Value {
    plain(&Yaml::load_from_str(&file("docs/asyncapi.yaml")).unwrap()[0])
}

fn members<'a>(document: &'a Value, pointer: &str) -> &'a Map<String, Value> {
    let found = document.pointer(pointer).and_then(Value::as_object);
    found.unwrap_or_else(|| panic!("the document has no {pointer}"))
}

/// Every version of every event type up to the one that is written, with the name of its message.
fn versions() -> Vec<(String, EventType, u32)> {
    let mut versions = vec![];
    for kind in system().event_types() {
        for version in 1..=kind.written.unwrap_or(0) {
            versions.push((format!("{}-{version}", kind.name), kind.clone(), version));
        }
    }
    versions
}

#[test]
fn the_reference_of_events_is_current() {
    let mut bus = String::new();
    let mut messages = String::new();
    for (name, kind, version) in versions() {
        writeln!(bus, "{name}: {{ $ref: \"{MESSAGES}{name}\" }}").unwrap();
        messages += &message(&name, &kind, version);
    }
    let regions = [
        ("bus", bus),
        ("operations", operations()),
        ("messages", messages),
    ];
    references::regions("docs/asyncapi.yaml", &regions).unwrap();
}

/// The message of a version of an event, with an example.
fn message(name: &str, kind: &EventType, version: u32) -> String {
    let EventType {
        category,
        name: kind,
        ..
    } = kind;
    let schema: Value =
        serde_json::from_str(&file(&format!("events/schemas/{kind}/{version}.json"))).unwrap();
    let summary = text(schema["description"].as_str().unwrap());
    format!(
        r##"{name}:
  name: {kind}
  summary: {summary}
  payload:
    allOf:
      - $ref: "#/components/schemas/CloudEvent"
      - properties:
          type: {{ const: {kind} }}
          dataschema: {{ const: {kind}/{version} }}
          data: {{ $ref: ../events/schemas/{kind}/{version}.json }}
  examples:
    - payload: {{
        specversion: "1.0", id: "{category}-{EXAMPLE}@1",
        source: cairn.orders, type: {kind},
        subject: {category}-{EXAMPLE},
        time: "2026-11-23T09:30:00.000Z", datacontenttype: application/json,
        dataschema: {kind}/{version}, streamversion: 1, correlationid: visit-0815,
        data: {{ $ref: "../events/schemas/{kind}/{version}.golden.json#/0" }} }}
"##
    )
}

/// An operation for the relay, and for each function with a rule.
fn operations() -> String {
    let mut operations = operation(
        "relay-events",
        "send",
        "No other function writes to the bus.",
    );
    for function in &template().functions {
        let patterns: Vec<_> = function.rules().map(|rule| &rule.pattern).collect();
        if patterns.is_empty() {
            continue;
        }
        let mut description = String::new();
        for pattern in &patterns {
            let pattern = pattern.to_string();
            writeln!(
                description,
                "A rule has this pattern:\n\n```json\n{pattern}\n```\n"
            )
            .unwrap();
        }
        operations += &operation(&function.stem, "receive", description.trim_end());
        operations += "  messages:\n";
        for (name, kind, version) in versions() {
            if patterns
                .iter()
                .any(|pattern| may_match(pattern, &kind, version))
            {
                writeln!(
                    operations,
                    "    - {{ $ref: \"#/channels/bus/messages/{name}\" }}"
                )
                .unwrap();
            }
        }
    }
    operations
}

fn operation(stem: &str, action: &str, description: &str) -> String {
    let summary = text(&summary(stem));
    let description = description.replace('\n', "\n    ").replace("    \n", "\n");
    format!(
        r##"{stem}:
  action: {action}
  channel: {{ $ref: "#/channels/bus" }}
  summary: {summary}
  description: |
    {description}
"##
    )
}

/// The first paragraph of the documentation of a function's crate.
fn summary(stem: &str) -> String {
    let functions = template_file().with_file_name("functions");
    let mut groups = std::fs::read_dir(functions).unwrap();
    let lib = groups.find_map(|group| {
        let lib = group.unwrap().path().join(stem).join("src/lib.rs");
        std::fs::read_to_string(lib).ok()
    });
    let lib = lib.unwrap_or_else(|| panic!("no functions/*/{stem}/src/lib.rs"));
    let lines = lib.lines().map_while(|line| line.strip_prefix("//! "));
    lines.collect::<Vec<_>>().join(" ")
}

/// A plain or quoted YAML scalar.
pub(crate) fn text(text: &str) -> String {
    if text.contains([':', '#', '`']) {
        json!(text).to_string()
    } else {
        text.to_owned()
    }
}

#[test]
fn the_envelope_is_the_one_that_the_code_makes() {
    let mut envelope = generate::<CloudEvent>();
    envelope.as_object_mut().unwrap().remove("$schema");
    let documented = document()["components"]["schemas"]["CloudEvent"].clone();
    assert_eq!(structure(documented), structure(envelope));
}

/// True if a rule can match a version of an event, by its type, its stream and its data.
fn may_match(pattern: &Value, kind: &EventType, version: u32) -> bool {
    let texts = |node: &Value| node.as_array().cloned();
    let is_named =
        texts(&pattern["detail-type"]).is_none_or(|names| names.contains(&json!(kind.name)));
    let detail = &pattern["detail"];
    let is_there = texts(&detail["subject"]).is_none_or(|forms| {
        let category = format!("{}-", kind.category);
        forms.iter().any(|form| form["prefix"] == category)
    });
    let path = format!("events/schemas/{}/{version}.json", kind.name);
    let schema: Value = serde_json::from_str(&file(&path)).unwrap();
    is_named && is_there && can_be(&detail["data"], &schema, &schema)
}

/// True if data of a schema can match a part of a pattern.
fn can_be(pattern: &Value, schema: &Value, root: &Value) -> bool {
    match pattern {
        Value::Object(members) => members.iter().all(|(name, pattern)| {
            let mut found = vec![];
            members_of(schema, root, name, &mut found);
            found.iter().any(|schema| can_be(pattern, schema, root))
        }),
        Value::Array(values) => {
            let mut taken = vec![];
            values_of(schema, root, &mut taken);
            taken.is_empty() || values.iter().any(|value| taken.contains(value))
        }
        _ => true,
    }
}

/// Visits a schema, those that it refers to, and its alternatives.
fn each<'a>(schema: &'a Value, root: &'a Value, see: &mut impl FnMut(&'a Value)) {
    see(schema);
    if let Some(reference) = schema["$ref"].as_str() {
        each(root.pointer(&reference[1..]).unwrap(), root, see);
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for schema in schema[keyword].as_array().into_iter().flatten() {
            each(schema, root, see);
        }
    }
}

fn members_of<'a>(schema: &'a Value, root: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    each(schema, root, &mut |schema| {
        found.extend(schema["properties"].get(name));
    });
}

fn values_of(schema: &Value, root: &Value, found: &mut Vec<Value>) {
    each(schema, root, &mut |schema| {
        found.extend(schema["enum"].as_array().into_iter().flatten().cloned());
        found.extend(schema.get("const").cloned());
    });
}

/// Every reference of the document has a target, in the document or in a file beside it.
#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut references = vec![];
    collect(&document, &mut references);
    for reference in &references {
        let (path, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let target = if path.is_empty() {
            document.pointer(pointer).cloned()
        } else {
            beside(path).pointer(pointer).cloned()
        };
        assert!(target.is_some(), "{reference}");
    }
    assert!(references.len() > 50, "{}", references.len());
}

fn beside(path: &str) -> Value {
    let path = Path::new("docs").join(path);
    serde_json::from_str(&file(path.to_str().unwrap())).unwrap()
}

/// The data of each example matches the schema of its message.
#[test]
fn every_example_is_an_envelope_of_its_message() {
    let document = document();
    let mut examples = 0;
    for (name, message) in members(&document, "/components/messages") {
        for example in message["examples"].as_array().into_iter().flatten() {
            let mut payload = example["payload"].clone();
            let reference = payload["data"]["$ref"].as_str().unwrap().to_owned();
            let (path, pointer) = reference.split_once('#').unwrap();
            payload["data"] = beside(path).pointer(pointer).unwrap().clone();
            let envelope: CloudEvent = serde_json::from_str(&payload.to_string()).unwrap();
            let recorded = envelope.recorded().unwrap().unwrap();
            assert_eq!(envelope.id, recorded.id(), "{name}");
            let (kind, version) = (&recorded.event.name, recorded.event.schema);
            assert_eq!(format!("{kind}-{version}"), *name);
            assert_eq!(envelope.dataschema, format!("{kind}/{version}"), "{name}");
            assert_eq!(
                path,
                format!("../events/schemas/{kind}/{version}.golden.json")
            );
            examples += 1;
        }
    }
    assert!(examples > 30, "{examples}");
}

fn collect(node: &Value, references: &mut Vec<String>) {
    match node {
        Value::Object(members) => {
            references.extend(
                members
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            members.values().for_each(|node| collect(node, references));
        }
        Value::Array(nodes) => nodes.iter().for_each(|node| collect(node, references)),
        _ => {}
    }
}
