//! The key that wraps the keys of subjects.

use std::{error::Error, fmt};

use futures_util::future::BoxFuture;

use super::Key;

/// A key of a key management service, which wraps the keys of subjects and never leaves the
/// service. A key that was wrapped for one subject cannot be unwrapped for another.
pub trait MasterKey: fmt::Debug + Send + Sync {
    /// Creates a key of a subject.
    fn generate<'a>(&'a self, subject: &'a str) -> BoxFuture<'a, Result<DataKey, MasterKeyError>>;

    /// Unwraps a key of a subject.
    fn unwrap<'a>(
        &'a self,
        subject: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Key, MasterKeyError>>;
}

/// A new key of a subject.
#[derive(Debug)]
pub struct DataKey {
    /// The key.
    pub key: Key,
    /// The wrapped key. Only this is stored.
    pub wrapped: Vec<u8>,
}

/// A call of the key management service failed.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct MasterKeyError {
    /// The operation and its problem.
    pub problem: String,
    /// True if the same call can succeed later.
    pub is_transient: bool,
    /// The error of the client.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}
