//! Stores the responses to requests with an idempotency key that appended no commit.
//!
//! A command that changes something stores its id and its digest in its commit. A command that
//! changes nothing, or is rejected, appends no commit: its response is stored here. A repeated
//! request then gets the same response, and a reused key with another body is detected.

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::PutItemError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use serde::{Deserialize, Serialize};

use super::{Item, TableError};
use cairn::timestamp::Timestamp;

/// A table with the key `request` (S). An item is the first response to a request with a key.
#[derive(Clone, Debug)]
pub struct Answers {
    client: Client,
    table: String,
}

/// A stored response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The key of the item: the path parameters, the operation and the idempotency key.
    pub request: String,
    /// The digest of the request, see [`Commit::fingerprint`](cairn::Commit::fingerprint).
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

impl Answers {
    /// Creates a handle to the table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Returns the stored response to a request. The read is strongly consistent.
    pub async fn find(&self, request: &str) -> Result<Option<KeptAnswer>, TableError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("request", AttributeValue::S(request.to_owned()))
            .consistent_read(true)
            .send()
            .await?;
        got.item.map(kept).transpose()
    }

    /// Stores the first response to a request with one conditional write, and returns the stored
    /// one. A concurrent call may have stored another response first.
    pub async fn keep(&self, answer: KeptAnswer) -> Result<KeptAnswer, TableError> {
        let item = serde_dynamo::to_item(&answer)?;
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            // `request` is a reserved word in expressions.
            .condition_expression("attribute_not_exists(#request)")
            .expression_attribute_names("#request", "request")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else { return Ok(answer) };
        match error.as_service_error() {
            // Or the stored response is this one: its first write succeeded, and the SDK repeated
            // it because the answer was lost.
            Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                let winner = failed.item().cloned().map(kept).transpose()?;
                winner.ok_or_else(|| {
                    TableError::Unavailable("the stored response disappeared".into())
                })
            }
            _ => Err(error.into()),
        }
    }
}

fn kept(item: Item) -> Result<KeptAnswer, TableError> {
    Ok(serde_dynamo::from_item(item)?)
}
