//! Failed DynamoDB requests, and items that cannot be read.

use std::error::Error;

use aws_sdk_dynamodb::{
    error::{BuildError, ProvideErrorMetadata, SdkError},
    types::CancellationReason,
};

use crate::error::AwsError;
use cairn::{
    error::BoxError,
    event::CodecError,
    gate::DeliveryError,
    store::{AppendError, StoreError},
};

/// The error of a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB throttles, is unreachable or timed out. A later retry may succeed.
    #[error("DynamoDB is not available: {0}")]
    Unavailable(#[source] BoxError),
    /// DynamoDB rejects the request permanently: a missing table, a missing permission.
    #[error("DynamoDB rejected the request: {0}")]
    Permanent(#[source] BoxError),
    /// An item cannot be read or written.
    #[error("malformed item: {0}")]
    Malformed(#[source] BoxError),
    /// An event cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl TableError {
    /// True if the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    pub(crate) fn malformed(error: impl Into<BoxError>) -> Self {
        Self::Malformed(error.into())
    }

    /// Returns the error of a transaction that was cancelled for another reason than a condition.
    pub(super) fn cancelled(reasons: &[CancellationReason]) -> Self {
        let codes: Vec<_> = reasons
            .iter()
            .filter_map(CancellationReason::code)
            .filter(|code| *code != "None")
            .collect();
        let text = format!("the transaction was cancelled: {}", codes.join(", "));
        let transient = [
            "TransactionConflict",
            "ThrottlingError",
            "ProvisionedThroughputExceeded",
        ];
        if codes.iter().all(|code| transient.contains(code)) {
            Self::Unavailable(text.into())
        } else {
            Self::Permanent(text.into())
        }
    }
}

/// Returns false if the condition of a write failed.
pub(super) fn is_applied<T, E>(sent: Result<T, SdkError<E>>) -> Result<bool, TableError>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl From<AwsError> for TableError {
    fn from(error: AwsError) -> Self {
        if error.is_transient() {
            Self::Unavailable(error.into())
        } else {
            Self::Permanent(error.into())
        }
    }
}

impl<E> From<SdkError<E>> for TableError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        AwsError::from(error).into()
    }
}

impl From<BuildError> for TableError {
    fn from(error: BuildError) -> Self {
        Self::Permanent(error.into())
    }
}

impl From<serde_dynamo::Error> for TableError {
    fn from(error: serde_dynamo::Error) -> Self {
        Self::malformed(error)
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Unavailable(cause) => Self::Unavailable(cause),
            TableError::Permanent(cause) | TableError::Malformed(cause) => Self::Permanent(cause),
            TableError::Codec(error) => error.into(),
        }
    }
}

impl From<TableError> for AppendError {
    fn from(error: TableError) -> Self {
        Self::Store(error.into())
    }
}

impl From<TableError> for DeliveryError {
    fn from(error: TableError) -> Self {
        if error.is_transient() {
            Self::Unavailable(error.into())
        } else {
            Self::Permanent(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::operation::get_item::GetItemError;

    use super::*;

    #[test]
    fn a_request_without_a_response_is_transient_and_keeps_its_causes() {
        let sent = SdkError::<GetItemError>::timeout_error("no response");
        let error = TableError::from(sent);
        assert!(error.is_transient());
        let text = "DynamoDB is not available: request has timed out: no response";
        assert_eq!(error.to_string(), text);
        let cause = error.source().and_then(Error::source);
        assert!(cause.is_some_and(<dyn Error>::is::<SdkError<GetItemError>>));
        let text = "the event store is not available: request has timed out: no response";
        assert_eq!(StoreError::from(error).to_string(), text);
    }
}
