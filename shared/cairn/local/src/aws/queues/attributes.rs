//! Message attributes, with their types and digests.
//! <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

/// Attributes as texts, without their types.
pub type Attributes = BTreeMap<String, String>;

pub(super) type MessageAttributes = BTreeMap<String, MessageAttribute>;

/// A typed value in the form of the API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MessageAttribute {
    #[serde(default)]
    data_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    string_value: Option<String>,
    /// Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_value: Option<String>,
}

enum Checked<'a> {
    Text(&'a str),
    Bytes(Vec<u8>),
}

impl Checked<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl MessageAttribute {
    pub(super) fn text(text: &str) -> Self {
        Self {
            data_type: "String".to_owned(),
            string_value: Some(text.to_owned()),
            binary_value: None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        let text = self.string_value.as_deref();
        text.or(self.binary_value.as_deref())
    }

    /// Validates the value against its type; the error is the reason.
    fn checked(&self) -> Result<Checked<'_>, String> {
        let data_type = self.data_type.as_str();
        let (base, _) = data_type.split_once('.').unwrap_or((data_type, ""));
        let value = match (base, &self.string_value, &self.binary_value) {
            ("String" | "Number", Some(text), None) => Checked::Text(text),
            ("Binary", None, Some(encoded)) => match BASE64_STANDARD.decode(encoded) {
                Ok(bytes) => Checked::Bytes(bytes),
                Err(error) => return Err(format!("the binary value is not base64: {error}")),
            },
            ("String" | "Number" | "Binary", ..) => {
                return Err(format!("the value is not of type '{data_type}'"));
            }
            _ => {
                return Err(format!(
                    "the type '{data_type}' is invalid: it begins with String, Number or Binary"
                ));
            }
        };
        if data_type.len() > MAX_NAME {
            return Err("the type is longer than 256 bytes".to_owned());
        }
        if value.bytes().is_empty() {
            return Err("the value is empty".to_owned());
        }
        if let ("Number", Checked::Text(text)) = (base, &value)
            && !text.parse::<f64>().is_ok_and(f64::is_finite)
        {
            return Err(format!("'{text}' is not a number"));
        }
        Ok(value)
    }
}

/// The most attributes of a message, and the most bytes of a name or type.
const MAX_ATTRIBUTES: usize = 10;
const MAX_NAME: usize = 256;

/// Returns the bytes that the attributes add to a message. An error names the invalid attribute and
/// the reason.
pub(super) fn check(attributes: &MessageAttributes) -> Result<usize, String> {
    if attributes.len() > MAX_ATTRIBUTES {
        let count = attributes.len();
        return Err(format!(
            "a message has at most {MAX_ATTRIBUTES} attributes, not {count}"
        ));
    }
    let mut size = 0;
    for (name, attribute) in attributes {
        check_name(name).map_err(|problem| format!("attribute '{name}': {problem}"))?;
        let value = attribute.checked();
        let value = value.map_err(|problem| format!("attribute '{name}': {problem}"))?;
        size += name.len() + attribute.data_type.len() + value.bytes().len();
    }
    Ok(size)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_allowed) {
        return Err("a name is 1 to 256 of A-Z a-z 0-9 _ - .");
    }
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Err("a name cannot begin or end with a period, or contain two in a row");
    }
    if lower.starts_with("aws.") || lower.starts_with("amazon.") {
        return Err("names that begin with AWS. or Amazon. are reserved");
    }
    Ok(())
}

/// The digest by which a client verifies its attributes; `None` without attributes.
pub(super) fn digest(attributes: &MessageAttributes) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut text = vec![];
    for (name, attribute) in attributes {
        append(&mut text, name.as_bytes());
        append(&mut text, attribute.data_type.as_bytes());
        match attribute.checked() {
            Ok(Checked::Text(value)) => {
                text.push(1);
                append(&mut text, value.as_bytes());
            }
            Ok(Checked::Bytes(value)) => {
                text.push(2);
                append(&mut text, &value);
            }
            // Validated before it was stored.
            Err(_) => {}
        }
    }
    Some(md5_of(&text))
}

fn append(text: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    text.extend(length.to_be_bytes());
    text.extend(bytes);
}

pub(super) fn md5_of(bytes: &[u8]) -> String {
    format!("{:x}", md5::compute(bytes))
}

/// Selects the attributes that a client requests: by name, by a prefix with `.*`, or all.
pub(super) fn asked(attributes: MessageAttributes, names: &[String]) -> MessageAttributes {
    let is_asked = |name: &str| {
        names.iter().any(|asked| {
            let prefix = asked.strip_suffix(".*").or_else(|| asked.strip_suffix('*'));
            asked == "All" || asked == name || prefix.is_some_and(|prefix| name.starts_with(prefix))
        })
    };
    let kept = attributes.into_iter().filter(|(name, _)| is_asked(name));
    kept.collect()
}

pub(super) fn stored(attributes: &MessageAttributes) -> String {
    serde_json::to_string(attributes).unwrap_or_default()
}

pub(super) fn parsed(stored: &str) -> MessageAttributes {
    serde_json::from_str(stored).unwrap_or_default()
}

/// Parses attributes of the journal as text.
pub(super) fn texts(stored: &str) -> Attributes {
    let attributes = parsed(stored).into_iter();
    let texts = attributes.filter_map(|(name, value)| Some((name, value.as_text()?.to_owned())));
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(data_type: &str, text: &str) -> MessageAttributes {
        let attribute = MessageAttribute {
            data_type: data_type.to_owned(),
            ..MessageAttribute::text(text)
        };
        MessageAttributes::from([("name".to_owned(), attribute)])
    }

    #[test]
    fn a_digest_is_of_names_types_and_values_with_their_lengths() {
        let text = attribute("String", "value");
        let bytes = b"\0\0\0\x04name\0\0\0\x06String\x01\0\0\0\x05value";
        assert_eq!(digest(&text), Some(md5_of(bytes)));
        assert_eq!(digest(&MessageAttributes::new()), None);
    }

    #[test]
    fn a_value_is_of_its_type() {
        assert_eq!(check(&attribute("String.json", "{}")), Ok(17));
        assert!(check(&attribute("Number.int", "-1.5e3")).is_ok());
        for (data_type, value) in [
            ("Number", "four"),
            ("Number", "NaN"),
            ("Binary", "AAAA"),
            ("Text", "x"),
            ("", "x"),
            ("String", ""),
        ] {
            assert!(
                check(&attribute(data_type, value)).is_err(),
                "{data_type} {value}"
            );
        }
    }

    #[test]
    fn a_prefix_asks_for_all_that_begin_with_it() {
        let attributes = attribute("String", "x");
        let names = |name: &str| asked(attributes.clone(), &[name.to_owned()]).len();
        assert_eq!(
            ["All", "na.*", "na*", "name", "nam", ".*"].map(names),
            [1, 1, 1, 1, 0, 1]
        );
    }
}
