//! Strict JSON input: a request's body becomes validated types, or a list of all its errors.
//!
//! Each error has a pointer to its field, so a client can fix a body in one step.

use std::fmt::{self, Display};

use serde::{
    Deserializer, Serialize,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// One error in a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The RFC 6901 JSON pointer to the field.
    pub pointer: String,
    /// The problem, and the values that the field accepts.
    pub detail: String,
}

/// A body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// Objects have several members with one name. JSON readers differ in which of them they use.
    #[error("the body contains duplicate members")]
    Repeated(Vec<FieldError>),
}

/// Reads JSON, and rejects objects that have two members with one name.
///
/// # Errors
/// See [`BodyError`]. It lists at most 50 repeated members.
pub fn read(body: &[u8]) -> Result<Value, BodyError> {
    let mut repeated = vec![];
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = Node {
        pointer: String::new(),
        repeated: &mut repeated,
    }
    .deserialize(&mut json)?;
    json.end()?;
    if repeated.is_empty() {
        Ok(value)
    } else {
        Err(BodyError::Repeated(repeated))
    }
}

struct Node<'a> {
    pointer: String,
    repeated: &'a mut Vec<FieldError>,
}

impl Node<'_> {
    const MAX_REPEATED: usize = 50;

    fn child(&mut self, pointer: String) -> Node<'_> {
        Node {
            pointer,
            repeated: &mut *self.repeated,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = vec![];
        loop {
            let pointer = format!("{}/{}", self.pointer, items.len());
            match seq.next_element_seed(self.child(pointer))? {
                Some(item) => items.push(item),
                None => return Ok(items.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let pointer = member(&self.pointer, &name);
            if members.contains_key(&name) && self.repeated.len() < Self::MAX_REPEATED {
                self.repeated.push(FieldError {
                    pointer: pointer.clone(),
                    detail: "is a duplicate member: send it once".to_owned(),
                });
            }
            let value = map.next_value_seed(self.child(pointer))?;
            members.insert(name, value);
        }
        Ok(members.into())
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
    pub fn result<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
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

    /// Returns the members of an object.
    pub fn object(&self, errors: &mut ValidationErrors) -> Option<&'a Map<String, Value>> {
        let object = self.value.and_then(Value::as_object);
        if object.is_none() {
            errors.add(self, self.wanted("an object"));
        }
        object
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
    fn a_member_that_is_there_twice_is_pointed_at_wherever_it_is() {
        for (body, pointers) in [
            (r#"{"a":1,"a":1}"#, &["/a"][..]),
            (r#"{"a":{"b/c":null,"b/c":[]}}"#, &["/a/b~1c"]),
            (r#"[{},{"x":[{"y":1,"y":2}],"z":1}]"#, &["/1/x/0/y"]),
            (r#"{"a":1,"\u0061":2,"b":1,"b":2}"#, &["/a", "/b"]),
            (r#"{"":1,"":1}"#, &["/"]),
        ] {
            let Err(BodyError::Repeated(errors)) = read(body.as_bytes()) else {
                panic!("{body} is accepted");
            };
            let found: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
            assert_eq!(found, pointers, "{body}");
        }
        let many = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(10_000));
        let Err(BodyError::Repeated(errors)) = read(many.as_bytes()) else {
            panic!("10,001 members with one name are accepted");
        };
        assert_eq!(errors.len(), Node::MAX_REPEATED);
    }

    #[test]
    fn any_other_json_is_read_as_serde_json_reads_it() {
        let deep = "[".repeat(1_000);
        for body in [
            "null",
            "true",
            "-1",
            "18446744073709551615",
            "1.5e3",
            r#""\ud83e\uded6""#,
            r#"{"a":[1,{"a":{"a":"a"}}],"b":[[],{}]}"#,
            "{",
            "",
            "{} {}",
            "1e999",
            &deep,
        ] {
            let known: Option<Value> = serde_json::from_str(body).ok();
            assert_eq!(read(body.as_bytes()).ok(), known, "{body}");
        }
    }

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
}
