//! Secrets: read from Secrets Manager when they are needed, and kept for a while.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_secretsmanager::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata},
};

/// A secret. Cloning it shares what it knows.
#[derive(Clone)]
pub struct Secret(Arc<Source>);

enum Source {
    /// It is what it is.
    Value(String),
    /// Secrets Manager knows, by its ARN.
    Manager {
        client: Client,
        arn: String,
        known: Mutex<Option<(Instant, String)>>,
    },
}

/// A secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the secret {arn} cannot be read: {problem}")]
pub struct SecretError {
    arn: String,
    problem: String,
}

impl Secret {
    /// How long a value is used before it is read again: a new one counts after that at the latest.
    const FRESH: Duration = Duration::from_mins(5);

    /// A secret with this value.
    pub fn from_value(text: String) -> Self {
        Self(Arc::new(Source::Value(text)))
    }

    pub(crate) fn managed(client: Client, arn: String) -> Self {
        let known = Mutex::default();
        Self(Arc::new(Source::Manager { client, arn, known }))
    }

    /// What the secret says now, or said up to five minutes ago.
    ///
    /// # Errors
    /// When it cannot be read, or is no text.
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
        let failed = |problem: String| SecretError {
            arn: arn.clone(),
            problem,
        };
        let read = client.get_secret_value().secret_id(arn).send().await;
        let read = read.map_err(|error| {
            let message = error.message().map(str::to_owned);
            failed(message.unwrap_or_else(|| DisplayErrorContext(&error).to_string()))
        })?;
        let value = read
            .secret_string()
            .ok_or_else(|| failed("it is no text".to_owned()))?;
        *lock(known) = Some((Instant::now(), value.to_owned()));
        Ok(value.to_owned())
    }
}

fn lock<T>(known: &Mutex<T>) -> MutexGuard<'_, T> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without the value.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_ref() {
            Source::Value(_) => f.write_str("Secret"),
            Source::Manager { arn, .. } => f.debug_tuple("Secret").field(arn).finish(),
        }
    }
}
