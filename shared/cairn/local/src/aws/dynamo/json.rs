//! JSON of requests, answers and items, for dynoxide.

use std::fmt;

use dynoxide::DynoxideError;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(super) fn run<Q: DeserializeOwned, R: Serialize>(
    body: &str,
    operation: impl FnOnce(Q) -> dynoxide::errors::Result<R>,
) -> Result<String, DynoxideError> {
    text(&operation(parsed(body)?)?)
}

pub(super) fn parsed<Q: DeserializeOwned>(body: &str) -> Result<Q, DynoxideError> {
    serde_json::from_str(body).map_err(|error| refused(&error))
}

pub(super) fn text(answer: &impl Serialize) -> Result<String, DynoxideError> {
    serde_json::to_string(answer).map_err(internal)
}

pub(super) fn internal(error: impl fmt::Display) -> DynoxideError {
    DynoxideError::InternalServerError(error.to_string())
}

/// Converts an error of serde: dynoxide prefixes the refusals of its types with a mark.
fn refused(error: &serde_json::Error) -> DynoxideError {
    let text = error.to_string();
    for mark in ["VALIDATION_AS_READ:", "VALIDATION_REQUEST:", "VALIDATION:"] {
        if let Some((_, message)) = text.split_once(mark) {
            let message = message.split(" at line ").next().unwrap_or(message);
            return DynoxideError::ValidationException(message.to_owned());
        }
    }
    DynoxideError::SerializationException(text)
}

/// An item without type tags. Binary values stay base64.
pub(super) fn plain(item: &Value) -> Value {
    let fields = item.as_object().into_iter().flatten();
    Value::Object(
        fields
            .map(|(name, value)| (name.clone(), untyped(value)))
            .collect(),
    )
}

fn untyped(value: &Value) -> Value {
    let typed = value.as_object().and_then(|typed| typed.iter().next());
    match typed.map(|(kind, value)| (kind.as_str(), value)) {
        Some(("N", number)) => number
            .as_str()
            .and_then(|digits| serde_json::from_str(digits).ok())
            .unwrap_or_default(),
        Some(("L", values)) => values
            .as_array()
            .into_iter()
            .flatten()
            .map(untyped)
            .collect(),
        Some(("M", item)) => plain(item),
        Some(("NULL", _)) | None => Value::Null,
        Some((_, value)) => value.clone(),
    }
}
