//! The AWS services that the system uses: one dispatcher, called in process and over a port.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::{
    async_queue::{AsyncQueue, Outgoing, Target},
    bus::Bus,
    template::STACK,
};

pub(crate) mod cloudformation;
pub mod dynamo;
pub mod endpoint;
pub mod journal;
pub mod kms;
pub(crate) mod lambda;
pub mod mailbox;
mod protocol;
pub mod queues;
pub mod roles;
pub mod rules;
pub mod sdk;
pub mod secrets;

use dynamo::Dynamo;
use kms::Kms;
use mailbox::Mailbox;
use queues::Queues;
use roles::Roles;
use rules::Rules;
use secrets::Secrets;

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
    pub functions: Vec<String>,
    pub roles: Roles,
    pub meter: Meter,
}

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

    /// The error for an operation that is not available locally.
    pub(crate) fn unavailable(service: &str, operation: &str) -> Self {
        Self::error(400, UNKNOWN_OPERATION, &unavailable(service, operation))
    }
}

pub(crate) const UNKNOWN_OPERATION: &str = "UnknownOperationException";

fn unavailable(service: &str, operation: &str) -> String {
    format!("the operation {operation} of service {service} is not available locally")
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
                self.meter.weigh(caller, operation, units);
                answer
            }
            "DynamoDB_20120810" | "DynamoDBStreams_20120810" => self.dynamo.call(operation, body),
            "AWSEvents" if operation == "PutEvents" => self.bus.call(operation, body),
            "AWSEvents" => self.rules.call(operation, body),
            "AmazonSQS" => self.queues.call(operation, body),
            "secretsmanager" => self.secrets.call(operation, body),
            "TrentService" => self.kms.call(operation, body),
            "" if call.path == SEND_EMAIL => self.mailbox.take(body),
            target => Answer::unavailable(protocol::service_of(target), operation),
        }
    }

    fn invoke(&self, named: &str, payload: &str) -> Answer {
        let Some(function) = self.function(named) else {
            return Answer::error(404, "ResourceNotFoundException", &lambda::unknown(named));
        };
        if let Some(problem) = lambda::too_large_for_event(payload.len()) {
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
    /// [`Journal::faults`]: journal::Journal::faults
    pub(crate) fn storage_faults(&self) -> u64 {
        self.dynamo.faults() + self.async_queue.faults()
    }

    /// Returns the logical id of the function that a path names by logical id, name or ARN. A
    /// qualifier is the alias `live` or `$LATEST`: no versions are published locally.
    /// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
    pub(crate) fn function(&self, named: &str) -> Option<&str> {
        let named = percent_decode_str(named).decode_utf8_lossy();
        let name = match named.split_once(":function:") {
            Some((account, name)) if lambda::is_own(account) => name,
            Some(_) => return None,
            None => named.strip_prefix("function:").unwrap_or(&named),
        };
        let (name, qualifier) = match name.split_once(':') {
            Some((name, qualifier)) => (name, Some(qualifier)),
            None => (name, None),
        };
        if qualifier.is_some_and(|qualifier| !lambda::is_qualifier(qualifier)) {
            return None;
        }
        let own = name.strip_prefix(STACK);
        let name = own.and_then(|own| own.strip_prefix('-')).unwrap_or(name);
        self.functions
            .iter()
            .map(String::as_str)
            .find(|id| *id == name)
    }
}

/// Counts calls by caller and operation, and capacity units after [`Meter::start_weighing`].
#[derive(Debug, Default)]
pub struct Meter {
    counts: Mutex<BTreeMap<(String, String), u64>>,
    units: Mutex<BTreeMap<String, Units>>,
    weighs: AtomicBool,
}

/// The capacity units that `DynamoDB` bills.
#[derive(Clone, Copy, Debug, Default)]
pub struct Units {
    /// Read request units: one per 4 KB, half for an eventually consistent read.
    pub read: f64,
    /// Write request units: one per KB, two within a transaction.
    pub write: f64,
}

impl Meter {
    pub(crate) fn count(&self, caller: &str, operation: &str) {
        let mut counts = lock(&self.counts);
        *counts
            .entry((caller.to_owned(), operation.to_owned()))
            .or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        lock(&self.counts).clone()
    }

    /// Counts units by caller from now on, without those of writes that fail their condition.
    pub fn start_weighing(&self) {
        self.weighs.store(true, Ordering::Relaxed);
    }

    pub fn units(&self) -> BTreeMap<String, Units> {
        lock(&self.units).clone()
    }

    fn is_weighing(&self) -> bool {
        self.weighs.load(Ordering::Relaxed)
    }

    fn weigh(&self, caller: &str, operation: &str, units: f64) {
        let mut all = lock(&self.units);
        let sum = all.entry(caller.to_owned()).or_default();
        if matches!(operation, "GetItem" | "BatchGetItem" | "Query" | "Scan") {
            sum.read += units;
        } else {
            sum.write += units;
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
