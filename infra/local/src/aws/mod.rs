//! AWS as far as the system calls it: one dispatcher, reached in process and over a port.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::bus::Bus;

pub mod dynamo;
pub mod endpoint;
pub mod journal;
pub mod queues;
pub mod sdk;

use dynamo::Dynamo;
use queues::Queues;

/// The services.
#[derive(Debug)]
pub struct Aws {
    /// `DynamoDB` and its streams.
    pub dynamo: Dynamo,
    /// `EventBridge`.
    pub bus: Bus,
    /// SQS.
    pub queues: Queues,
    /// What was called, by whom.
    pub meter: Meter,
}

/// The answer to a call in one of AWS's JSON protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub body: String,
}

impl Answer {
    pub(crate) fn ok(body: &Value) -> Self {
        Self {
            status: 200,
            body: body.to_string(),
        }
    }

    /// An error of a type that SDKs know by its name.
    pub(crate) fn error(status: u16, kind: &str, message: &str) -> Self {
        Self {
            status,
            body: json!({ "__type": kind, "message": message }).to_string(),
        }
    }
}

impl Aws {
    /// Answers a call. `target` is the header `X-Amz-Target`.
    pub fn call(&self, caller: &str, target: &str, body: &[u8]) -> Answer {
        let Ok(body) = std::str::from_utf8(body) else {
            return Answer::error(400, "SerializationException", "the body is not UTF-8");
        };
        let (service, operation) = target.split_once('.').unwrap_or((target, ""));
        self.meter.count(caller, operation);
        match service {
            "DynamoDB_20120810" | "DynamoDBStreams_20120810" => self.dynamo.call(operation, body),
            "AWSEvents" => self.bus.call(operation, body),
            "AmazonSQS" => self.queues.call(operation, body),
            _ => Answer::error(
                400,
                "UnknownOperationException",
                "this endpoint has DynamoDB, DynamoDB Streams, EventBridge PutEvents and SQS",
            ),
        }
    }
}

/// Counts calls by caller and operation.
#[derive(Debug, Default)]
pub struct Meter(Mutex<BTreeMap<(String, String), u64>>);

impl Meter {
    fn count(&self, caller: &str, operation: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts
            .entry((caller.to_owned(), operation.to_owned()))
            .or_default() += 1;
    }

    /// The counts so far, by caller and operation.
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
