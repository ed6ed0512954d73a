//! Secrets Manager: the secrets that were given at start.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::call::Answer;

/// Secrets by ARN. `Debug` does not show their text.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    pub fn add(&mut self, arn: String, text: String) {
        self.0.insert(arn, text);
    }

    pub(crate) fn call(&self, operation: &str, body: &str) -> Answer {
        if operation != "GetSecretValue" {
            return Answer::unavailable("secretsmanager", operation);
        }
        let request: Value = serde_json::from_str(body).unwrap_or_default();
        let arn = request.get("SecretId").and_then(Value::as_str);
        let arn = arn.unwrap_or_default();
        match self.0.get(arn) {
            Some(text) => Answer::ok(&json!({ "ARN": arn, "SecretString": text })),
            None => Answer::error(
                400,
                "ResourceNotFoundException",
                "Secrets Manager can't find the specified secret: give it with --secret ARN=FILE",
            ),
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
