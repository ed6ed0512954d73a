//! Reads JSON, and rejects repeated members.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{FieldError, member};

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
}
