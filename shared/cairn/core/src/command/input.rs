//! Strict JSON input: a request's body becomes validated types, or a list of all its errors.
//!
//! Each error has a pointer to its field, so a client can fix a body in one step. A body is a type
//! that derives [`Input`]. The type also has the JSON Schema of the body, in the dialect of
//! OpenAPI 3.0.

use std::{convert::Infallible, fmt::Display};

use serde::Serialize;
use serde_json::{Map, Value, json};

// For the API of the functions.
#[doc(hidden)]
pub use json::{BodyError, read};

mod json;

/// One error in a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The RFC 6901 JSON pointer to the field.
    pub pointer: String,
    /// The problem, and the values that the field accepts.
    pub detail: String,
}

/// A JSON Schema in the dialect of OpenAPI 3.0.
pub type Schema = Value;

/// A value in a request body.
///
/// The derive [`Input`](derive@crate::Input) implements it for a struct. A type of a single value
/// implements it with [`Field::text`] or [`Field::integer`].
pub trait Input: Sized {
    /// False if the value may be missing.
    const REQUIRED: bool = true;

    /// Reads a field. Returns `None` after it has added the errors of the field.
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self>;

    /// Returns the schema of the valid values.
    fn schema() -> Schema;
}

/// Parses a whole body.
///
/// # Errors
/// Returns every invalid field, in the order of reading.
pub fn parse<T: Input>(body: &Value) -> Result<T, Vec<FieldError>> {
    let mut errors = ValidationErrors::default();
    let value = T::read(&Field::root(body), &mut errors);
    errors.result(value)
}

/// Returns the schema of an object from the name, the necessity and the schema of each member.
pub fn object<const N: usize>(members: [(&str, bool, Schema); N]) -> Schema {
    let names = members.iter().filter(|(_, required, _)| *required);
    let required: Vec<_> = names.map(|(name, ..)| *name).collect();
    let properties = members
        .into_iter()
        .map(|(name, _, schema)| (name.to_owned(), schema));
    let properties: Map<_, _> = properties.collect();
    if properties.is_empty() {
        return json!({ "type": "object" });
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

/// Returns the schema of a named type, with its documentation. The name is the `title`, by which an
/// OpenAPI document can define the schema once and refer to it.
pub fn named(name: &str, documentation: &str, schema: Schema) -> Schema {
    with(described(schema, documentation), "title", name.into())
}

/// Returns the schema of a member, with the documentation of the member.
pub fn described(schema: Schema, documentation: &str) -> Schema {
    if documentation.is_empty() {
        return schema;
    }
    let member = match schema.get("title") {
        Some(_) => json!({ "allOf": [schema] }),
        None => schema,
    };
    with(member, "description", documentation.into())
}

fn with(mut schema: Schema, keyword: &str, value: Value) -> Schema {
    if let Value::Object(keywords) = &mut schema {
        keywords.insert(keyword.to_owned(), value);
    }
    schema
}

/// A value that may be missing or null.
impl<T: Input> Input for Option<T> {
    const REQUIRED: bool = false;

    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        if field.is_present() {
            T::read(field, errors).map(Some)
        } else {
            Some(None)
        }
    }

    fn schema() -> Schema {
        let schema = T::schema();
        let member = match schema.get("title") {
            // OpenAPI 3.0 needs the type beside `nullable`.
            Some(_) => json!({ "type": schema.get("type"), "allOf": [schema] }),
            None => schema,
        };
        with(member, "nullable", true.into())
    }
}

/// Any text.
impl Input for String {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        field.text(errors, |text| Ok::<_, Infallible>(text.to_owned()))
    }

    fn schema() -> Schema {
        json!({ "type": "string" })
    }
}

/// A whole number up to 2^53-1, which every JSON parser keeps exact.
impl Input for u64 {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        field.integer(errors, |number| {
            let is_exact = number <= MOST;
            is_exact
                .then_some(number)
                .ok_or(format!("must be at most {MOST}"))
        })
    }

    fn schema() -> Schema {
        json!({ "type": "integer", "minimum": 0, "maximum": MOST })
    }
}

/// The largest number that every JSON parser keeps exact.
const MOST: u64 = (1 << 53) - 1;

impl Input for bool {
    fn read(field: &Field<'_>, errors: &mut ValidationErrors) -> Option<Self> {
        let value = field.value.and_then(Value::as_bool);
        if value.is_none() {
            errors.add(field, field.wanted("true or false"));
        }
        value
    }

    fn schema() -> Schema {
        json!({ "type": "boolean" })
    }
}

/// Returns the RFC 6901 pointer to a member of an object.
fn member(object: &str, name: &str) -> String {
    format!("{object}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The errors found so far.
#[derive(Debug, Default)]
pub struct ValidationErrors(Vec<FieldError>);

impl ValidationErrors {
    /// Adds an error at a field.
    pub fn add(&mut self, field: &Field<'_>, detail: impl Display) {
        self.0.push(FieldError {
            pointer: field.pointer.clone(),
            detail: detail.to_string(),
        });
    }

    /// Returns the value if there are no errors.
    ///
    /// # Errors
    /// Returns the errors in the order of reading.
    fn result<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// A field of a body. Its value can be missing.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    value: Option<&'a Value>,
    pointer: String,
}

impl<'a> Field<'a> {
    /// Returns the whole body as a field.
    pub fn root(body: &'a Value) -> Self {
        Self {
            value: Some(body),
            pointer: String::new(),
        }
    }

    /// Returns a member of an object. It is missing if this field is not an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Self {
        Self {
            value: self.value.and_then(|value| value.get(name)),
            pointer: member(&self.pointer, name),
        }
    }

    /// Returns true if the field has a value other than null.
    pub fn is_present(&self) -> bool {
        self.value.is_some_and(|value| !value.is_null())
    }

    /// Checks that the field is an object.
    pub fn object(&self, errors: &mut ValidationErrors) -> Option<()> {
        if self.value.is_some_and(Value::is_object) {
            return Some(());
        }
        errors.add(self, self.wanted("an object"));
        None
    }

    /// Checks that the field is an object with a number of members. A whole body with one member is
    /// not checked: the error of the member shows what to send.
    pub fn members(&self, count: usize, errors: &mut ValidationErrors) -> Option<()> {
        if count == 1 && self.pointer.is_empty() {
            return Some(());
        }
        self.object(errors)
    }

    /// Parses a string.
    pub fn text<T, E: Display>(
        &self,
        errors: &mut ValidationErrors,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Some(text) = self.value.and_then(Value::as_str) else {
            errors.add(self, self.wanted("a string"));
            return None;
        };
        self.parsed(errors, parse(text))
    }

    /// Parses an integer of at least 0. A number with a fraction is invalid, even `1.0`.
    pub fn integer<T, E: Display>(
        &self,
        errors: &mut ValidationErrors,
        parse: impl FnOnce(u64) -> Result<T, E>,
    ) -> Option<T> {
        let Some(number) = self.value.and_then(Value::as_u64) else {
            errors.add(self, self.wanted("a whole number of at least 0"));
            return None;
        };
        self.parsed(errors, parse(number))
    }

    /// Returns the elements of an array.
    pub fn items(&self, errors: &mut ValidationErrors) -> Option<Vec<Field<'a>>> {
        let Some(items) = self.value.and_then(Value::as_array) else {
            errors.add(self, self.wanted("an array"));
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

    fn parsed<T, E: Display>(
        &self,
        errors: &mut ValidationErrors,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| errors.add(self, error)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_found_in_one_reading_and_pointed_at() {
        let body = serde_json::json!({ "a/b": 1.5, "list": [1, "x"] });
        let root = Field::root(&body);
        let mut errors = ValidationErrors::default();
        root.get("a/b").integer(&mut errors, Ok::<_, String>);
        root.get("gone")
            .text(&mut errors, |text| Ok::<_, String>(text.to_owned()));
        for item in root.get("list").items(&mut errors).unwrap() {
            item.integer(&mut errors, Ok::<_, String>);
        }
        let errors = errors.result(Some(())).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a~1b", "/gone", "/list/1"]);
        assert!(errors[1].detail.starts_with("is required"));
    }

    #[test]
    fn plain_values_are_read_strictly() {
        let body = json!({ "text": "a", "number": 9_007_199_254_740_991_u64, "flag": true });
        let root = Field::root(&body);
        let mut errors = ValidationErrors::default();
        let text = String::read(&root.get("text"), &mut errors);
        assert_eq!(text.as_deref(), Some("a"));
        assert_eq!(u64::read(&root.get("number"), &mut errors), Some(MOST));
        assert_eq!(bool::read(&root.get("flag"), &mut errors), Some(true));
        assert_eq!(errors.result(Some(())), Ok(()));
        let mut errors = ValidationErrors::default();
        let body = json!({ "text": 1, "number": 9_007_199_254_740_992_u64, "flag": "true" });
        let root = Field::root(&body);
        String::read(&root.get("text"), &mut errors);
        u64::read(&root.get("number"), &mut errors);
        bool::read(&root.get("flag"), &mut errors);
        let errors = errors.result(Some(())).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/text", "/number", "/flag"]);
    }

    /// A shelf.
    #[derive(crate::Input)]
    #[expect(dead_code, reason = "the test reads the schema only")]
    struct Shelf {
        /// The room of the shelf.
        room: Room,
        next: Option<Room>,
    }

    /// A room.
    ///
    /// It is dry.
    #[derive(crate::Input)]
    #[input(name = "DryRoom")]
    struct Room {}

    #[test]
    fn a_schema_has_the_names_and_the_documentation_of_its_types() {
        let room = json!({
            "title": "DryRoom", "description": "A room.\n\nIt is dry.", "type": "object"
        });
        let shelf = json!({
            "title": "Shelf", "description": "A shelf.", "type": "object", "required": ["room"],
            "properties": {
                "room": { "description": "The room of the shelf.", "allOf": [&room] },
                "next": { "type": "object", "nullable": true, "allOf": [&room] },
            },
        });
        assert_eq!(Shelf::schema(), shelf);
    }
}
