//! Functions, as others invoke them.
//!
//! Asynchronously only: Lambda keeps the event and [tries again by
//! itself](https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html), so nobody waits and nothing is lost.

use aws_sdk_lambda::{Client, primitives::Blob, types::InvocationType};

/// The functions of an account.
#[derive(Clone, Debug)]
pub struct Functions {
    client: Client,
}

/// An invocation was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the function {function} did not take an invocation: {problem}")]
pub struct InvokeError {
    function: String,
    problem: String,
}

impl Functions {
    /// The functions that a client reaches.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Hands an event to a function, by name or ARN, asynchronously: it is invoked at least once, and
    /// what it fails at goes to its failure destination.
    ///
    /// # Errors
    /// When the invocation was not confirmed.
    pub async fn invoke(&self, function: &str, event: Vec<u8>) -> Result<(), InvokeError> {
        let invoke = self
            .client
            .invoke()
            .function_name(function)
            .invocation_type(InvocationType::Event)
            .payload(Blob::new(event));
        invoke.send().await.map(drop).map_err(|error| InvokeError {
            function: function.to_owned(),
            problem: error.into_service_error().to_string(),
        })
    }
}
