//! The names and routes of new parts.

use std::{fmt, str::FromStr};

use super::AddError;
use crate::words::{self, fill};

/// The id in test events.
pub(super) const EXAMPLE_ID: &str = "7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d";

/// A name of lower-case words joined by hyphens, such as `redeem-points`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// The words of Rust, which are no names of modules and crates.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else \
    enum extern false final fn for gen if impl in let loop macro match mod move mut override priv \
    pub ref return self static struct super trait true try type typeof unsafe unsized use virtual \
    where while yield";

/// The crates of Rust and the kit, the fixed files of a crate, and the types of an aggregate. A
/// module or a type of this name would hide them.
const USED: &str = "alloc api cairn change command conflict core decider details domain event \
    handler input lib main project rejection signal spec state std step test";

/// A name or a route has another form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has other characters.
    #[error(
        "`{0}` is not a valid name; use lower-case words joined by hyphens, such as redeem-points"
    )]
    Name(String),
    /// The name is a word of Rust, or the written code uses it.
    #[error("`{0}` has a meaning in Rust or in the written code; choose another name")]
    Used(String),
    /// The attribute has another form.
    #[error(
        "`{0}` is not a valid attribute; use letters and digits in camel case, such as customerId"
    )]
    Attribute(String),
    /// The route has another form.
    #[error(
        "`{0}` is not a valid route; write a method and a path with one id, such as \"POST /orders/{{orderId}}/cancel\""
    )]
    Route(String),
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase())
                && word
                    .chars()
                    .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit())
        };
        let mut used = KEYWORDS.split_whitespace().chain(USED.split_whitespace());
        if used.any(|used| used == text) {
            Err(NameError::Used(text.to_owned()))
        } else if text.split('-').all(is_word) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Name(text.to_owned()))
        }
    }
}

impl Name {
    /// Returns the name as it is: `redeem-points`.
    pub fn kebab(&self) -> &str {
        &self.0
    }

    /// Returns the name of a module: `redeem_points`.
    pub fn snake(&self) -> String {
        self.0.replace('-', "_")
    }

    /// Returns the name of a type: `RedeemPoints`.
    pub fn pascal(&self) -> String {
        self.0.split('-').map(Self::pascal_of).collect()
    }

    /// Returns the name of an environment variable: `REDEEM_POINTS`.
    pub fn upper(&self) -> String {
        self.snake().to_ascii_uppercase()
    }

    /// Returns the name of an operation: `redeemPoints`.
    pub fn camel(&self) -> String {
        Self::camel_of(&self.snake())
    }

    /// Returns the words of the name: `redeem points`.
    pub fn words(&self) -> String {
        self.0.replace('-', " ")
    }

    /// Returns the words with a capital: `Redeem points`.
    pub fn sentence(&self) -> String {
        Self::pascal_of(&self.words())
    }

    /// Returns the name with a word before it.
    #[must_use]
    pub fn prefixed(&self, word: &str) -> Self {
        Self(format!("{word}-{}", self.0))
    }

    /// Returns the name of a field in camel case: `customer_id` is `customerId`.
    pub fn camel_of(field: &str) -> String {
        let mut words = field.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        first + &words.map(Self::pascal_of).collect::<String>()
    }

    /// Returns a text with a capital: `customerId` is `CustomerId`.
    pub fn pascal_of(text: &str) -> String {
        let mut letters = text.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect()
    }

    /// Returns the name of a type in kebab case: `RedeemPoints` is `redeem-points`.
    pub(super) fn kebab_of(pascal: &str) -> String {
        let kebab = Self::snake_of(pascal).replace('_', "-");
        kebab.trim_start_matches('-').to_owned()
    }

    /// Returns a name in camel case as the name of a field: `customerId` is `customer_id`.
    pub fn snake_of(camel: &str) -> String {
        let letters = camel.chars().map(|letter| {
            if letter.is_ascii_uppercase() {
                format!("_{}", letter.to_ascii_lowercase())
            } else {
                letter.to_string()
            }
        });
        letters.collect()
    }
}

/// Parses the name of an attribute in camel case, such as `customerId`.
///
/// # Errors
/// Returns an error if the name has another form.
pub fn attribute(text: &str) -> Result<String, NameError> {
    let is_camel = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|one| one.is_ascii_alphanumeric());
    if is_camel {
        Ok(text.to_owned())
    } else {
        Err(NameError::Attribute(text.to_owned()))
    }
}

/// An HTTP route with one id, such as `POST /orders/{orderId}/cancel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    method: String,
    path: String,
    id: String,
}

impl FromStr for Route {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (method, path) = text.split_once(' ')?;
            let is_method = ["GET", "POST", "PUT", "DELETE", "PATCH"].contains(&method);
            let (_, rest) = path.split_once("/{")?;
            let (id, _) = rest.split_once('}')?;
            let is_id = !id.is_empty() && id.chars().all(|one| one.is_ascii_alphanumeric());
            let is_path = path.starts_with('/')
                && path.matches('{').count() == 1
                && !path.contains(['"', ' ', '\\']);
            (is_method && is_id && is_path).then(|| Self {
                method: method.to_owned(),
                path: path.to_owned(),
                id: id.to_owned(),
            })
        };
        parse().ok_or_else(|| NameError::Route(text.to_owned()))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Route {
    /// Returns the method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the name of the id in the path.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Checks that a kind of function has the method.
    pub(super) fn check(&self, kind: &'static str, allowed: &[&str]) -> Result<(), AddError> {
        if allowed.contains(&self.method.as_str()) {
            return Ok(());
        }
        Err(AddError::Method {
            kind,
            method: self.method.clone(),
            allowed: allowed.join(", "),
        })
    }

    /// Returns a request of API Gateway for the route, of an operator with this scope.
    pub(super) fn test_event(&self, id: &str, body: Option<&str>, scope: &str) -> String {
        let path = self.path.replace(&format!("{{{}}}", self.id), id);
        let body = body.map(|body| format!(",\n  \"body\": {}", serde_json::Value::from(body)));
        let words = [
            ("route", self.to_string()),
            ("method", self.method.clone()),
            ("path", path),
            ("id", self.id.clone()),
            ("key", id.to_owned()),
            ("user", "c-42".to_owned()),
            ("scope", scope.to_owned()),
            ("body", body.unwrap_or_default()),
        ];
        fill(words::REQUEST, &words)
    }
}
