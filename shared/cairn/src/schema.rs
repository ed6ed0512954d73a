//! JSON Schemas of events: what a type stores, and which change of that its readers do not survive.
//!
//! The schema of an event's current version is taken from its Rust type. Those of earlier versions are files: the types
//! that they were taken from are gone.

use std::collections::BTreeSet;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, value::to_raw_value};

use crate::{
    commit::StoredEvent,
    event::{CodecError, Event, Upcaster, current_schema, renamed},
};

mod breaking;

pub use breaking::{Break, breaking};

/// A type of event, as storage and the bus know it.
#[derive(Clone, Debug)]
pub struct EventType {
    /// The category of the streams that it is in.
    pub category: &'static str,
    /// The stored name, `OrderPlaced`.
    pub name: String,
    /// The schema version that is written today, from 1.
    pub version: u32,
    /// The JSON Schema (draft 7) of that version's data.
    pub schema: Value,
    upcasters: &'static [Upcaster],
    renew: fn(&StoredEvent) -> Result<StoredEvent, CodecError>,
}

impl EventType {
    /// The types of an aggregate's events, one for each variant, in their order.
    pub fn list<E: Event + JsonSchema>(category: &'static str) -> Vec<Self> {
        let root = generate::<E>();
        let variants = root.get("oneOf").and_then(Value::as_array);
        variants
            .into_iter()
            .flatten()
            .filter_map(|variant| {
                let name = variant.pointer("/properties/type/const")?.as_str()?;
                let name = renamed(E::RENAMED, name);
                Some(Self {
                    category,
                    name: name.to_owned(),
                    version: current_schema(E::UPCASTERS, name),
                    schema: of_variant(name, variant, &root),
                    upcasters: E::UPCASTERS,
                    renew: |stored| E::decode(stored)?.encode(),
                })
            })
            .collect()
    }

    /// Whether an upcaster changes what is stored in a version. If none does, the next version has to be one that takes it
    /// as it is.
    pub fn is_lifted(&self, version: u32) -> bool {
        let mut upcasters = self.upcasters.iter();
        upcasters.any(|upcaster| {
            upcaster.name == self.name && upcaster.from == version && upcaster.lift.is_some()
        })
    }

    /// The data of any version as today's code writes it after reading it.
    ///
    /// # Errors
    /// When today's code cannot read it.
    pub fn renew(&self, version: u32, data: &Value) -> Result<Value, CodecError> {
        let stored = StoredEvent {
            name: self.name.clone(),
            schema: version,
            data: to_raw_value(data).map_err(CodecError::Encode)?,
        };
        let renewed = (self.renew)(&stored)?;
        serde_json::from_str(renewed.data.get()).map_err(CodecError::Encode)
    }
}

/// The schema of a type, in draft 7.
pub fn generate<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    generator.into_root_schema_for::<T>().to_value()
}

/// A schema without what it says to people: what is left is its structure.
#[must_use]
pub fn structure(mut schema: Value) -> Value {
    without_words(&mut schema);
    schema
}

fn without_words(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, value| {
                !(value.is_string() && matches!(name.as_str(), "description" | "title"))
            });
            members.values_mut().for_each(without_words);
        }
        Value::Array(values) => values.iter_mut().for_each(without_words),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The schema of one variant's data, with those definitions that it uses.
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

/// The definitions that a schema leads to.
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
