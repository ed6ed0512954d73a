//! The structure of a JSON Schema: the schema without the words that describe it.

use serde_json::Value;

/// Returns the structure of a schema: the schema without titles and descriptions.
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
