//! Stream ids: `<category>-<key>`, the partition key of the event table.
//!
//! Events are ordered within a stream, and streams are written in parallel. A DynamoDB partition
//! accepts [1,000 write request units
//! per second](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html),
//! which limits one stream but not the table.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The id of a stream, such as `order-6f9619ff-8b86-d011-b42d-00cf4fc964ff`.
///
/// It has a category of lower-case letters, a hyphen, and a key of 1 to 255 characters of
/// `A-Za-z0-9._~|@:+=-`. The subject of a token can be a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StreamId {
    text: String,
    category: usize,
}

/// A text is not a stream id.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a stream id: expected a lower-case category, a hyphen and a key of A-Za-z0-9._~|@:+=-"
)]
pub struct NotAStreamId(String);

impl StreamId {
    /// Creates the id of `key` in `category`.
    ///
    /// # Errors
    /// Returns an error if one of them contains an invalid character.
    pub fn new(category: &str, key: &str) -> Result<Self, NotAStreamId> {
        format!("{category}-{key}").parse()
    }

    /// Returns the category: `order` in `order-<uuid>`.
    pub fn category(&self) -> &str {
        self.text.get(..self.category).unwrap_or_default()
    }

    /// Returns the key: `<uuid>` in `order-<uuid>`.
    pub fn key(&self) -> &str {
        self.text.get(self.category + 1..).unwrap_or_default()
    }

    /// Returns the stream of another category with the same key. The category must have lower-case
    /// letters only, as the [`CATEGORY`](crate::Aggregate::CATEGORY) of an aggregate has.
    #[must_use]
    pub fn with_category(&self, category: &str) -> Self {
        Self {
            text: format!("{category}-{}", self.key()),
            category: category.len(),
        }
    }

    /// Returns the whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for StreamId {
    type Err = NotAStreamId;

    fn from_str(text: &str) -> Result<Self, NotAStreamId> {
        let refuse = || NotAStreamId(text.chars().take(64).collect());
        let (category, key) = text.split_once('-').ok_or_else(refuse)?;
        let category_holds =
            !category.is_empty() && category.bytes().all(|b| b.is_ascii_lowercase());
        let key_holds = (1..=255).contains(&key.len())
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._~|@:+=-".contains(&b));
        if !category_holds || !key_holds {
            return Err(refuse());
        }
        Ok(Self {
            text: text.to_owned(),
            category: category.len(),
        })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<StreamId> for String {
    fn from(id: StreamId) -> String {
        id.text
    }
}

impl TryFrom<String> for StreamId {
    type Error = NotAStreamId;

    fn try_from(text: String) -> Result<Self, NotAStreamId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_may_have_hyphens_of_its_own() {
        let id: StreamId = "stock-TEA-01".parse().unwrap();
        assert_eq!((id.category(), id.key()), ("stock", "TEA-01"));
        assert_eq!(id.with_category("price").as_str(), "price-TEA-01");
    }

    #[test]
    fn the_key_may_be_the_subject_of_a_token() {
        for key in [
            "auth0|65f0c2",
            "ada+shop@example.com",
            "urn:example:1",
            "c3ViamVjdA==",
        ] {
            let id = StreamId::new("points", key).unwrap();
            assert_eq!((id.category(), id.key()), ("points", key));
        }
    }

    #[test]
    fn an_id_that_looks_like_a_path_or_a_fragment_is_rejected() {
        for text in [
            "",
            "order",
            "order-",
            "-x",
            "Order-1",
            "order-a/b",
            "order-a#b",
            "order-é",
        ] {
            assert!(text.parse::<StreamId>().is_err(), "{text}");
        }
    }
}
