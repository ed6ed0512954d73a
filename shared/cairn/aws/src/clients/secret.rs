//! Secrets, read from Secrets Manager on demand and cached.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_secretsmanager::{Client, config::Builder};

use crate::{
    context::{AppContext, ConfigError, client_config},
    error::AwsError,
};
use cairn::error::BoxError;

/// A secret. Clones share the cached value.
#[derive(Clone)]
pub struct Secret(Arc<Source>);

enum Source {
    Value(String),
    Manager {
        client: Client,
        arn: String,
        known: Mutex<Option<(Instant, String)>>,
    },
}

/// Secrets Manager did not return the secret.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
#[error("reading the secret {arn} failed: {source}")]
pub struct SecretError {
    arn: String,
    source: BoxError,
}

impl AppContext {
    /// Returns the secret whose ARN is in an environment variable.
    pub fn secret(&self, variable: &str) -> Result<Secret, ConfigError> {
        let config = client_config!(Builder, &self.aws);
        let client = Client::from_conf(config);
        Ok(Secret::managed(client, self.variable(variable)?))
    }
}

impl Secret {
    /// The lifetime of a cached value: a rotated secret is used after this time at the latest.
    const FRESH: Duration = Duration::from_mins(5);

    /// Creates a secret with a fixed value.
    pub fn from_value(text: String) -> Self {
        Self(Arc::new(Source::Value(text)))
    }

    fn managed(client: Client, arn: String) -> Self {
        let known = Mutex::default();
        Self(Arc::new(Source::Manager { client, arn, known }))
    }

    /// Returns the value of the secret. It may be up to five minutes old.
    pub async fn value(&self) -> Result<String, SecretError> {
        let (client, arn, known) = match self.0.as_ref() {
            Source::Value(text) => return Ok(text.clone()),
            Source::Manager { client, arn, known } => (client, arn, known),
        };
        if let Some((read, value)) = lock(known).as_ref()
            && read.elapsed() < Self::FRESH
        {
            return Ok(value.clone());
        }
        let failed = |source: BoxError| SecretError {
            arn: arn.clone(),
            source,
        };
        let read = client.get_secret_value().secret_id(arn).send().await;
        let read = read.map_err(|error| failed(AwsError::from(error).into()))?;
        let value = read.secret_string();
        let value = value.ok_or_else(|| failed("it is not a string".into()))?;
        *lock(known) = Some((Instant::now(), value.to_owned()));
        Ok(value.to_owned())
    }
}

fn lock<T>(known: &Mutex<T>) -> MutexGuard<'_, T> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Omits the value.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_ref() {
            Source::Value(_) => f.write_str("Secret"),
            Source::Manager { arn, .. } => f.debug_tuple("Secret").field(arn).finish(),
        }
    }
}
