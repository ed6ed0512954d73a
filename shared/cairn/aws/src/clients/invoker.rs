//! Asynchronous invocations of Lambda functions.
//!
//! Lambda queues the event and [retries a failed
//! invocation](https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html),
//! so the caller does not wait and the event is not lost.

use aws_sdk_lambda::{Client, config::Builder, primitives::Blob, types::InvocationType};

use crate::{
    context::{AppContext, client_config},
    error::AwsError,
};

/// A client of Lambda that invokes functions.
#[derive(Clone, Debug)]
pub struct Invoker {
    client: Client,
}

/// Lambda did not accept an invocation.
#[derive(Debug, thiserror::Error)]
#[error("invocation of {function} failed: {source}")]
pub struct InvokeError {
    function: String,
    source: AwsError,
}

impl AppContext {
    /// Returns a client to invoke the functions of this account.
    pub fn invoker(&self) -> Invoker {
        let config = client_config!(Builder, &self.aws);
        Invoker::new(Client::from_conf(config))
    }
}

impl Invoker {
    /// Creates an invoker with a client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Invokes a function by name or ARN. Lambda invokes it at least once, and sends a permanently
    /// failed event to the failure destination.
    ///
    /// # Errors
    /// Returns an error if Lambda did not confirm the invocation, which can happen nevertheless.
    pub async fn invoke(&self, function: &str, event: Vec<u8>) -> Result<(), InvokeError> {
        let invoke = self
            .client
            .invoke()
            .function_name(function)
            .invocation_type(InvocationType::Event)
            .payload(Blob::new(event));
        invoke.send().await.map(drop).map_err(|error| InvokeError {
            function: function.to_owned(),
            source: error.into(),
        })
    }
}
