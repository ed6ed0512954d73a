//! The responses to requests with an idempotency key that appended no commit, in a table.

use super::{Item, TableError};
use crate::context::{AppContext, ConfigError};

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::PutItemError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use cairn::store::{
    StoreError,
    answers::{AnswerStore, KeptAnswer},
};

/// A table with the key `request` (S). An item is the first response to a request with a key.
#[derive(Clone, Debug)]
pub struct Answers {
    client: Client,
    table: String,
}

impl AppContext {
    /// Returns the stored responses in the table of an environment variable.
    pub fn answers(&self, variable: &str) -> Result<Answers, ConfigError> {
        Ok(Answers::new(self.dynamodb(), self.variable(variable)?))
    }
}

impl Answers {
    /// Creates a handle to the table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }
}

impl AnswerStore for Answers {
    async fn find(&self, request: &str) -> Result<Option<KeptAnswer>, StoreError> {
        let got = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("request", AttributeValue::S(request.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(TableError::from)?;
        Ok(got.item.map(kept).transpose()?)
    }

    /// Makes one conditional write.
    async fn keep(&self, answer: KeptAnswer) -> Result<KeptAnswer, StoreError> {
        let item = serde_dynamo::to_item(&answer).map_err(TableError::from)?;
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
                let lost = || TableError::Unavailable("the stored response disappeared".into());
                Ok(winner.ok_or_else(lost)?)
            }
            _ => Err(TableError::from(error).into()),
        }
    }
}

fn kept(item: Item) -> Result<KeptAnswer, TableError> {
    Ok(serde_dynamo::from_item(item)?)
}
