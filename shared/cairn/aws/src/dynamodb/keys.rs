//! The encryption keys of data subjects, in a DynamoDB table.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client,
    operation::update_item::UpdateItemError,
    primitives::Blob,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Item, TableError};
use crate::context::{AppContext, ConfigError};

use cairn::{
    personal_data::{Key, MasterKey, MasterKeyError, OpenError, SealContext, Sealed},
    stream::StreamId,
    timestamp::Timestamp,
};

/// A table with the key `subject` (S). An item holds `wrappedKey`, the encrypted key of the
/// subject, until it is erased, and `erasures`, the list of all [erasures](Erasure). A new key does
/// not change the list.
#[derive(Clone, Debug)]
pub struct KeyTable {
    client: Client,
    table: String,
}

/// The result of erasing the data of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forgotten {
    /// The key was deleted now.
    Now,
    /// The key had been deleted before.
    Before,
    /// The subject never had a key.
    Unknown,
}

/// The proof of a deletion of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The time.
    pub at: Timestamp,
    /// The operator, if the request named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The stored key of a subject.
#[derive(Debug)]
pub enum SubjectKey {
    /// The key.
    Stored(Box<Key>),
    /// The key was deleted, and the subject has no new one.
    Erased,
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

    /// Deletes the key of a subject, so that all data encrypted with it becomes unreadable, and
    /// adds the erasure to the list of the subject. Returns the list, oldest first. The call is
    /// idempotent: without a key it changes nothing.
    ///
    /// Data that is encrypted for the subject afterwards gets a new key, and can be erased in the
    /// same way.
    pub async fn forget(
        &self,
        subject: &str,
        erasure: &Erasure,
    ) -> Result<(Forgotten, Vec<Erasure>), TableError> {
        let erasure = serde_dynamo::to_attribute_value(erasure)?;
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(Self::SUBJECT, text(subject))
            .update_expression(
                "SET erasures = list_append(if_not_exists(erasures, :none), :this) \
                 REMOVE wrappedKey",
            )
            .condition_expression("attribute_exists(wrappedKey)")
            .expression_attribute_values(":none", AttributeValue::L(vec![]))
            .expression_attribute_values(":this", AttributeValue::L(vec![erasure]))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let error = match sent {
            Ok(updated) => {
                let item = updated.attributes.unwrap_or_default();
                return Ok((Forgotten::Now, erasures(item)?));
            }
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                match failed.item().filter(|item| !item.is_empty()) {
                    Some(item) => Ok((Forgotten::Before, erasures(item.clone())?)),
                    None => Ok((Forgotten::Unknown, vec![])),
                }
            }
            _ => Err(error.into()),
        }
    }

    /// Returns the item of a subject. The read is strongly consistent, so a deleted key is never
    /// used again.
    async fn find(&self, subject: &str) -> Result<Option<Item>, TableError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(Self::SUBJECT, text(subject))
            .consistent_read(true)
            .send()
            .await?;
        Ok(got.item)
    }

    /// Stores a key unless the subject has one, and returns the stored key. A concurrent call may
    /// have stored another key first.
    async fn keep(&self, subject: &str, key: Vec<u8>) -> Result<Vec<u8>, TableError> {
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(Self::SUBJECT, text(subject))
            .update_expression("SET wrappedKey = :key")
            .condition_expression("attribute_not_exists(wrappedKey)")
            .expression_attribute_values(":key", AttributeValue::B(Blob::new(key.clone())))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else { return Ok(key) };
        match error.as_service_error() {
            // Or the stored key is this one: its first write succeeded, and the SDK repeated it
            // because the answer was lost.
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                let winner = failed.item().cloned().and_then(wrapped);
                winner.ok_or_else(|| TableError::Unavailable("the stored key was deleted".into()))
            }
            _ => Err(error.into()),
        }
    }
}

/// The reason for which a key is not available or data was not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The stored data is not what was encrypted.
    #[error("the stream {stream} is corrupt: {field} cannot be decrypted: {source}")]
    Corrupt {
        /// The stream.
        stream: StreamId,
        /// The encrypted field.
        field: String,
        /// The error of the decryption.
        source: OpenError,
    },
    /// The master key did not create or unwrap a key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
}

impl KeyError {
    /// True if the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Table(error) => error.is_transient(),
            Self::MasterKey(error) => error.is_transient,
            Self::Corrupt { .. } => false,
        }
    }
}

/// The keys of data subjects, wrapped by a master key. Keys are never cached: a deleted key is
/// immediately unusable in every function.
#[derive(Clone, Debug)]
pub struct Keyring {
    table: KeyTable,
    master: Arc<dyn MasterKey>,
}

impl AppContext {
    /// Returns the key table of an environment variable.
    pub(crate) fn key_table(&self, variable: &str) -> Result<KeyTable, ConfigError> {
        Ok(KeyTable::new(self.dynamodb(), self.variable(variable)?))
    }

    /// Returns the encryption keys of subjects. `table` and `master` name the environment variables
    /// with their table and with the id of the KMS key that wraps them.
    pub fn keyring(&self, table: &str, master: &str) -> Result<Keyring, ConfigError> {
        let master = self.kms_key(master)?;
        Ok(Keyring::new(self.key_table(table)?, Arc::new(master)))
    }
}

impl Keyring {
    /// Creates a keyring from a table and the master key that wraps its keys.
    pub fn new(table: KeyTable, master: Arc<dyn MasterKey>) -> Self {
        Self { table, master }
    }

    /// Returns the key of a subject. It takes one DynamoDB request and, for a stored key, one KMS
    /// call.
    pub async fn find(&self, subject: &str) -> Result<SubjectKey, KeyError> {
        let Some(item) = self.table.find(subject).await? else {
            return Ok(SubjectKey::Unknown);
        };
        match wrapped(item) {
            Some(wrapped) => {
                let key = self.master.unwrap(subject, &wrapped).await?;
                Ok(SubjectKey::Stored(Box::new(key)))
            }
            None => Ok(SubjectKey::Erased),
        }
    }

    /// Creates a key for a subject that has none, and returns the stored key: a concurrent call may
    /// have stored another one first. It takes one DynamoDB request and one KMS call, or two.
    pub async fn create(&self, subject: &str) -> Result<Key, KeyError> {
        let made = self.master.generate(subject).await?;
        let kept = self.table.keep(subject, made.wrapped.clone()).await?;
        if kept == made.wrapped {
            Ok(made.key)
        } else {
            Ok(self.master.unwrap(subject, &kept).await?)
        }
    }

    /// Creates a key that is not stored, so no other call can decrypt its data. It takes one KMS
    /// call.
    pub async fn create_unstored(&self, subject: &str) -> Result<Key, KeyError> {
        Ok(self.master.generate(subject).await?.key)
    }

    /// Decrypts a value. `None`: the data of the subject was erased. It takes one DynamoDB request
    /// and one KMS call.
    pub async fn open<T: DeserializeOwned>(
        &self,
        context: &SealContext<'_>,
        sealed: &Sealed<T>,
    ) -> Result<Option<T>, KeyError> {
        let SubjectKey::Stored(key) = self.find(context.subject).await? else {
            return Ok(None);
        };
        match key.open(context, sealed) {
            Ok(value) => Ok(Some(value)),
            // The subject was erased and has a new key since.
            Err(OpenError::OtherKey) => Ok(None),
            Err(source @ (OpenError::Format(_) | OpenError::Tampered | OpenError::Form)) => {
                Err(KeyError::Corrupt {
                    stream: context.stream.clone(),
                    field: context.field.to_owned(),
                    source,
                })
            }
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

fn erasures(mut item: Item) -> Result<Vec<Erasure>, TableError> {
    let erasures = item
        .remove("erasures")
        .map(serde_dynamo::from_attribute_value);
    let erasures = erasures.transpose()?;
    Ok(erasures.unwrap_or_default())
}
