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

use dynoxide::{DynoxideError, actions::get_records::Record, streams::LOCAL_REGION};
use serde::Serialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::json::{internal, text};
use crate::names::REGION;

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
    pub(crate) records: Vec<StreamRecord>,
    /// The sequence number of the last record read, including omitted ones.
    pub(crate) last: Option<String>,
    /// The number of records read, including omitted ones.
    pub(crate) read: usize,
    /// True if more records may follow.
    pub(crate) is_full: bool,
}

/// A record as Lambda delivers it, in JSON.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct StreamRecord {
    json: Box<RawValue>,
    #[serde(skip)]
    pub(crate) sequence: String,
}

impl StreamRecord {
    /// Converts a record of the stream with this ARN.
    pub(super) fn new(record: Record, stream: &str) -> Result<Self, DynoxideError> {
        #[derive(Serialize)]
        struct Delivered<'a> {
            #[serde(flatten)]
            record: &'a Record,
            #[serde(rename = "eventSourceARN")]
            stream: &'a str,
        }
        let delivered = Delivered {
            record: &record,
            stream,
        };
        Ok(Self {
            json: to_raw_value(&delivered).map_err(internal)?,
            sequence: record.dynamodb.sequence_number,
        })
    }
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

    pub(super) fn view(&self, table: &str) -> Option<String> {
        let declared = self.declared.read().unwrap_or_else(PoisonError::into_inner);
        declared.get(table).cloned()
    }

    /// Inserts the configured region and the declared views into an answer about tables or streams.
    pub(super) fn to_aws(&self, answer: &str) -> Result<String, DynoxideError> {
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

/// A record as AWS returns it; `None` if the write changed nothing.
pub(super) fn aws_record(mut record: Record, view: Option<&str>) -> Option<Record> {
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
