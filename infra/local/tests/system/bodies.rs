//! The schemas of request bodies in docs/openapi.yaml, from their types.

use std::{collections::BTreeMap, fmt::Write};

use cairn::Input;
use orders::{
    requests::{self, OrderRequest, UnpricedLines},
    values::Line,
};
use orders_local::references;
use serde_json::{Map, Value, json};

use crate::asyncapi::text;

/// The keywords of a schema in the order of the document. `properties` follows `required`, whose
/// order it has.
const KEYWORDS: [&str; 13] = [
    "type",
    "nullable",
    "allOf",
    "description",
    "required",
    "properties",
    "minItems",
    "maxItems",
    "items",
    "minimum",
    "maximum",
    "maxLength",
    "pattern",
];

#[test]
fn the_reference_of_request_bodies_is_current() {
    let mut region = String::new();
    for (name, schema) in schemas() {
        member(&mut region, "", &name, &schema);
    }
    references::regions("docs/openapi.yaml", &[("bodies", region)]).unwrap();
}

/// Returns the schema of each type in a request body. Responses use the priced line too.
pub(crate) fn schemas() -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for body in [
        OrderRequest::<UnpricedLines>::schema(),
        requests::CancelOrder::schema(),
        requests::ShipOrder::schema(),
        requests::ReceiveStock::schema(),
        requests::SetPrice::schema(),
        Line::schema(),
    ] {
        extract(&body, &mut schemas);
    }
    schemas
}

/// Moves the schemas of named types into a map, and returns a schema that refers to them.
fn extract(schema: &Value, named: &mut BTreeMap<String, Value>) -> Value {
    match schema {
        Value::Object(keywords) => {
            let keywords = keywords.iter();
            let mut keywords: Map<_, _> = keywords
                .map(|(keyword, value)| (keyword.clone(), extract(value, named)))
                .collect();
            let Some(name) = keywords.get("title").and_then(Value::as_str) else {
                return keywords.into();
            };
            let name = name.to_owned();
            keywords.remove("title");
            let schema = Value::from(keywords);
            let earlier = named.insert(name.clone(), schema.clone());
            assert!(
                earlier.is_none_or(|earlier| earlier == schema),
                "two types have the name {name}"
            );
            json!({ "$ref": format!("#/components/schemas/{name}") })
        }
        Value::Array(schemas) => schemas
            .iter()
            .map(|schema| extract(schema, named))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema.clone(),
    }
}

/// Appends a member of a mapping whose value is a schema.
fn member(yaml: &mut String, indent: &str, name: &str, schema: &Value) {
    if let Some(reference) = schema.get("$ref") {
        writeln!(yaml, "{indent}{name}: {{ $ref: {reference} }}").unwrap();
        return;
    }
    writeln!(yaml, "{indent}{name}:").unwrap();
    let indent = &format!("{indent}  ");
    let keywords = schema.as_object().unwrap();
    let known = |keyword: &String| keyword == "enum" || KEYWORDS.contains(&keyword.as_str());
    assert!(keywords.keys().all(known), "an unknown keyword: {schema}");
    for (keyword, value) in KEYWORDS
        .iter()
        .filter_map(|keyword| keywords.get_key_value(*keyword))
    {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                writeln!(yaml, "{indent}properties:").unwrap();
                let required = schema["required"].as_array().into_iter().flatten();
                let first: Vec<_> = required.map(|name| name.as_str().unwrap()).collect();
                let others = properties.keys().map(String::as_str);
                let others = others.filter(|name| !first.contains(name));
                for name in first.iter().copied().chain(others) {
                    member(yaml, &format!("{indent}  "), name, &properties[name]);
                }
            }
            ("items", _) => member(yaml, indent, keyword, value),
            ("required", Value::Array(names)) => {
                let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap()).collect();
                writeln!(yaml, "{indent}required: [{}]", names.join(", ")).unwrap();
            }
            ("allOf", _) => {
                let reference = &value[0]["$ref"];
                writeln!(yaml, "{indent}allOf: [{{ $ref: {reference} }}]").unwrap();
            }
            ("description", Value::String(words)) if words.contains('\n') => {
                let words = words.replace('\n', &format!("\n{indent}  "));
                let words = words.replace(&format!("\n{indent}  \n"), "\n\n");
                writeln!(yaml, "{indent}description: |\n{indent}  {words}").unwrap();
            }
            ("pattern", Value::String(pattern)) => {
                writeln!(yaml, "{indent}pattern: '{}'", pattern.replace('\'', "''")).unwrap();
            }
            (_, Value::String(words)) => {
                writeln!(yaml, "{indent}{keyword}: {}", text(words)).unwrap();
            }
            _ => writeln!(yaml, "{indent}{keyword}: {value}").unwrap(),
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        enumeration(yaml, indent, values);
    }
}

/// Appends the values of an enumeration, 20 in a line.
fn enumeration(yaml: &mut String, indent: &str, values: &[Value]) {
    writeln!(yaml, "{indent}enum: [").unwrap();
    for line in values.chunks(20) {
        let line: Vec<_> = line.iter().map(|value| value.as_str().unwrap()).collect();
        writeln!(yaml, "{indent}  {},", line.join(", ")).unwrap();
    }
    writeln!(yaml, "{indent}  ]").unwrap();
}
