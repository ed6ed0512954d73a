//! Event patterns: the rules of a bus, matched as `EventBridge` matches them.
//!
//! A [`Pattern`] is a value of its own and is evaluated alone, so no rule can change another.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html>
//!
//! Numbers in an event follow `serde_json`: a number that fits no `u64`, `i64` or `f64` is compared
//! as the nearest `f64`.

use serde_json::Value;

use crate::yaml::{LineError, Node};

mod compiler;
mod event;
mod fields;
mod operator;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use fields::Fields;

#[derive(Debug, Clone)]
pub struct Pattern {
    /// One of them must match. Without `$or` there is exactly one.
    alternatives: Vec<Fields>,
}

impl Pattern {
    /// Reads a pattern whose references are resolved.
    pub(crate) fn parse(node: &Node) -> Result<Self, LineError> {
        compiler::compile(node).map(|alternatives| Self { alternatives })
    }

    pub fn matches(&self, event: &Value) -> bool {
        self.alternatives
            .iter()
            .any(|fields| fields.match_all(event))
    }
}
