//! Encrypted values, which replace personal data in events.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::stream::StreamId;

/// An encrypted value as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Sealed<T> {
    sealed: String,
    #[serde(skip)]
    holds: PhantomData<T>,
}

impl<T> Sealed<T> {
    /// The length of the prefix that depends on the format and the key only.
    const KEY: usize = 12;

    /// Creates an encrypted value from its text.
    pub fn new(text: String) -> Self {
        Self {
            sealed: text,
            holds: PhantomData,
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.sealed
    }

    /// Returns true if two encrypted values are known to differ.
    ///
    /// One key encrypts equal values of one context to equal texts. Texts of different keys cannot
    /// be compared, so the result is false.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.key() == other.key() && self.sealed != other.sealed
    }

    fn key(&self) -> Option<&str> {
        self.sealed.get(..Self::KEY)
    }
}

/// The context of an encrypted value. In another context, the value cannot be decrypted.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    /// The subject whose key encrypts the value.
    pub subject: &'a str,
    /// The stream that contains the value.
    pub stream: &'a StreamId,
    /// The name of the field.
    pub field: &'a str,
}

/// The schema is the same for every `T`: an object with a text.
impl<T> JsonSchema for Sealed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Sealed".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": { "sealed": { "type": "string" } },
            "required": ["sealed"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_of_the_same_key_can_be_compared() {
        let sealed = |text: &str| Sealed::<String>::new(text.to_owned());
        let one = sealed("KEY-OF-A-ONE-first");
        assert!(!one.contradicts(&one.clone()));
        assert!(one.contradicts(&sealed("KEY-OF-A-ONE-second")));
        assert!(!one.contradicts(&sealed("KEY-OF-B-TWO-second")));
    }

    #[test]
    fn it_is_stored_as_an_object_that_says_what_it_is() {
        let sealed = Sealed::<String>::new("abc".to_owned());
        let stored = serde_json::to_string(&sealed).unwrap();
        assert_eq!(stored, r#"{"sealed":"abc"}"#);
        assert_eq!(
            serde_json::from_str::<Sealed<String>>(&stored).unwrap(),
            sealed
        );
    }
}
