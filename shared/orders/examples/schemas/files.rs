//! The files that are generated from the event types.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn::{
    cloudevent::CloudEvent,
    schema::{EventType, Release},
};
use orders::system;
use serde_json::{Value, json};

pub(crate) fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/schemas")
}

pub(crate) fn template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/schemas.yaml")
}

pub(crate) fn schema(name: &str, version: u32) -> PathBuf {
    schemas().join(format!("{name}/{version}.json"))
}

pub(crate) fn golden(name: &str, version: u32) -> PathBuf {
    schemas().join(format!("{name}/{version}.golden.json"))
}

/// The file that records the previous release.
pub(crate) fn release() -> PathBuf {
    schemas().join("released.json")
}

/// Returns the schema versions that the previous release reads and writes.
pub(crate) fn released() -> Release {
    serde_json::from_value(read(&release()).unwrap()).unwrap()
}

/// Texts that the values of the domain accept: ids of customers and SKUs, currencies, ids of orders.
const TEXTS: [&str; 4] = [
    "c-42",
    "TEA-01",
    "EUR",
    "6f9619ff-8b86-4011-b42d-00cf4fc964ff",
];

/// Returns examples of the type's newest version: those of the previous version, and one that has
/// every member.
pub(crate) fn examples(kind: &EventType) -> Vec<Value> {
    let previous = kind.version - 1;
    let earlier = read(&golden(&kind.name, previous)).unwrap_or_default();
    let earlier = earlier.as_array().cloned().unwrap_or_default();
    let earlier = earlier
        .iter()
        .filter_map(|data| kind.renew(previous, data).ok());
    earlier.chain(kind.example(&TEXTS)).collect()
}

/// Returns the JSON in a file, or `None` if the file does not exist.
pub(crate) fn read(file: &Path) -> Option<Value> {
    let text = fs::read_to_string(file).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// Returns the name and version of every schema, up to the version that each type is written in.
pub(crate) fn published() -> Vec<(String, u32)> {
    let mut published: Vec<_> = system()
        .event_types()
        .iter()
        .filter_map(|kind| Some((kind.name.clone(), kind.written?)))
        .flat_map(|(name, written)| (1..=written).map(move |version| (name.clone(), version)))
        .filter(|(name, version)| schema(name, *version).exists())
        .collect();
    published.sort();
    published
}

/// Returns infra/schemas.yaml, which registers every published version.
pub(crate) fn registered() -> String {
    let schemas = published().into_iter().map(|(name, version)| {
        let data = read(&schema(&name, version)).unwrap_or_default();
        let content = on_the_bus(&name, version, &data);
        format!(
            r#"
  {name}{version}:
    Type: AWS::EventSchemas::Schema
    Properties:
      RegistryName: !GetAtt Registry.RegistryName
      SchemaName: !Sub "${{Source}}@{name}-{version}"
      Type: JSONSchemaDraft4
      Content: |
        {content}
"#
        )
    });
    [HEAD.to_owned()].into_iter().chain(schemas).collect()
}

const HEAD: &str = r#"AWSTemplateFormatVersion: "2010-09-09"
Description: The schemas of the events on the bus

# Written by `cargo run -p orders --example schemas`, from events/schemas.

Parameters:
  Name:
    Type: String
    Description: The name of the registry
  Source:
    Type: String
    Description: The source of the events on the bus

Resources:
  Registry:
    Type: AWS::EventSchemas::Registry
    Properties:
      RegistryName: !Ref Name
      Description: The events of orders, stock, payments, shipments and fulfilments
"#;

/// Returns the schema of the event that a rule's target receives.
fn on_the_bus(name: &str, version: u32, data: &Value) -> Value {
    let mut data = data.clone();
    let mut envelope = cairn::schema::generate::<CloudEvent>();
    draft_4(&mut data);
    draft_4(&mut envelope);
    // References are resolved from the root.
    let definitions = data
        .as_object_mut()
        .and_then(|data| data.remove("definitions"));
    envelope["properties"]["type"] = json!({ "enum": [name] });
    envelope["properties"]["dataschema"] = json!({ "enum": [format!("{name}/{version}")] });
    envelope["properties"]["data"] = data;
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-04/schema#",
        "title": name,
        "type": "object",
        "required": ["source", "detail-type", "detail"],
        "properties": {
            "source": { "type": "string" },
            "detail-type": { "enum": [name] },
            "detail": envelope,
        },
    });
    if let Some(definitions) = definitions {
        schema["definitions"] = definitions;
    }
    schema
}

/// Rewrites what draft 4 does not support.
fn draft_4(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("$schema");
            if let Some(value) = members.remove("const") {
                members.insert("enum".to_owned(), json!([value]));
            }
            members.values_mut().for_each(draft_4);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(draft_4),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
