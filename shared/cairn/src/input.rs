//! Reading a request's JSON into checked types, with a pointer to every field that is wrong.
//!
//! All mistakes are collected, so a caller mends a body in one go.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value};

/// One mistake in a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// An RFC 6901 JSON pointer to the field.
    pub pointer: String,
    /// What is wrong with it, and what it takes.
    pub detail: String,
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<FieldError>);

impl Mistakes {
    /// Notes a mistake at a field.
    pub fn add(&mut self, field: &Field<'_>, detail: impl Display) {
        self.0.push(FieldError {
            pointer: field.pointer.clone(),
            detail: detail.to_string(),
        });
    }

    /// The value, if every part of it was read and nothing was wrong.
    ///
    /// # Errors
    /// The mistakes, in the order of reading.
    pub fn result<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// A place in a body; the value may be missing.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    value: Option<&'a Value>,
    pointer: String,
}

impl<'a> Field<'a> {
    /// The body itself.
    pub fn root(body: &'a Value) -> Self {
        Self {
            value: Some(body),
            pointer: String::new(),
        }
    }

    /// A member of an object. It is missing where this is no object.
    #[must_use]
    pub fn get(&self, name: &str) -> Self {
        Self {
            value: self.value.and_then(|value| value.get(name)),
            pointer: format!(
                "{}/{}",
                self.pointer,
                name.replace('~', "~0").replace('/', "~1")
            ),
        }
    }

    /// Whether there is a value that is not null.
    pub fn is_present(&self) -> bool {
        self.value.is_some_and(|value| !value.is_null())
    }

    /// The members, when this is an object.
    pub fn object(&self, mistakes: &mut Mistakes) -> Option<&'a Map<String, Value>> {
        let object = self.value.and_then(Value::as_object);
        if object.is_none() {
            mistakes.add(self, self.wanted("an object"));
        }
        object
    }

    /// A text, parsed.
    pub fn text<T, E: Display>(
        &self,
        mistakes: &mut Mistakes,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Some(text) = self.value.and_then(Value::as_str) else {
            mistakes.add(self, self.wanted("a string"));
            return None;
        };
        self.parsed(mistakes, parse(text))
    }

    /// An integer, parsed. A number with a fraction is none, even `1.0`.
    pub fn integer<T, E: Display>(
        &self,
        mistakes: &mut Mistakes,
        parse: impl FnOnce(u64) -> Result<T, E>,
    ) -> Option<T> {
        let Some(number) = self.value.and_then(Value::as_u64) else {
            mistakes.add(self, self.wanted("a whole number of at least 0"));
            return None;
        };
        self.parsed(mistakes, parse(number))
    }

    /// The elements of an array.
    pub fn items(&self, mistakes: &mut Mistakes) -> Option<Vec<Field<'a>>> {
        let Some(items) = self.value.and_then(Value::as_array) else {
            mistakes.add(self, self.wanted("an array"));
            return None;
        };
        let fields = items.iter().enumerate().map(|(index, item)| Field {
            value: Some(item),
            pointer: format!("{}/{index}", self.pointer),
        });
        Some(fields.collect())
    }

    fn wanted(&self, what: &str) -> String {
        match self.value {
            None => format!("is required: {what}"),
            Some(_) => format!("must be {what}"),
        }
    }

    fn parsed<T, E: Display>(&self, mistakes: &mut Mistakes, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| mistakes.add(self, error)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_found_in_one_reading_and_pointed_at() {
        let body = serde_json::json!({ "a/b": 1.5, "list": [1, "x"] });
        let root = Field::root(&body);
        let mut mistakes = Mistakes::default();
        root.get("a/b").integer(&mut mistakes, Ok::<_, String>);
        root.get("gone")
            .text(&mut mistakes, |text| Ok::<_, String>(text.to_owned()));
        for item in root.get("list").items(&mut mistakes).unwrap() {
            item.integer(&mut mistakes, Ok::<_, String>);
        }
        let errors = mistakes.result(Some(())).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a~1b", "/gone", "/list/1"]);
        assert!(errors[1].detail.starts_with("is required"));
    }
}
