//! Keys that AWS KMS makes and wraps: the bare one is never stored.

use std::fmt;

use aws_sdk_kms::{Client, primitives::Blob, types::DataKeySpec};

use crate::{dynamodb::classified, on_demand::OnDemand, seal::Key, store::StoreError};

/// A key of KMS, which wraps others and never leaves it.
#[derive(Clone, Debug)]
pub struct MasterKey {
    client: OnDemand<Client>,
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
    pub fn new(client: OnDemand<Client>, id: String) -> Self {
        Self { client, id }
    }

    pub(crate) async fn generate(&self, subject: &str) -> Result<DataKey, StoreError> {
        let made = self
            .client
            .generate_data_key()
            .key_id(&self.id)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(Self::CONTEXT, subject)
            .send()
            .await
            .map_err(|error| classified(&error))?;
        let wrapped = made.ciphertext_blob.ok_or_else(|| odd(&"no wrapped key"))?;
        Ok(DataKey {
            key: key(made.plaintext)?,
            wrapped: wrapped.into_inner(),
        })
    }

    pub(crate) async fn unwrap(&self, subject: &str, wrapped: &[u8]) -> Result<Key, StoreError> {
        let opened = self
            .client
            .decrypt()
            .key_id(&self.id)
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context(Self::CONTEXT, subject)
            .send()
            .await
            .map_err(|error| classified(&error))?;
        key(opened.plaintext)
    }
}

fn key(bare: Option<Blob>) -> Result<Key, StoreError> {
    let bare = bare.map(Blob::into_inner).unwrap_or_default();
    let secret = bare.try_into().map_err(|_| odd(&"no key of 32 bytes"))?;
    Ok(Key::new(&secret))
}

fn odd(what: &dyn fmt::Display) -> StoreError {
    StoreError::Refused(format!("KMS has answered with {what}"))
}
