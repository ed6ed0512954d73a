//! Queues: the calls of SQS that dead letters need.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use crate::{
    aws::{Answer, journal::Journal},
    template::{ACCOUNT, REGION},
    world::World,
};

/// The queues.
#[derive(Debug)]
pub struct Queues {
    journal: Arc<Journal>,
    names: Vec<String>,
    world: Arc<dyn World>,
}

/// The attributes of a message, all of them text.
pub type Attributes = BTreeMap<String, String>;

/// The URL of a queue. Only its last part says which one it is.
pub fn url(name: &str) -> String {
    format!("http://127.0.0.1:4566/{ACCOUNT}/{name}")
}

impl Queues {
    /// The queues of these names.
    pub fn new(journal: Arc<Journal>, names: Vec<String>, world: Arc<dyn World>) -> Self {
        Self {
            journal,
            names,
            world,
        }
    }

    /// Puts a message into a queue.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn send(&self, queue: &str, body: &str, attributes: &Attributes) -> rusqlite::Result<i64> {
        let connection = self.journal.connection();
        connection
            .prepare_cached(
                "INSERT INTO messages (queue, body, attributes, visible_at_ms, receives)
                 VALUES (?1, ?2, ?3, 0, 0)",
            )?
            .execute(params![queue, body, json!(attributes).to_string()])?;
        Ok(connection.last_insert_rowid())
    }

    /// The names of the queues.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many messages a queue holds.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn depth(&self, queue: &str) -> rusqlite::Result<u64> {
        self.journal.connection().query_row(
            "SELECT COUNT(*) FROM messages WHERE queue = ?1",
            [queue],
            |row| row.get(0),
        )
    }

    /// The bodies and attributes of all messages of a queue, oldest first, hidden or not. For who looks at
    /// it from outside.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn messages(&self, queue: &str) -> rusqlite::Result<Vec<(String, Attributes)>> {
        let connection = self.journal.connection();
        let mut messages = connection
            .prepare_cached("SELECT body, attributes FROM messages WHERE queue = ?1 ORDER BY id")?;
        let messages = messages.query_map([queue], |row| {
            let attributes: String = row.get(1)?;
            Ok((
                row.get(0)?,
                serde_json::from_str(&attributes).unwrap_or_default(),
            ))
        })?;
        messages.collect()
    }

    /// The latest messages of a queue with their ids, newest first, hidden or not.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn latest(
        &self,
        queue: &str,
        most: u32,
    ) -> rusqlite::Result<Vec<(i64, String, Attributes)>> {
        let connection = self.journal.connection();
        let mut messages = connection.prepare_cached(
            "SELECT id, body, attributes FROM messages WHERE queue = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let messages = messages.query_map(params![queue, most], |row| {
            let attributes: String = row.get(2)?;
            let attributes = serde_json::from_str(&attributes).unwrap_or_default();
            Ok((row.get(0)?, row.get(1)?, attributes))
        })?;
        messages.collect()
    }

    /// Answers a call.
    pub fn call(&self, operation: &str, body: &str) -> Answer {
        let Ok(request) = serde_json::from_str::<Value>(body) else {
            return Answer::error(400, "SerializationException", "the body is not JSON");
        };
        if operation == "ListQueues" {
            let urls: Vec<_> = self.names.iter().map(|name| url(name)).collect();
            return Answer::ok(&json!({ "QueueUrls": urls }));
        }
        let Some(queue) = self.named(&request) else {
            return Answer::error(
                400,
                "com.amazonaws.sqs#QueueDoesNotExist",
                "The specified queue does not exist.",
            );
        };
        self.answer(operation, queue, &request)
            .unwrap_or_else(|error| Answer::error(500, "InternalFailure", &error.to_string()))
    }

    fn named(&self, request: &Value) -> Option<&str> {
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let name = text("QueueName").or_else(|| text("QueueUrl")?.rsplit('/').next())?;
        self.names
            .iter()
            .map(String::as_str)
            .find(|known| *known == name)
    }

    fn answer(&self, operation: &str, queue: &str, request: &Value) -> rusqlite::Result<Answer> {
        let text = |name: &str| {
            request
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let number =
            |name: &str, default| request.get(name).and_then(Value::as_i64).unwrap_or(default);
        let body = match operation {
            "GetQueueUrl" => json!({ "QueueUrl": url(queue) }),
            "GetQueueAttributes" => json!({ "Attributes": {
                "QueueArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"),
                "ApproximateNumberOfMessages": self.depth(queue)?.to_string(),
            }}),
            "SendMessage" => {
                let attributes = request.get("MessageAttributes").and_then(Value::as_object);
                let attributes = attributes
                    .into_iter()
                    .flatten()
                    .filter_map(|(name, value)| {
                        let value = value.get("StringValue")?.as_str()?;
                        Some((name.clone(), value.to_owned()))
                    });
                let id = self.send(queue, text("MessageBody"), &attributes.collect())?;
                json!({ "MessageId": id.to_string() })
            }
            "ReceiveMessage" => {
                let most = number("MaxNumberOfMessages", 1).clamp(1, 10);
                let hidden_ms = number("VisibilityTimeout", 30).clamp(0, 43_200) * 1_000;
                match self.receive(queue, most, hidden_ms)? {
                    none if none.is_empty() => json!({}),
                    messages => json!({ "Messages": messages }),
                }
            }
            "ChangeMessageVisibility" => {
                let hidden_ms = number("VisibilityTimeout", 30).clamp(0, 43_200) * 1_000;
                self.journal.connection().execute(
                    "UPDATE messages SET visible_at_ms = ?3
                     WHERE queue = ?1 AND id || '-' || receives = ?2",
                    params![
                        queue,
                        text("ReceiptHandle"),
                        self.world.now().as_millis() + hidden_ms
                    ],
                )?;
                json!({})
            }
            "DeleteMessage" => {
                self.journal.connection().execute(
                    "DELETE FROM messages WHERE queue = ?1 AND id || '-' || receives = ?2",
                    params![queue, text("ReceiptHandle")],
                )?;
                json!({})
            }
            "PurgeQueue" => {
                let connection = self.journal.connection();
                connection.execute("DELETE FROM messages WHERE queue = ?1", [queue])?;
                json!({})
            }
            _ => {
                return Ok(Answer::error(
                    400,
                    "UnsupportedOperation",
                    &format!("the operation {operation} cannot be had on one machine"),
                ));
            }
        };
        Ok(Answer::ok(&body))
    }

    fn receive(&self, queue: &str, most: i64, hidden_ms: i64) -> rusqlite::Result<Vec<Value>> {
        let now = self.world.now().as_millis();
        let connection = self.journal.connection();
        let mut messages = vec![];
        for _ in 0..most {
            let received = connection
                .query_row(
                    "UPDATE messages SET visible_at_ms = ?2 + ?3, receives = receives + 1
                     WHERE id = (SELECT id FROM messages WHERE queue = ?1 AND visible_at_ms <= ?2
                                 ORDER BY id LIMIT 1)
                     RETURNING id, body, receives, attributes",
                    params![queue, now, hidden_ms.max(1)],
                    |row| {
                        let (id, body, receives): (i64, String, i64) =
                            (row.get(0)?, row.get(1)?, row.get(2)?);
                        let attributes: String = row.get(3)?;
                        Ok(json!({
                            "MessageId": id.to_string(),
                            "MessageAttributes": typed(&attributes),
                            "ReceiptHandle": format!("{id}-{receives}"),
                            "Body": body,
                            "Attributes": { "ApproximateReceiveCount": receives.to_string() },
                        }))
                    },
                )
                .optional()?;
            match received {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        Ok(messages)
    }
}

/// Attributes as they were kept, in the form of the protocol.
fn typed(attributes: &str) -> Value {
    let attributes: Attributes = serde_json::from_str(attributes).unwrap_or_default();
    let typed = attributes
        .into_iter()
        .map(|(name, value)| (name, json!({ "DataType": "String", "StringValue": value })));
    Value::Object(typed.collect())
}
