//! Queues: the calls of SQS that dead letters need.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use crate::{
    aws::{Answer, journal::Journal},
    template::{ACCOUNT, REGION},
};

/// The queues.
#[derive(Debug)]
pub struct Queues {
    journal: Arc<Journal>,
    names: Vec<String>,
}

/// The URL of a queue. Only its last part says which one it is.
pub fn url(name: &str) -> String {
    format!("http://127.0.0.1:4566/{ACCOUNT}/{name}")
}

impl Queues {
    /// The queues of these names.
    pub fn new(journal: Arc<Journal>, names: Vec<String>) -> Self {
        Self { journal, names }
    }

    /// Puts a message into a queue.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn send(&self, queue: &str, body: &str) -> rusqlite::Result<i64> {
        let connection = self.journal.connection();
        connection
            .prepare_cached(
                "INSERT INTO messages (queue, body, visible_at_ms, receives) VALUES (?1, ?2, 0, 0)",
            )?
            .execute(params![queue, body])?;
        Ok(connection.last_insert_rowid())
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
                json!({ "MessageId": self.send(queue, text("MessageBody"))?.to_string() })
            }
            "ReceiveMessage" => {
                let most = number("MaxNumberOfMessages", 1).clamp(1, 10);
                let hidden_ms = number("VisibilityTimeout", 30).clamp(0, 43_200) * 1_000;
                json!({ "Messages": self.receive(queue, most, hidden_ms)? })
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
        let now = cairn::Timestamp::now().as_millis();
        let connection = self.journal.connection();
        let mut messages = vec![];
        for _ in 0..most {
            let received = connection
                .query_row(
                    "UPDATE messages SET visible_at_ms = ?2 + ?3, receives = receives + 1
                     WHERE id = (SELECT id FROM messages WHERE queue = ?1 AND visible_at_ms <= ?2
                                 ORDER BY id LIMIT 1)
                     RETURNING id, body, receives",
                    params![queue, now, hidden_ms.max(1)],
                    |row| {
                        let (id, body, receives): (i64, String, i64) =
                            (row.get(0)?, row.get(1)?, row.get(2)?);
                        Ok(json!({
                            "MessageId": id.to_string(),
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
