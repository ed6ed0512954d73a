//! `DynamoDB` and its streams, by dynoxide in process.

use std::{
    fmt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use dynoxide::{Database, DynoxideError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{aws::Answer, template::Table};

/// The tables.
pub struct Dynamo {
    database: Database,
    /// Tables with a stream, each with counters of the writes to it.
    streams: Vec<(String, Counters)>,
    away: AtomicBool,
}

/// A counter for each who waits for writes: so they are woken in the order in which they asked, and not
/// in one that the runtime draws.
type Counters = Mutex<Vec<watch::Sender<u64>>>;

/// The database cannot be opened, or a table cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the database cannot be opened: {0}")]
pub struct OpenError(String);

impl Dynamo {
    /// Opens the tables, in a file or in memory, and makes those that are missing.
    ///
    /// # Errors
    /// When the file is none of ours, or a table's description is refused.
    pub fn open(file: Option<&Path>, tables: &[Table]) -> Result<Self, OpenError> {
        let fail = |error: &dyn fmt::Display| OpenError(error.to_string());
        let name = match file {
            Some(file) => file.display().to_string(),
            None => format!("file:/cairn-{}?vfs=memdb", uuid::Uuid::new_v4()),
        };
        let database = Database::new(&name).map_err(|error| fail(&error))?;
        // With the journal synced at checkpoints only, a killed process loses nothing; a power
        // cut may lose the last moments.
        database
            .disable_bulk_loading()
            .map_err(|error| fail(&error))?;
        index_streams(&name).map_err(|error| fail(&error))?;
        let known = database
            .list_tables(serde_json::from_value(json!({})).map_err(|error| fail(&error))?)
            .map_err(|error| fail(&error))?;
        let known = serde_json::to_value(known).map_err(|error| fail(&error))?;
        let known = known.get("TableNames").and_then(|names| names.as_array());
        for table in tables {
            if known.is_some_and(|names| names.iter().any(|name| *name == *table.name)) {
                continue;
            }
            let create =
                serde_json::from_value(table.create.clone()).map_err(|error| fail(&error))?;
            database
                .create_table(create)
                .map_err(|error| fail(&error))?;
        }
        let streams = tables
            .iter()
            .filter(|table| table.create.get("StreamSpecification").is_some())
            .map(|table| (table.name.clone(), Counters::default()))
            .collect();
        Ok(Self {
            database,
            streams,
            away: AtomicBool::new(false),
        })
    }

    /// Counts the writes to a table that has a stream.
    pub fn writes(&self, table: &str) -> Option<watch::Receiver<u64>> {
        let (_, counters) = self.streams.iter().find(|(name, _)| name == table)?;
        let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = watch::Sender::new(counters.first().map_or(0, |first| *first.borrow()));
        let writes = counter.subscribe();
        counters.push(counter);
        Some(writes)
    }

    /// Makes the service unavailable, or available again.
    pub fn interrupt(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// Answers a call of either service.
    pub fn call(&self, operation: &str, body: &str) -> Answer {
        if self.away.load(Ordering::Relaxed) {
            return Answer::error(503, "ServiceUnavailable", "the service is not available");
        }
        match self.dispatch(operation, body) {
            Ok(answer) => {
                if is_write(operation) {
                    self.note_write(body);
                }
                Answer {
                    status: 200,
                    body: answer,
                }
            }
            Err(error) => Answer {
                status: error.status_code(),
                body: error.to_json(),
            },
        }
    }

    /// The items of a table, as plain JSON without `DynamoDB`'s types. For who looks at it from outside.
    pub fn items(&self, table: &str) -> Vec<Value> {
        let mut items = vec![];
        let mut request = json!({ "TableName": table });
        loop {
            let answer = self.call("Scan", &request.to_string());
            let page: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let found = page.get("Items").and_then(Value::as_array);
            items.extend(found.into_iter().flatten().map(plain));
            match (page.get("LastEvaluatedKey"), &mut request) {
                (Some(key), Value::Object(request)) => {
                    request.insert("ExclusiveStartKey".to_owned(), key.clone());
                }
                _ => return items,
            }
        }
    }

    fn note_write(&self, body: &str) {
        for (table, counters) in &self.streams {
            if body.contains(&format!("\"{table}\"")) {
                let counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
                for counter in counters.iter() {
                    counter.send_modify(|writes| *writes += 1);
                }
            }
        }
    }

    fn dispatch(&self, operation: &str, body: &str) -> Result<String, DynoxideError> {
        let db = &self.database;
        match operation {
            "CreateTable" => run(body, |request| db.create_table(request)),
            "DeleteTable" => run(body, |request| db.delete_table(request)),
            "DescribeTable" => run(body, |request| db.describe_table(request)),
            "ListTables" => run(body, |request| db.list_tables(request)),
            "UpdateTable" => run(body, |request| db.update_table(request)),
            "PutItem" => run(body, |request| db.put_item(request)),
            "GetItem" => run(body, |request| db.get_item(request)),
            "DeleteItem" => run(body, |request| db.delete_item(request)),
            "UpdateItem" => run(body, |request| db.update_item(request)),
            "BatchGetItem" => run(body, |request| db.batch_get_item(request)),
            "BatchWriteItem" => run(body, |request| db.batch_write_item(request)),
            "Query" => run(body, |request| db.query(request)),
            "Scan" => run(body, |request| db.scan(request)),
            "TransactWriteItems" => run(body, |request| db.transact_write_items(request)),
            "TransactGetItems" => run(body, |request| db.transact_get_items(request)),
            "ExecuteStatement" => run(body, |request| db.execute_statement(request)),
            "ListStreams" => run(body, |request| db.list_streams(request)),
            "DescribeStream" => run(body, |request| db.describe_stream(request)),
            "GetShardIterator" => run(body, |request| db.get_shard_iterator(request)),
            "GetRecords" => run(body, |request| db.get_records(request)),
            _ => Err(DynoxideError::ValidationException(format!(
                "the operation {operation} cannot be had on one machine"
            ))),
        }
    }
}

impl fmt::Debug for Dynamo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamo").finish_non_exhaustive()
    }
}

/// An item without the types of its values. Bytes stay in their base64.
fn plain(item: &Value) -> Value {
    let fields = item.as_object().into_iter().flatten();
    Value::Object(
        fields
            .map(|(name, value)| (name.clone(), untyped(value)))
            .collect(),
    )
}

fn untyped(value: &Value) -> Value {
    let typed = value.as_object().and_then(|typed| typed.iter().next());
    match typed.map(|(kind, value)| (kind.as_str(), value)) {
        Some(("N", number)) => number
            .as_str()
            .and_then(|digits| serde_json::from_str(digits).ok())
            .unwrap_or_default(),
        Some(("L", values)) => values
            .as_array()
            .into_iter()
            .flatten()
            .map(untyped)
            .collect(),
        Some(("M", item)) => plain(item),
        Some(("NULL", _)) | None => Value::Null,
        Some((_, value)) => value.clone(),
    }
}

fn is_write(operation: &str) -> bool {
    matches!(
        operation,
        "PutItem"
            | "UpdateItem"
            | "DeleteItem"
            | "BatchWriteItem"
            | "TransactWriteItems"
            | "ExecuteStatement"
    )
}

/// dynoxide finds a stream's last record and its next ones by reading all of them, so that writes
/// became ten times slower within some thousand commits. With this index both are look-ups
/// (measured: docs/decisions/0003).
fn index_streams(name: &str) -> rusqlite::Result<()> {
    rusqlite::Connection::open(name)?.execute_batch(
        "CREATE INDEX IF NOT EXISTS cairn_stream_order
         ON _stream_records (table_name, CAST(sequence_number AS INTEGER))",
    )
}

fn run<Q: DeserializeOwned, R: Serialize>(
    body: &str,
    operation: impl FnOnce(Q) -> dynoxide::errors::Result<R>,
) -> Result<String, DynoxideError> {
    let request = serde_json::from_str(body).map_err(|error| refused(&error))?;
    let answer = operation(request)?;
    serde_json::to_string(&answer)
        .map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// dynoxide reports what its types refuse through serde, with a mark in front.
fn refused(error: &serde_json::Error) -> DynoxideError {
    let text = error.to_string();
    for mark in ["VALIDATION_AS_READ:", "VALIDATION_REQUEST:", "VALIDATION:"] {
        if let Some((_, message)) = text.split_once(mark) {
            let message = message.split(" at line ").next().unwrap_or(message);
            return DynoxideError::ValidationException(message.to_owned());
        }
    }
    DynoxideError::SerializationException(text)
}
