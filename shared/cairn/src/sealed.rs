//! What only its subject's key opens: it stands in events where personal data would.
//!
//! Events are kept for ever, and so are copies of them in read models, queues and logs. Personal data is therefore
//! sealed before it becomes part of an event, with a key that its subject has alone; where the key is gone, every copy
//! is unreadable at once. `seal` does it.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::stream::StreamId;

/// A value that was sealed, as text. What it holds, nobody can tell without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Sealed<T> {
    sealed: String,
    #[serde(skip)]
    holds: PhantomData<T>,
}

impl<T> Sealed<T> {
    /// The first characters of the text: they say how it was sealed, and with which key.
    const KEY: usize = 12;

    /// A value from the text that it was sealed into.
    pub fn new(text: String) -> Self {
        Self {
            sealed: text,
            holds: PhantomData,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.sealed
    }

    /// Whether another is known to hold something else. What one key has sealed for one place is equal if it holds the
    /// same; of what two keys have sealed nobody can tell.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.key() == other.key() && self.sealed != other.sealed
    }

    fn key(&self) -> Option<&str> {
        self.sealed.get(..Self::KEY)
    }
}

/// The context of an encrypted value: its subject, stream and field. In another context it cannot be decrypted.
#[derive(Clone, Copy, Debug)]
pub struct SealContext<'a> {
    /// Whose value it is.
    pub subject: &'a str,
    /// The stream that has it.
    pub stream: &'a StreamId,
    /// Its name there.
    pub field: &'a str,
}

/// An object with a text: whatever it holds.
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
    fn only_what_the_same_key_has_sealed_can_be_compared() {
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
