//! All services behind one dispatcher, which is called in process and over a port.

use super::{
    async_queue::{AsyncQueue, Outgoing, Target},
    bus::Bus,
    call::{Answer, Call, SEND_EMAIL, service_of},
    dynamo::Dynamo,
    kms::Kms,
    mailbox::Mailbox,
    meter::Meter,
    queues::Queues,
    roles::Roles,
    rules::Rules,
    secrets::Secrets,
};
use crate::names::{function_name, unknown_function};

/// The largest payload of an asynchronous invocation in bytes.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_EVENT: usize = 1024 * 1024;

#[derive(Debug)]
pub struct Aws {
    pub dynamo: Dynamo,
    pub bus: Bus,
    pub rules: Rules,
    pub queues: Queues,
    pub mailbox: Mailbox,
    pub secrets: Secrets,
    pub kms: Kms,
    pub async_queue: AsyncQueue,
    /// The name of the stack, with which the names of the functions begin.
    pub stack: String,
    /// The logical ids of the functions.
    pub functions: Vec<String>,
    pub roles: Roles,
    pub meter: Meter,
}

impl Aws {
    pub fn call(&self, caller: &str, call: &Call<'_>) -> Answer {
        let Ok(body) = std::str::from_utf8(call.body) else {
            return Answer::error(400, "SerializationException", "the body is not UTF-8");
        };
        let operation = call.operation();
        self.meter.count(caller, operation);
        if let Some(function) = call.function() {
            return self.invoke(function, body);
        }
        match call.target.split('.').next().unwrap_or_default() {
            "DynamoDB_20120810" if self.meter.is_weighing() => {
                let (answer, units) = self.dynamo.metered(operation, body, true);
                self.meter.weigh(caller, units);
                answer
            }
            "DynamoDB_20120810" | "DynamoDBStreams_20120810" => self.dynamo.call(operation, body),
            "AWSEvents" if operation == "PutEvents" => self.bus.call(operation, body),
            "AWSEvents" => self.rules.call(operation, body),
            "AmazonSQS" => self.queues.call(operation, body),
            "secretsmanager" => self.secrets.call(operation, body),
            "TrentService" => self.kms.call(operation, body),
            "" if call.path == SEND_EMAIL => self.mailbox.take(body),
            target => Answer::unavailable(service_of(target), operation),
        }
    }

    fn invoke(&self, named: &str, payload: &str) -> Answer {
        let Some(function) = self.function(named) else {
            return Answer::error(404, "ResourceNotFoundException", &unknown_function(named));
        };
        if let Some(problem) = too_large_for_event(payload.len()) {
            return Answer::error(413, "RequestEntityTooLargeException", &problem);
        }
        let outgoing = Outgoing {
            target: Target {
                function: function.to_owned(),
                rule: None,
            },
            payload: payload.to_owned(),
            trace: None,
        };
        match self.async_queue.accept(vec![outgoing]) {
            Ok(()) => Answer {
                status: 202,
                body: String::new(),
            },
            Err(error) => Answer::error(500, "ServiceException", &error.to_string()),
        }
    }

    /// The number of calls that failed because the local disk could not be written: see
    /// [`Journal::faults`].
    ///
    /// [`Journal::faults`]: super::journal::Journal::faults
    pub(crate) fn storage_faults(&self) -> u64 {
        self.dynamo.faults() + self.async_queue.faults()
    }

    /// Returns the logical id of the function that a path names by logical id, name or ARN.
    pub fn function(&self, named: &str) -> Option<&str> {
        let name = function_name(named)?;
        let id = name.strip_prefix(&self.stack);
        let id = id.and_then(|id| id.strip_prefix('-')).unwrap_or(&name);
        let mut functions = self.functions.iter().map(String::as_str);
        functions.find(|function| *function == id)
    }
}

/// Lambda's refusal of a payload that is too large for an asynchronous invocation.
pub(crate) fn too_large_for_event(bytes: usize) -> Option<String> {
    (bytes > MAX_EVENT).then(|| {
        format!("{bytes} byte payload is too large for the Event invocation type (limit {MAX_EVENT} bytes)")
    })
}
