//! Failed calls of AWS services.

use std::error::Error;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use cairn::error::BoxError;

/// A failed call of an AWS service. Its text is the code and the message of the service, or the
/// causes of a call without a response.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct AwsError {
    problem: String,
    is_transient: bool,
    source: BoxError,
}

impl AwsError {
    /// Returns true if the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }
}

/// Distinguishes transient from permanent errors.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
impl<E> From<SdkError<E>> for AwsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        const TRANSIENT: [&str; 7] = [
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "ThrottlingException",
            "TransactionInProgressException",
            "TransactionConflictException",
            "InternalServerError",
            "ServiceUnavailable",
        ];
        let (problem, is_transient) = match &error {
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or("unknown");
                let is_transient =
                    TRANSIENT.contains(&code) || service.raw().status().as_u16() >= 500;
                let problem = match service.err().message() {
                    Some(message) => format!("{code}: {message}"),
                    None => code.to_owned(),
                };
                (problem, is_transient)
            }
            SdkError::ConstructionFailure(_) => (chain(&error), false),
            _ => (chain(&error), true),
        };
        Self {
            problem,
            is_transient,
            source: error.into(),
        }
    }
}

/// Joins the messages of an error and its causes: the outer message alone names no reason.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
