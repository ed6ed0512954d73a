//! The encryption keys of data subjects, in a DynamoDB table.

use aws_sdk_dynamodb::{
    Client,
    operation::{put_item::PutItemError, update_item::UpdateItemError},
    primitives::Blob,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use serde::de::DeserializeOwned;

use super::{Item, store_error};
use crate::{
    kms::{KmsError, MasterKey},
    seal::{Key, OpenError},
    sealed::{SealContext, Sealed},
    store::StoreError,
    timestamp::Timestamp,
};

/// A table with the key `subject` (S). An item holds `wrappedKey`, the encrypted key of the
/// subject, or `forgottenAt`, the time at which it was deleted.
#[derive(Clone, Debug)]
pub struct KeyTable {
    client: Client,
    table: String,
}

/// The result of erasing the data of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// The key was deleted now.
    Now,
    /// The key had been deleted before.
    Before,
    /// The subject never had a key.
    Unknown,
}

impl KeyTable {
    const SUBJECT: &str = "subject";
    const WRAPPED: &str = "wrappedKey";

    /// Creates a handle to the table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Deletes the key of a subject, so that all data encrypted with it becomes unreadable. The
    /// call is idempotent.
    ///
    /// Data that is encrypted for the subject afterwards gets a new key, and can be erased in the
    /// same way.
    pub async fn forget(&self, subject: &str, now: Timestamp) -> Result<Forgotten, StoreError> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(Self::SUBJECT, text(subject))
            .update_expression("SET forgottenAt = :now REMOVE wrappedKey")
            .condition_expression("attribute_exists(wrappedKey)")
            .expression_attribute_values(":now", text(&now.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(Forgotten::Now);
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                let is_known = failed.item().is_some_and(|item| !item.is_empty());
                Ok(if is_known {
                    Forgotten::Before
                } else {
                    Forgotten::Unknown
                })
            }
            _ => Err(store_error(&error)),
        }
    }

    /// Returns the wrapped key of a subject. The read is strongly consistent, so a deleted key is
    /// never used again.
    async fn wrapped(&self, subject: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(Self::SUBJECT, text(subject))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(&error))?;
        Ok(got.item.and_then(wrapped))
    }

    /// Stores a key unless the subject has one, and returns the stored key. A concurrent call may
    /// have stored another key first.
    async fn keep(&self, subject: &str, key: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(Self::SUBJECT, text(subject))
            .item(Self::WRAPPED, AttributeValue::B(Blob::new(key.clone())))
            .condition_expression("attribute_not_exists(wrappedKey)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else { return Ok(key) };
        match error.as_service_error() {
            // Or the stored key is this one: its first write succeeded, and the SDK repeated it
            // because the answer was lost.
            Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                let winner = failed.item().cloned().and_then(wrapped);
                winner.ok_or_else(|| StoreError::Unavailable("the stored key was deleted".into()))
            }
            _ => Err(store_error(&error)),
        }
    }
}

/// The reason for which a key is not available or data was not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key table failed, or the stored data is not what was encrypted.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// KMS failed.
    #[error(transparent)]
    Kms(#[from] KmsError),
}

impl KeyError {
    /// True if the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Kms(error) => error.is_transient(),
        }
    }
}

/// The keys of data subjects, wrapped by a KMS key. Keys are never cached: a deleted key is
/// immediately unusable in every function.
#[derive(Clone, Debug)]
pub struct Keyring {
    table: KeyTable,
    master: MasterKey,
}

impl Keyring {
    /// Creates a keyring from a table and the KMS key that wraps its keys.
    pub fn new(table: KeyTable, master: MasterKey) -> Self {
        Self { table, master }
    }

    /// Returns the key of a subject, and creates it if the subject has none. It takes one DynamoDB
    /// request and one KMS call; a new key takes two requests and one call.
    pub async fn key_for(&self, subject: &str) -> Result<Key, KeyError> {
        if let Some(key) = self.key_of(subject).await? {
            return Ok(key);
        }
        let made = self.master.generate(subject).await?;
        let kept = self.table.keep(subject, made.wrapped.clone()).await?;
        if kept == made.wrapped {
            Ok(made.key)
        } else {
            Ok(self.master.unwrap(subject, &kept).await?)
        }
    }

    /// Decrypts a value. `None`: the data of the subject was erased. It takes one DynamoDB request
    /// and one KMS call.
    pub async fn open<T: DeserializeOwned>(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed<T>,
    ) -> Result<Option<T>, KeyError> {
        let Some(key) = self.key_of(context.subject).await? else {
            return Ok(None);
        };
        match key.open(context, sealed) {
            Ok(value) => Ok(Some(value)),
            // The subject was erased and has a new key since.
            Err(OpenError::OtherKey) => Ok(None),
            Err(error @ (OpenError::Tampered | OpenError::Form)) => {
                Err(KeyError::Store(StoreError::Corrupt {
                    stream: context.stream.clone(),
                    reason: format!("{} cannot be decrypted: {error}", context.field),
                }))
            }
        }
    }

    async fn key_of(&self, subject: &str) -> Result<Option<Key>, KeyError> {
        match self.table.wrapped(subject).await? {
            Some(wrapped) => Ok(Some(self.master.unwrap(subject, &wrapped).await?)),
            None => Ok(None),
        }
    }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn wrapped(mut item: Item) -> Option<Vec<u8>> {
    match item.remove(KeyTable::WRAPPED) {
        Some(AttributeValue::B(key)) => Some(key.into_inner()),
        _ => None,
    }
}
