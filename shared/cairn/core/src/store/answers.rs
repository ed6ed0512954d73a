//! The port of stored responses to requests with an idempotency key that appended no commit.
//!
//! A command that changes something stores its id and its digest in its commit. A command that
//! changes nothing, or is rejected, appends no commit: its response is stored here. A repeated
//! request then gets the same response, and a reused key with another body is detected.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::timestamp::Timestamp;

/// A stored response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The key of the item: the path parameters, the operation and the idempotency key.
    pub request: String,
    /// The digest of the request, see [`Commit::fingerprint`](crate::Commit::fingerprint).
    pub fingerprint: String,
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type`.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// The body.
    pub body: String,
    /// The time of the first response.
    pub at: Timestamp,
}

/// A store of responses.
pub trait AnswerStore: Send + Sync {
    /// Returns the stored response to a request. The read is strongly consistent.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    fn find(
        &self,
        request: &str,
    ) -> impl Future<Output = Result<Option<KeptAnswer>, StoreError>> + Send;

    /// Stores the first response to a request, and returns the stored one. A concurrent call may
    /// have stored another response first.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    fn keep(
        &self,
        answer: KeptAnswer,
    ) -> impl Future<Output = Result<KeptAnswer, StoreError>> + Send;
}

/// Without a store, no response is stored.
impl<S: AnswerStore> AnswerStore for Option<S> {
    async fn find(&self, request: &str) -> Result<Option<KeptAnswer>, StoreError> {
        match self {
            Some(store) => store.find(request).await,
            None => Ok(None),
        }
    }

    async fn keep(&self, answer: KeptAnswer) -> Result<KeptAnswer, StoreError> {
        match self {
            Some(store) => store.keep(answer).await,
            None => Ok(answer),
        }
    }
}

/// Stored responses in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryAnswers(Mutex<BTreeMap<String, KeptAnswer>>);

impl AnswerStore for MemoryAnswers {
    async fn find(&self, request: &str) -> Result<Option<KeptAnswer>, StoreError> {
        let stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stored.get(request).cloned())
    }

    async fn keep(&self, answer: KeptAnswer) -> Result<KeptAnswer, StoreError> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stored
            .entry(answer.request.clone())
            .or_insert(answer)
            .clone())
    }
}
