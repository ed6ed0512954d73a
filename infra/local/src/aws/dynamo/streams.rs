//! DynamoDB Streams as AWS returns them.
//!
//! dynoxide writes a record for every write, even without a change, and uses a region of its own.
//! Here every stream stores both images, which show the change. Records without a change are
//! omitted; the others get the images of the table's declared view.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html>

use std::{
    collections::HashMap,
    fmt,
    sync::{PoisonError, RwLock},
};

use dynoxide::{
    DynoxideError,
    actions::{
        get_records::{GetRecordsRequest, Record},
        get_shard_iterator::{GetShardIteratorRequest, decode_shard_iterator},
    },
    streams::{LOCAL_REGION, shard_id, stream_arn},
};
use serde_json::{Value, json};

use super::{Dynamo, internal, parsed, text};
use crate::template::{ACCOUNT, REGION};

const BOTH: &str = "NEW_AND_OLD_IMAGES";

/// The declared views of the streams, by table. They are stored beside the tables.
#[derive(Debug)]
pub(super) struct Views {
    database: String,
    declared: RwLock<HashMap<String, String>>,
}

#[derive(Debug)]
pub(crate) struct Page {
    /// The records that changed an item.
    pub(crate) records: Vec<Value>,
    /// The sequence number of the last record read, including omitted ones.
    pub(crate) last: Option<String>,
    /// True if more records may follow.
    pub(crate) is_full: bool,
}

impl Views {
    /// Reads the stored views. A stream of an earlier version keeps its view and stores both images
    /// from now on.
    pub(super) fn open(database: &str) -> rusqlite::Result<Self> {
        let connection = rusqlite::Connection::open(database)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS cairn_stream_views (
                 table_name TEXT PRIMARY KEY, view TEXT NOT NULL) WITHOUT ROWID;
             INSERT OR IGNORE INTO cairn_stream_views
                 SELECT table_name, stream_view_type FROM _tables
                 WHERE stream_enabled = 1 AND stream_view_type IS NOT NULL;
             UPDATE _tables SET stream_view_type = 'NEW_AND_OLD_IMAGES' WHERE stream_enabled = 1;",
        )?;
        let mut stored = connection.prepare("SELECT table_name, view FROM cairn_stream_views")?;
        let stored = stored.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let declared = stored.collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            database: database.to_owned(),
            declared: RwLock::new(declared),
        })
    }

    /// Stores the declared view of a request's stream and returns the request for both images.
    pub(super) fn declare(&self, request: &Value) -> rusqlite::Result<Value> {
        let mut request = request.clone();
        let table = request.get("TableName").and_then(Value::as_str);
        let table = table.map(str::to_owned);
        let view = request.pointer_mut("/StreamSpecification/StreamViewType");
        if let (Some(table), Some(Value::String(view))) = (table, view)
            && is_view(view)
        {
            let declared = std::mem::replace(view, BOTH.to_owned());
            self.store(table, declared)?;
        }
        Ok(request)
    }

    fn store(&self, table: String, view: String) -> rusqlite::Result<()> {
        if self.view(&table).as_deref() == Some(view.as_str()) {
            return Ok(());
        }
        rusqlite::Connection::open(&self.database)?.execute(
            "INSERT OR REPLACE INTO cairn_stream_views (table_name, view) VALUES (?1, ?2)",
            [&table, &view],
        )?;
        let mut declared = self
            .declared
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        declared.insert(table, view);
        Ok(())
    }

    fn view(&self, table: &str) -> Option<String> {
        let declared = self.declared.read().unwrap_or_else(PoisonError::into_inner);
        declared.get(table).cloned()
    }

    /// Inserts the configured region and the declared views into an answer about tables or streams.
    pub(super) fn shown(&self, answer: &str) -> Result<String, DynoxideError> {
        let mut answer: Value = serde_json::from_str(&from_dynoxide(answer)).map_err(internal)?;
        for (description, view) in [
            ("/Table", "/StreamSpecification/StreamViewType"),
            ("/TableDescription", "/StreamSpecification/StreamViewType"),
            ("/StreamDescription", "/StreamViewType"),
        ] {
            let Some(description) = answer.pointer_mut(description) else {
                continue;
            };
            let table = description.get("TableName").and_then(Value::as_str);
            let declared = table.and_then(|table| self.view(table));
            if let (Some(declared), Some(view)) = (declared, description.pointer_mut(view)) {
                *view = declared.into();
            }
        }
        text(&answer)
    }
}

impl Dynamo {
    /// Returns the next records of a table's stream after a sequence number, or from its start;
    /// `None` if the stream cannot be read.
    pub(crate) fn records(&self, table: &str, after: Option<&str>, limit: usize) -> Option<Page> {
        if self.is_away() {
            return None;
        }
        let page = self.page(table, after, limit);
        page.inspect_err(|error| drop(self.failed(error))).ok()
    }

    fn page(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Page, DynoxideError> {
        let kind = match after {
            Some(_) => "AFTER_SEQUENCE_NUMBER",
            None => "TRIM_HORIZON",
        };
        let request = GetShardIteratorRequest {
            stream_arn: stream_arn(table, "latest"),
            shard_id: shard_id(table),
            shard_iterator_type: kind.to_owned(),
            sequence_number: after.map(str::to_owned),
        };
        let iterator = self.database.get_shard_iterator(request)?.shard_iterator;
        let read = self.database.get_records(GetRecordsRequest {
            shard_iterator: iterator.unwrap_or_default(),
            limit: Some(limit),
        })?;
        let last = read.records.last();
        let last = last.map(|record| record.dynamodb.sequence_number.clone());
        let is_full = read.records.len() >= limit;
        let view = self.views.view(table);
        let arn = format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}/stream/latest");
        let mut records = Vec::with_capacity(read.records.len());
        for record in read.records {
            let Some(record) = shown(record, view.as_deref()) else {
                continue;
            };
            let mut record = serde_json::to_value(record).map_err(internal)?;
            if let Value::Object(record) = &mut record {
                record.insert("eventSourceARN".to_owned(), arn.as_str().into());
            }
            records.push(record);
        }
        Ok(Page {
            records,
            last,
            is_full,
        })
    }

    pub(super) fn get_records(&self, body: &str) -> Result<String, DynoxideError> {
        let request: GetRecordsRequest = parsed(body)?;
        let table = decode_shard_iterator(&request.shard_iterator).map(|(table, ..)| table);
        let view = table.and_then(|table| self.views.view(&table));
        let read = self.database.get_records(request)?;
        let records: Vec<_> = read
            .records
            .into_iter()
            .filter_map(|record| shown(record, view.as_deref()))
            .collect();
        text(&json!({ "Records": records, "NextShardIterator": read.next_shard_iterator }))
    }
}

/// A record as AWS returns it; `None` if the write changed nothing.
fn shown(mut record: Record, view: Option<&str>) -> Option<Record> {
    let change = &mut record.dynamodb;
    if record.event_name == "MODIFY" && change.new_image == change.old_image {
        return None;
    }
    REGION.clone_into(&mut record.aws_region);
    if let Some(view) = view {
        if matches!(view, "OLD_IMAGE" | "KEYS_ONLY") {
            change.new_image = None;
        }
        if matches!(view, "NEW_IMAGE" | "KEYS_ONLY") {
            change.old_image = None;
        }
        view.clone_into(&mut change.stream_view_type);
    }
    Some(record)
}

fn is_view(view: &str) -> bool {
    matches!(view, BOTH | "NEW_IMAGE" | "OLD_IMAGE" | "KEYS_ONLY")
}

/// Converts the ARNs of a request to dynoxide's region.
pub(super) fn to_dynoxide(request: &str) -> String {
    request.replace(&arns_of(REGION), &arns_of(LOCAL_REGION))
}

/// Converts the ARNs of an answer to the configured region.
fn from_dynoxide(answer: &str) -> String {
    answer.replace(&arns_of(LOCAL_REGION), &arns_of(REGION))
}

fn arns_of(region: impl fmt::Display) -> String {
    format!("arn:aws:dynamodb:{region}:")
}
