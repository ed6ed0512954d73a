//! An example of an event, from its schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{EventType, defined, definition};

/// The maximum number of choices of texts that are tried.
const MOST_CHOICES: usize = 1_000_000;

impl EventType {
    /// Returns data of the newest version with every member, or `None` if the type accepts none.
    ///
    /// A schema does not have the rules of texts. Members with the same name get the same one of
    /// the `texts`, and the first choice that the type reads is the example.
    pub fn example(&self, texts: &[&str]) -> Option<Value> {
        let mut names = BTreeSet::new();
        fill(&self.schema, &self.schema, "", &mut |name| {
            names.insert(name.to_owned());
            Value::Null
        });
        let exponent = u32::try_from(names.len()).ok()?;
        let choices = texts.len().checked_pow(exponent)?.min(MOST_CHOICES);
        (0..choices).find_map(|mut choice| {
            let mut chosen = BTreeMap::new();
            for name in &names {
                chosen.insert(name.as_str(), *texts.get(choice % texts.len())?);
                choice /= texts.len();
            }
            let example = fill(&self.schema, &self.schema, "", &mut |name| {
                chosen.get(name).copied().into()
            });
            let read = self.renew(self.version, &example).ok()?;
            (read == example).then_some(example)
        })
    }
}

/// Returns a value of a schema. `text` returns the text of a member.
fn fill(schema: &Value, root: &Value, name: &str, text: &mut impl FnMut(&str) -> Value) -> Value {
    if let Some(named) = definition(schema).and_then(|named| defined(root, named)) {
        return fill(named, root, name, text);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.first().cloned().unwrap_or_default();
    }
    let branches = ["allOf", "anyOf", "oneOf"].map(|keyword| schema.get(keyword)?.as_array());
    if let Some(branch) = branches.into_iter().flatten().flatten().next() {
        return fill(branch, root, name, text);
    }
    let kind = schema.get("type");
    let kind = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    match kind {
        Some("object") => {
            let members = schema.get("properties").and_then(Value::as_object);
            let members = members.into_iter().flatten();
            let members =
                members.map(|(name, schema)| (name.clone(), fill(schema, root, name, text)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Some("array") => {
            let items = schema.get("items");
            items
                .map(|items| fill(items, root, name, text))
                .into_iter()
                .collect()
        }
        Some("string") => text(name),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        _ => Value::Null,
    }
}
