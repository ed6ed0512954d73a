//! The answers to requests with a key that made no commit, on DynamoDB.
//!
//! A command that changes something leaves its id and its digest in its commit. One that finds
//! nothing to do, or is refused, leaves none: its answer is kept here, so that the same key again
//! gets the same answer, and another body with it is found out.

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::PutItemError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use serde::{Deserialize, Serialize};

use super::{Item, store_error};
use crate::{store::StoreError, timestamp::Timestamp};

/// A table with the key `request` (S). An item is the first answer to a request with a key.
#[derive(Clone, Debug)]
pub struct Answers {
    client: Client,
    table: String,
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The operation, what it is about, and the key.
    pub request: String,
    /// The digest of what the client sent, see [`Commit::fingerprint`](crate::Commit::fingerprint).
    pub fingerprint: String,
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type`.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// The body.
    pub body: String,
    /// The time of the first answer.
    pub at: Timestamp,
}

impl Answers {
    /// The answers in this table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Returns the answer that a request has had. Read strongly: one read unit as a rule.
    ///
    /// # Errors
    /// When the read fails.
    pub async fn find(&self, request: &str) -> Result<Option<KeptAnswer>, StoreError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("request", AttributeValue::S(request.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| store_error(&error))?;
        got.item.map(kept).transpose()
    }

    /// Keeps the first answer to a request, and returns the one that is kept: another's where that
    /// was faster. One conditional write.
    ///
    /// # Errors
    /// When the write fails.
    pub async fn keep(&self, answer: KeptAnswer) -> Result<KeptAnswer, StoreError> {
        let item = serde_dynamo::to_item(&answer)
            .map_err(|error| StoreError::Permanent(error.to_string()))?;
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            // `request` is one of the words that expressions reserve.
            .condition_expression("attribute_not_exists(#request)")
            .expression_attribute_names("#request", "request")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else { return Ok(answer) };
        match error.as_service_error() {
            // The SDK's retry after a lost answer meets what its first try has written: the same.
            Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                let winner = failed.item().cloned().map(kept).transpose()?;
                winner.ok_or_else(|| {
                    StoreError::Unavailable("an answer that was kept is gone".into())
                })
            }
            _ => Err(store_error(&error)),
        }
    }
}

fn kept(item: Item) -> Result<KeptAnswer, StoreError> {
    serde_dynamo::from_item(item)
        .map_err(|error| StoreError::Permanent(format!("a kept answer: {error}")))
}
