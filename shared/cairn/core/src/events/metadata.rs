//! The metadata that travels with a request: to its commits, their events, and the commands that
//! the events cause.

use serde::{Deserialize, Serialize};

/// The metadata of a command, a commit and an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The id of the request that led to the commit, directly or not.
    pub correlation: String,
    /// The id of the event or request that caused the commit directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<String>,
    /// The caller who sent the request, if known. An envelope on the bus does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Metadata {
    /// Creates metadata with a correlation id only.
    pub fn new(correlation: impl Into<String>) -> Self {
        Self {
            correlation: correlation.into(),
            ..Self::default()
        }
    }
}
