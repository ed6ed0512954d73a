//! A key of AWS KMS, which wraps the keys of subjects.

use aws_sdk_kms::{Client, config::Builder, primitives::Blob, types::DataKeySpec};
use cairn::personal_data::{DataKey, Key, MasterKey, MasterKeyError};
use futures_util::future::{BoxFuture, FutureExt};

use super::lazy_client::LazyClient;
use crate::{
    context::{AppContext, ConfigError, client_config},
    error::AwsError,
};

/// A key of AWS KMS.
#[derive(Clone, Debug)]
pub struct KmsKey {
    client: LazyClient<Client>,
    id: String,
}

impl AppContext {
    /// Returns the KMS key whose id is in an environment variable.
    pub(crate) fn kms_key(&self, variable: &str) -> Result<KmsKey, ConfigError> {
        let aws = self.aws.clone();
        let client = LazyClient::new(move || Client::from_conf(client_config!(Builder, &aws)));
        Ok(KmsKey::new(client, self.variable(variable)?))
    }
}

impl KmsKey {
    /// The name of the subject in the encryption context.
    /// <https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html>
    const CONTEXT: &str = "subject";

    /// Creates a handle of the KMS key with this id.
    pub fn new(client: LazyClient<Client>, id: String) -> Self {
        Self { client, id }
    }
}

impl MasterKey for KmsKey {
    fn generate<'a>(&'a self, subject: &'a str) -> BoxFuture<'a, Result<DataKey, MasterKeyError>> {
        const OPERATION: &str = "GenerateDataKey";
        let request = self
            .client
            .generate_data_key()
            .key_id(&self.id)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(Self::CONTEXT, subject);
        async {
            let sent = request.send().await;
            let made = sent.map_err(|error| failed(OPERATION, error))?;
            let wrapped = made.ciphertext_blob;
            let wrapped = wrapped.ok_or_else(|| malformed(OPERATION, "no wrapped key"))?;
            Ok(DataKey {
                key: key(OPERATION, made.plaintext)?,
                wrapped: wrapped.into_inner(),
            })
        }
        .boxed()
    }

    fn unwrap<'a>(
        &'a self,
        subject: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Key, MasterKeyError>> {
        const OPERATION: &str = "Decrypt";
        let request = self
            .client
            .decrypt()
            .key_id(&self.id)
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context(Self::CONTEXT, subject);
        async {
            let sent = request.send().await;
            let opened = sent.map_err(|error| failed(OPERATION, error))?;
            key(OPERATION, opened.plaintext)
        }
        .boxed()
    }
}

fn key(operation: &str, bare: Option<Blob>) -> Result<Key, MasterKeyError> {
    let bare = bare.map(Blob::into_inner).unwrap_or_default();
    let secret = bare.try_into();
    let secret = secret.map_err(|_| malformed(operation, "no key of 32 bytes"))?;
    Ok(Key::new(&secret))
}

/// Converts a failed call. KMS rejects a call if the key is disabled, or if the role of the
/// function does not allow it.
fn failed(operation: &str, error: impl Into<AwsError>) -> MasterKeyError {
    let error: AwsError = error.into();
    let is_transient = error.is_transient();
    let outcome = if is_transient {
        "failed"
    } else {
        "was rejected"
    };
    MasterKeyError {
        problem: format!("{operation} of KMS {outcome}: {error}"),
        is_transient,
        source: Some(error.into()),
    }
}

/// The response lacks a part.
fn malformed(operation: &str, problem: &str) -> MasterKeyError {
    MasterKeyError {
        problem: format!("{operation} of KMS failed: the response has {problem}"),
        is_transient: false,
        source: None,
    }
}
