//! The port of the customers' encryption keys.

use std::future::Future;

use cairn::personal_data::Key;
use cairn_aws::dynamodb::{KeyError, Keyring, SubjectKey};

/// The encryption keys of customers. [`Keyring`] documents the methods.
pub(crate) trait CustomerKeys: Send + Sync {
    fn find(&self, customer: &str) -> impl Future<Output = Result<SubjectKey, KeyError>> + Send;

    fn create(&self, customer: &str) -> impl Future<Output = Result<Key, KeyError>> + Send;

    fn create_unstored(&self, customer: &str)
    -> impl Future<Output = Result<Key, KeyError>> + Send;
}

impl CustomerKeys for Keyring {
    async fn find(&self, customer: &str) -> Result<SubjectKey, KeyError> {
        self.find(customer).await
    }

    async fn create(&self, customer: &str) -> Result<Key, KeyError> {
        self.create(customer).await
    }

    async fn create_unstored(&self, customer: &str) -> Result<Key, KeyError> {
        self.create_unstored(customer).await
    }
}
