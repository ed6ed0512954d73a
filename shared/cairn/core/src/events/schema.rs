//! JSON Schemas of events. With the feature `schema-compat`, it also detects breaking changes between
//! them.
//!
//! The schema of the newest version is generated from the Rust type. The schemas of earlier
//! versions are files, because their types no longer exist.

use std::collections::BTreeSet;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json, value::to_raw_value};

use crate::event::{CodecError, Event, ReadOnly, StoredEvent, Upcaster, current_schema, renamed};

#[cfg(feature = "schema-compat")]
mod breaking;
mod example;
mod release;

pub use crate::structure::structure;
#[cfg(feature = "schema-compat")]
pub use breaking::{Break, breaking};
#[doc(hidden)]
pub use release::Release;

/// An event type, as it is stored and published.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct EventType {
    /// The category of its streams.
    pub category: &'static str,
    /// The stored name, such as `OrderPlaced`.
    pub name: String,
    /// The newest schema version that this release reads, from 1.
    pub version: u32,
    /// The schema version that this release writes; `None` if it only reads the type. See
    /// [`Event::READ_ONLY`].
    pub written: Option<u32>,
    /// The JSON Schema (draft 7) of the data in the newest version.
    pub schema: Value,
    upcasters: &'static [Upcaster],
    renew: Recode,
    rewrite: Recode,
}

type Recode = fn(&StoredEvent) -> Result<StoredEvent, CodecError>;

impl EventType {
    /// Returns the event types of an aggregate, one per variant and in their order.
    pub fn list<E: Event + JsonSchema>(category: &'static str) -> Vec<Self> {
        let root = generate::<E>();
        let variants = root.get("oneOf").and_then(Value::as_array);
        variants
            .into_iter()
            .flatten()
            .filter_map(|variant| {
                let name = variant.pointer("/properties/type/const")?.as_str()?;
                let name = renamed(E::RENAMED, name);
                let version = current_schema(E::UPCASTERS, name);
                let read_only = ReadOnly::find(E::READ_ONLY, name);
                Some(Self {
                    category,
                    name: name.to_owned(),
                    version,
                    written: read_only.map_or(Some(version), |entry| entry.written(version)),
                    schema: of_variant(name, variant, &root),
                    upcasters: E::UPCASTERS,
                    renew: |stored| E::decode(stored)?.encode_newest(),
                    rewrite: |stored| E::decode(stored)?.encode(),
                })
            })
            .collect()
    }

    /// Returns true if an upcaster changes the data of a version. If none does, the next version
    /// must accept every document of this one.
    pub fn is_lifted(&self, version: u32) -> bool {
        let mut upcasters = self.upcasters.iter();
        upcasters.any(|upcaster| {
            upcaster.name == self.name && upcaster.from == version && upcaster.lift.is_some()
        })
    }

    /// Decodes data of any version, and encodes it in the newest one.
    ///
    /// # Errors
    /// Returns an error if this code cannot decode the data.
    pub fn renew(&self, version: u32, data: &Value) -> Result<Value, CodecError> {
        self.recode(self.renew, version, data)
    }

    /// Decodes data of any version, and encodes it in the version that this release writes.
    ///
    /// # Errors
    /// Returns an error if this code cannot decode the data, or only reads the type.
    pub fn rewrite(&self, version: u32, data: &Value) -> Result<Value, CodecError> {
        self.recode(self.rewrite, version, data)
    }

    fn recode(&self, recode: Recode, version: u32, data: &Value) -> Result<Value, CodecError> {
        let stored = StoredEvent {
            name: self.name.clone(),
            schema: version,
            data: to_raw_value(data).map_err(CodecError::Encode)?,
        };
        let recoded = recode(&stored)?;
        serde_json::from_str(recoded.data.get()).map_err(CodecError::Encode)
    }
}

/// Generates the JSON Schema of a type, in draft 7.
pub fn generate<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

/// Returns true if two schemas differ at most in their titles and descriptions.
///
/// A description also changes the form of a schema: a reference with a description is in an
/// `allOf`, and enumerated values with descriptions are branches of a `oneOf`.
pub fn same_structure(one: &Value, other: &Value) -> bool {
    let plain = |schema: &Value| undescribed(structure(schema.clone()));
    plain(one) == plain(other)
}

/// Returns the form of a structure without descriptions.
fn undescribed(schema: Value) -> Value {
    match schema {
        Value::Object(members) => {
            let members = members.into_iter();
            let members: Map<_, _> = members
                .map(|(name, value)| (name, undescribed(value)))
                .collect();
            if let Some(mut values) = enumerated(&members) {
                values.sort_by_cached_key(Value::to_string);
                return json!({ "type": "string", "enum": values });
            }
            if let Some([part]) = only(&members, "allOf") {
                return part.clone();
            }
            Value::Object(members)
        }
        Value::Array(parts) => parts.into_iter().map(undescribed).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema,
    }
}

/// Returns the strings that a schema enumerates, in any form of an enumeration.
fn enumerated(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    if let Some(branches) = only(schema, "oneOf") {
        let branches = branches
            .iter()
            .map(|branch| enumerated(branch.as_object()?));
        let values = branches.collect::<Option<Vec<_>>>()?;
        return Some(values.concat());
    }
    if schema.len() != 2 || schema.get("type")?.as_str()? != "string" {
        return None;
    }
    match schema.get("const") {
        Some(value) => Some(vec![value.clone()]),
        None => schema.get("enum")?.as_array().cloned(),
    }
}

/// Returns the schemas under a keyword if the schema has no other keyword.
fn only<'a>(schema: &'a Map<String, Value>, keyword: &str) -> Option<&'a [Value]> {
    let schemas = schema.get(keyword)?.as_array()?;
    (schema.len() == 1).then_some(schemas.as_slice())
}

/// Returns the schema of one variant's data, with the definitions that it uses.
fn of_variant(name: &str, variant: &Value, root: &Value) -> Value {
    let data = variant.pointer("/properties/data").cloned();
    let data = data.unwrap_or_else(|| Map::new().into());
    // A variant around a struct refers to it.
    let data = match definition(&data) {
        Some(named) => defined(root, named).cloned().unwrap_or(data),
        None => data,
    };
    let mut used = BTreeSet::new();
    uses(&data, root, &mut used);
    let definitions: Map<_, _> = used
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), defined(root, name)?.clone())))
        .collect();

    let mut schema = Map::new();
    schema.extend(
        root.get("$schema")
            .map(|draft| ("$schema".to_owned(), draft.clone())),
    );
    schema.insert("title".to_owned(), name.into());
    let described = variant.get("description");
    schema.extend(described.map(|words| ("description".to_owned(), words.clone())));
    if let Value::Object(data) = &data {
        let keywords = data.iter().filter(|(keyword, _)| *keyword != "description");
        schema.extend(keywords.map(|(keyword, value)| (keyword.clone(), value.clone())));
    }
    if !definitions.is_empty() {
        schema.insert("definitions".to_owned(), definitions.into());
    }
    schema.into()
}

fn definition(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/definitions/")
}

fn defined<'a>(root: &'a Value, name: &str) -> Option<&'a Value> {
    root.get("definitions")?.get(name)
}

/// Collects the definitions that a schema refers to, directly or not.
fn uses<'a>(schema: &'a Value, root: &'a Value, used: &mut BTreeSet<&'a str>) {
    match schema {
        Value::Object(members) => {
            if let Some(name) = definition(schema)
                && used.insert(name)
                && let Some(schema) = defined(root, name)
            {
                uses(schema, root, used);
            }
            members.values().for_each(|schema| uses(schema, root, used));
        }
        Value::Array(schemas) => schemas.iter().for_each(|schema| uses(schema, root, used)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
