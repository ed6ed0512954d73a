//! Keys that AWS KMS makes and wraps: the bare one is never stored.

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
    /// KMS is throttled, timed out or not reachable: the same call may succeed later.
    #[error("{operation} of KMS failed: {problem}")]
    Unavailable {
        /// The operation.
        operation: &'static str,
        /// The fault.
        problem: String,
        /// The SDK's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// KMS rejects the call: the key is disabled, or the function's role does not allow it.
    #[error("{operation} of KMS was rejected: {problem}")]
    Permanent {
        /// The operation.
        operation: &'static str,
        /// The fault.
        problem: String,
        /// The SDK's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// KMS answers without what was asked for.
    #[error("{operation} of KMS failed: the answer has {problem}")]
    Malformed {
        /// The operation.
        operation: &'static str,
        /// The fault.
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

    /// True if the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A key of KMS, which wraps others and never leaves it.
#[derive(Clone, Debug)]
pub struct MasterKey {
    client: LazyClient<Client>,
    id: String,
}

/// A new key, bare and wrapped.
pub(crate) struct DataKey {
    pub(crate) key: Key,
    pub(crate) wrapped: Vec<u8>,
}

impl MasterKey {
    /// What the subject of a wrapped key is called. Wrapped for one subject, it is not unwrapped for another.
    /// <https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html>
    const CONTEXT: &str = "subject";

    /// The key of this id.
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
