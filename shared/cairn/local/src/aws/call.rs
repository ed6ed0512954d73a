//! Calls of AWS services and their answers.

use serde_json::{Value, json};

pub(crate) const SEND_EMAIL: &str = "/v2/email/outbound-emails";

#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The header `X-Amz-Target` with service and operation; empty for Lambda and SES.
    pub target: &'a str,
    /// The path, which names service and operation for Lambda and SES.
    pub path: &'a str,
    pub body: &'a [u8],
}

impl<'a> Call<'a> {
    /// Creates a call in the JSON protocol that names its operation in a header.
    pub fn new(target: &'a str, body: &'a [u8]) -> Self {
        let path = "/";
        Self { target, path, body }
    }

    pub fn operation(&self) -> &'a str {
        match self.target.split_once('.') {
            Some((_, operation)) => operation,
            None if self.function().is_some() => "Invoke",
            None if self.path == SEND_EMAIL => "SendEmail",
            None => "",
        }
    }

    /// Returns whether the operation changes nothing. Other operations may change something.
    pub(crate) fn only_reads(&self) -> bool {
        let operation = self.operation();
        let reads = [
            "GetItem",
            "BatchGetItem",
            "TransactGetItems",
            "Query",
            "Scan",
        ];
        reads.contains(&operation) || ["GenerateDataKey", "Decrypt"].contains(&operation)
    }

    /// The function to invoke, by the name or ARN in the path.
    /// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
    pub fn function(&self) -> Option<&'a str> {
        let path = self.path.split('?').next()?;
        path.strip_prefix("/2015-03-31/functions/")?
            .strip_suffix("/invocations")
    }

    /// The alias or version of the function, if the query names it.
    pub(crate) fn qualifier(&self) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        let mut query = form_urlencoded::parse(query.as_bytes());
        let (_, qualifier) = query.find(|(name, _)| name == "Qualifier")?;
        Some(qualifier.into_owned())
    }
}

/// The answer to a call in one of AWS's JSON protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub(crate) fn ok(body: &Value) -> Self {
        Self {
            status: 200,
            body: body.to_string(),
        }
    }

    /// An error that SDKs identify by `kind`.
    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Self {
        Self {
            status,
            body: json!({ "__type": kind, "message": message }).to_string(),
        }
    }

    /// The message of an error.
    pub(crate) fn message(&self) -> String {
        let error: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let message = error.get("message").and_then(Value::as_str);
        message.unwrap_or_default().to_owned()
    }

    /// The error for an operation that is not available locally.
    pub(crate) fn unavailable(service: &str, operation: &str) -> Self {
        Self::error(400, UNKNOWN_OPERATION, &unavailable(service, operation))
    }
}

pub(crate) const UNKNOWN_OPERATION: &str = "UnknownOperationException";

pub(crate) fn unavailable(service: &str, operation: &str) -> String {
    format!("the operation {operation} of service {service} is not available locally")
}

/// Returns the client's name of the service in `X-Amz-Target`.
pub(crate) fn service_of(target: &str) -> &str {
    match target.split(['_', '.']).next().unwrap_or_default() {
        "DynamoDB" => "dynamodb",
        "DynamoDBStreams" => "streams.dynamodb",
        "AWSEvents" => "events",
        "AmazonSQS" => "sqs",
        "TrentService" => "kms",
        "" => "unknown",
        service => service,
    }
}
