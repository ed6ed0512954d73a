//! The record of the last clean audit.

use aws_sdk_dynamodb::{
    Client,
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};

use crate::{
    context::{AppContext, ConfigError},
    dynamodb::{Item, TableError},
};
use cairn::{
    audit::{Report, Window},
    timestamp::Timestamp,
};

/// The time before which clean audits have examined every change: the mark. It is an item of the
/// table of generation sets, which has the keys `readModel` (S) and `item` (S).
///
/// An audit of everything creates the mark. An audit of the changes in a window moves the mark from
/// within the window to its end. One conditional write checks this, so the windows behind the mark
/// have no gap, and the mark never moves back.
#[derive(Clone, Debug)]
pub struct AuditMark {
    client: Client,
    table: String,
}

/// The mark was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The report has findings, or the audit examined only a part of the effects of changes.
    #[error("only an audit without findings, of everything or of all changes, moves the mark")]
    NotClean,
    /// The mark is not in the window of the audit.
    #[error(
        "the mark is not in the window of the audit: {}; audit the changes since the mark",
        .0.map_or("there is no mark".to_owned(), |mark| format!("it is at {mark}"))
    )]
    Elsewhere(Option<Timestamp>),
    /// A call failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl AppContext {
    /// Returns the mark of the last clean audit, in the table of `READ_MODELS_TABLE`.
    pub fn audit_mark(&self) -> Result<AuditMark, ConfigError> {
        let table = self.variable("READ_MODELS_TABLE")?;
        Ok(AuditMark::new(self.dynamodb(), table))
    }
}

impl AuditMark {
    /// Creates a handle to the mark in this table.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Moves the mark to the end of the report's window, and returns the window. The call can be
    /// repeated.
    ///
    /// # Errors
    /// See [`MarkError`]. The mark is then unchanged.
    pub async fn advance(&self, report: &Report) -> Result<Window, MarkError> {
        let window = report.clean().ok_or(MarkError::NotClean)?;
        let mut update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("readModel", AttributeValue::S("#audit".to_owned()))
            .key("item", AttributeValue::S("clean".to_owned()))
            .update_expression("SET clean = :to")
            .expression_attribute_values(":to", AttributeValue::S(window.to.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        update = match window.from {
            None => update.condition_expression("attribute_not_exists(clean) OR clean <= :to"),
            Some(from) => update
                .condition_expression("clean >= :from AND clean <= :to")
                .expression_attribute_values(":from", AttributeValue::S(from.to_string())),
        };
        let Err(error) = update.send().await else {
            return Ok(window);
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                Err(MarkError::Elsewhere(failed.item().and_then(mark)))
            }
            _ => Err(TableError::from(error).into()),
        }
    }
}

fn mark(item: &Item) -> Option<Timestamp> {
    item.get("clean")?.as_s().ok()?.parse().ok()
}
