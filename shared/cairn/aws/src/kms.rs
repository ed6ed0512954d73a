//! Data keys that AWS KMS generates and wraps. Only the wrapped key is stored.

use aws_sdk_kms::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::Blob,
    types::DataKeySpec,
};

use crate::{
    dynamodb::{Fault, fault},
    lazy_client::LazyClient,
    seal::Key,
};

/// A call of KMS failed.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// KMS throttles, times out or cannot be reached. The same call can succeed later.
    #[error("{operation} of KMS failed: {problem}")]
    Unavailable {
        /// The KMS operation.
        operation: &'static str,
        /// The problem.
        problem: String,
        /// The error of the SDK.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// KMS rejects the call: the key is disabled, or the role of the function does not allow it.
    #[error("{operation} of KMS was rejected: {problem}")]
    Permanent {
        /// The KMS operation.
        operation: &'static str,
        /// The problem.
        problem: String,
        /// The error of the SDK.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The response of KMS lacks a part.
    #[error("{operation} of KMS failed: the response has {problem}")]
    Malformed {
        /// The KMS operation.
        operation: &'static str,
        /// The problem.
        problem: &'static str,
    },
}

impl KmsError {
    fn new<E>(operation: &'static str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match fault(&error) {
            Fault::Transient(problem) => Self::Unavailable {
                operation,
                problem,
                source: error.into(),
            },
            Fault::Permanent(problem) => Self::Permanent {
                operation,
                problem,
                source: error.into(),
            },
        }
    }

    /// Returns true if the same call can succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A KMS key, which wraps data keys and never leaves KMS.
#[derive(Clone, Debug)]
pub struct MasterKey {
    client: LazyClient<Client>,
    id: String,
}

pub(crate) struct DataKey {
    pub(crate) key: Key,
    pub(crate) wrapped: Vec<u8>,
}

impl MasterKey {
    /// The name of the subject in the encryption context. A key that was wrapped for one subject
    /// cannot be unwrapped for another.
    /// <https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html>
    const CONTEXT: &str = "subject";

    /// Creates a handle of the KMS key with this id.
    pub fn new(client: LazyClient<Client>, id: String) -> Self {
        Self { client, id }
    }

    pub(crate) async fn generate(&self, subject: &str) -> Result<DataKey, KmsError> {
        const OPERATION: &str = "GenerateDataKey";
        let made = self
            .client
            .generate_data_key()
            .key_id(&self.id)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(Self::CONTEXT, subject)
            .send()
            .await
            .map_err(|error| KmsError::new(OPERATION, error))?;
        let wrapped = made.ciphertext_blob.ok_or(KmsError::Malformed {
            operation: OPERATION,
            problem: "no wrapped key",
        })?;
        Ok(DataKey {
            key: key(OPERATION, made.plaintext)?,
            wrapped: wrapped.into_inner(),
        })
    }

    pub(crate) async fn unwrap(&self, subject: &str, wrapped: &[u8]) -> Result<Key, KmsError> {
        const OPERATION: &str = "Decrypt";
        let opened = self
            .client
            .decrypt()
            .key_id(&self.id)
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context(Self::CONTEXT, subject)
            .send()
            .await
            .map_err(|error| KmsError::new(OPERATION, error))?;
        key(OPERATION, opened.plaintext)
    }
}

fn key(operation: &'static str, bare: Option<Blob>) -> Result<Key, KmsError> {
    let bare = bare.map(Blob::into_inner).unwrap_or_default();
    let secret = bare.try_into().map_err(|_| KmsError::Malformed {
        operation,
        problem: "no key of 32 bytes",
    })?;
    Ok(Key::new(&secret))
}
