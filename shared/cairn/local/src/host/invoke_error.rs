//! The failures of an invocation, as Lambda reports them.

use std::{
    any::{Any, type_name},
    fmt,
};

use serde_json::{Value, json};

#[derive(Debug)]
pub enum InvokeError {
    Unknown,
    /// The concurrency of the function is in use.
    Throttled,
    Failed(String),
    Panicked,
    /// The timeout in seconds.
    TimedOut(u64),
    /// The process ended, for this reason.
    Exited(String),
    /// The error that the function's process reported.
    Reported(Value),
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("function not found"),
            Self::Throttled => f.write_str("Rate Exceeded."),
            Self::Failed(error) => f.write_str(error),
            Self::Panicked => f.write_str("the function panicked"),
            Self::TimedOut(seconds) => write!(f, "Task timed out after {seconds}.00 seconds"),
            Self::Exited(reason) => f.write_str(reason),
            Self::Reported(error) => match error.get("errorMessage").and_then(Value::as_str) {
                Some(message) => f.write_str(message),
                None => error.fmt(f),
            },
        }
    }
}

impl InvokeError {
    /// The end of an environment of which only that is known.
    pub(super) fn exited() -> Self {
        Self::Exited("Runtime exited without providing a reason".to_owned())
    }

    /// The payload with which Lambda and its Rust runtime report the error.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-invokeerror>
    pub(crate) fn payload(&self, request_id: &str) -> Value {
        let (kind, message) = match self {
            Self::Unknown | Self::Failed(_) => (type_name::<&BoxError>(), self.to_string()),
            Self::Panicked => (type_name::<&Box<dyn Any + Send>>(), self.to_string()),
            Self::Throttled => ("TooManyRequestsException", self.to_string()),
            Self::TimedOut(_) => {
                let message = format!("RequestId: {request_id} Error: {self}");
                ("Sandbox.Timedout", message)
            }
            Self::Reported(error) => return error.clone(),
            Self::Exited(_) => {
                let message = format!("RequestId: {request_id} Error: {self}");
                ("Runtime.ExitError", message)
            }
        };
        json!({ "errorType": kind, "errorMessage": message })
    }
}

/// The error of a function, named by the Rust runtime.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
