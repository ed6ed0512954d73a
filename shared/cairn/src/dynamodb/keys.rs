//! The keys of those whose personal data is sealed, on DynamoDB.

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

/// A table with the key `subject` (S). An item holds the subject's key, `wrappedKey`, or since when it is gone, `forgottenAt`.
#[derive(Clone, Debug)]
pub struct KeyTable {
    client: Client,
    table: String,
}

/// What forgetting a subject came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Its key is gone now.
    Now,
    /// Its key has been gone before.
    Before,
    /// It never had one.
    Unknown,
}

impl KeyTable {
    const SUBJECT: &str = "subject";
    const WRAPPED: &str = "wrappedKey";

    /// The keys in this table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Removes a subject's key, and so makes unreadable what was sealed with it, wherever it is. Again: the same.
    ///
    /// What is sealed for the subject afterwards is sealed with a new key, and can be forgotten as well.
    ///
    /// # Errors
    /// When the write fails.
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

    /// A subject's wrapped key, read strongly: what is forgotten is forgotten from that moment on.
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

    /// Keeps a subject's first key, or its first one after it was forgotten, and returns the one that is kept: another's
    /// where that was faster.
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
            // Or it is our own: the SDK's retry after a lost answer meets what its first try has written.
            Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                let winner = failed.item().cloned().and_then(wrapped);
                winner.ok_or_else(|| StoreError::Unavailable("a key that has won is gone".into()))
            }
            _ => Err(store_error(&error)),
        }
    }
}

/// The reason for which a subject has no key, or its data was not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The table of keys failed, or what is stored is not what was encrypted there.
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

/// The subjects' keys, and what wraps them. None is remembered: a key that is gone is gone for every function at once.
#[derive(Clone, Debug)]
pub struct Keyring {
    table: KeyTable,
    master: MasterKey,
}

impl Keyring {
    /// The keys in a table, wrapped by a key of KMS.
    pub fn new(table: KeyTable, master: MasterKey) -> Self {
        Self { table, master }
    }

    /// A subject's key. Two calls; three where it is made now.
    ///
    /// # Errors
    /// When a call fails.
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

    /// Opens what was sealed for this place; `None` where its subject has been forgotten since. Two calls.
    ///
    /// # Errors
    /// When a call fails, or it is not what was sealed there.
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
            // Who was forgotten and came back has a new one.
            Err(OpenError::OtherKey) => Ok(None),
            Err(error @ (OpenError::Tampered | OpenError::Form)) => {
                Err(KeyError::Store(StoreError::Corrupt {
                    stream: context.stream.clone(),
                    reason: format!("{} does not open: {error}", context.field),
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
