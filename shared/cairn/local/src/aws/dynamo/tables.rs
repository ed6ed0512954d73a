//! The tables and the operations on them.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use dynoxide::{
    Database, DynoxideError,
    actions::{
        get_records::GetRecordsRequest,
        get_shard_iterator::{GetShardIteratorRequest, decode_shard_iterator},
    },
    streams::{shard_id, stream_arn},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    capacity::{self, Charged},
    json::{internal, parsed, plain, run, text},
    pages::page,
    refusals::refused,
    retention::{Consumer, Handled},
    streams::{self, Page, StreamRecord, Views, aws_record},
};
use crate::{
    aws::{call::Answer, meter::Units},
    names,
    template::Table,
};

pub struct Dynamo {
    database: Database,
    /// The streams of the template's tables.
    streams: Vec<Stream>,
    views: Views,
    away: AtomicBool,
    /// Held by each call. Held alone while a second connection writes: a call would otherwise find
    /// the database locked.
    calls: RwLock<()>,
    /// The database file, for the log.
    file: String,
    faults: AtomicU64,
}

/// The `DynamoDB` Stream of a table.
struct Stream {
    table: String,
    /// The number of writes, in one counter per subscriber: subscribers wake in the order of their
    /// subscription, not in a random order of the runtime.
    counters: Mutex<Vec<watch::Sender<u64>>>,
    /// The last page that was read. The stream's other readers need the same one.
    latest: Mutex<Option<(Read, Arc<Page>)>>,
}

/// A read of a stream. It has one result, if it began after this number of writes.
#[derive(PartialEq, Eq)]
struct Read {
    writes: u64,
    after: Option<String>,
    limit: usize,
}

impl Stream {
    fn new(table: &Table) -> Self {
        Self {
            table: table.name.clone(),
            counters: Mutex::default(),
            latest: Mutex::default(),
        }
    }

    fn counters(&self) -> MutexGuard<'_, Vec<watch::Sender<u64>>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writes(&self) -> u64 {
        self.counters().first().map_or(0, |first| *first.borrow())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Database(String),
    /// Another release or template has made the tables.
    #[error("{0}")]
    OtherTables(String),
}

/// The beginning of dynoxide's error for a file of its later versions.
const NEWER: &str = "this database was written by a newer version of Dynoxide";

/// The error code for a damaged or read-only database file. `DynamoDB` has no such error, and
/// clients do not retry it: the call cannot succeed before the file is restored.
const DAMAGED: &str = "DatabaseDamaged";

impl Dynamo {
    /// Opens the tables, in a file or in memory, and creates missing ones.
    pub fn open(file: Option<&Path>, tables: &[Table]) -> Result<Self, OpenError> {
        let fail = |error: &dyn fmt::Display| OpenError::Database(error.to_string());
        let name = match file {
            Some(file) => file.display().to_string(),
            None => format!("file:/cairn-{}?vfs=memdb", uuid::Uuid::new_v4()),
        };
        let database = Database::new(&name).map_err(|error| match error.to_string() {
            newer if newer.starts_with(NEWER) => OpenError::OtherTables(newer),
            other => OpenError::Database(other),
        })?;
        // With syncs at checkpoints only, a killed process loses nothing; a power cut may lose the
        // last writes. In memory, a larger page cache saves copies.
        let prepared = match file {
            Some(_) => database.disable_bulk_loading(),
            None => database.enable_bulk_loading(),
        };
        prepared.map_err(|error| fail(&error))?;
        let views = Views::open(&name).map_err(|error| fail(&error))?;
        let known = run("{}", |request| database.list_tables(request));
        let known = known.map_err(|error| fail(&error))?;
        let known: Value = serde_json::from_str(&known).map_err(|error| fail(&error))?;
        let known = known.get("TableNames").and_then(Value::as_array);
        for table in tables {
            if known.is_some_and(|names| names.iter().any(|name| *name == *table.name)) {
                let request = json!({ "TableName": table.name }).to_string();
                let described = run(&request, |request| database.describe_table(request));
                let described = described.and_then(|described| views.to_aws(&described));
                let described = described.map_err(|error| fail(&error))?;
                let described = serde_json::from_str(&described).map_err(|error| fail(&error))?;
                if let Some(part) = difference(&table.create, &described) {
                    let name = &table.name;
                    let problem =
                        format!("the table {name} in it has another {part} than the template");
                    return Err(OpenError::OtherTables(problem));
                }
                // The template can declare another view: every record has both images.
                views.declare(&table.create).map_err(|error| fail(&error))?;
                continue;
            }
            let create = views.declare(&table.create).map_err(|error| fail(&error))?;
            run(&create.to_string(), |request| {
                database.create_table(request)
            })
            .map_err(|error| fail(&error))?;
        }
        add_indexes(&name, tables).map_err(|error| fail(&error))?;
        let streams = tables
            .iter()
            .filter(|table| table.has_stream())
            .map(Stream::new)
            .collect();
        Ok(Self {
            database,
            streams,
            views,
            away: AtomicBool::new(false),
            calls: RwLock::default(),
            file: name,
            faults: AtomicU64::default(),
        })
    }

    /// The number of calls that failed because of disk space or an I/O error: see
    /// [`Journal::faults`].
    ///
    /// [`Journal::faults`]: crate::aws::journal::Journal::faults
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Subscribes to the number of writes to a table; `None` without a `DynamoDB` Stream.
    pub fn writes(&self, table: &str) -> Option<watch::Receiver<u64>> {
        let stream = self.stream(table)?;
        let counter = watch::Sender::new(stream.writes());
        let writes = counter.subscribe();
        stream.counters().push(counter);
        Some(writes)
    }

    fn stream(&self, table: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.table == table)
    }

    /// Makes the service unavailable, or available again.
    pub fn interrupt(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    pub fn call(&self, operation: &str, body: &str) -> Answer {
        self.metered(operation, body, false).0
    }

    /// Answers a call, and returns its capacity units if `weighs` is set.
    pub(crate) fn metered(&self, operation: &str, body: &str, weighs: bool) -> (Answer, Units) {
        let none = Units::default();
        if self.is_away() {
            let message = "the service is not available";
            return (Answer::error(503, "ServiceUnavailable", message), none);
        }
        let _call = self.calls.read().unwrap_or_else(PoisonError::into_inner);
        match self.dispatch(operation, body, weighs) {
            None => (Answer::unavailable("dynamodb", operation), none),
            Some(Ok((body, units))) => (Answer { status: 200, body }, units),
            Some(Err(error)) => {
                let refused = if weighs {
                    refused(&self.database, body, &error)
                } else {
                    0.0
                };
                let units = Units {
                    write: refused,
                    refused,
                    ..none
                };
                (self.failed(&error), units)
            }
        }
    }

    fn failed(&self, error: &DynoxideError) -> Answer {
        match fault(error) {
            None => {}
            Some(FileFault::Transient) => {
                self.faults.fetch_add(1, Ordering::Relaxed);
                let file = &self.file;
                tracing::error!(file, %error, "database temporarily unavailable");
            }
            Some(FileFault::Damaged) => {
                let file = &self.file;
                tracing::error!(file, %error, "the database is damaged");
                return Answer::error(400, DAMAGED, &format!("{file}: {error}"));
            }
        }
        Answer {
            status: error.status_code(),
            body: error.to_json(),
        }
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Returns the items of a table as plain JSON, without type tags.
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

    /// Wakes the readers of the streams with these indices.
    fn note_writes(&self, written: &[usize]) {
        for stream in written.iter().filter_map(|at| self.streams.get(*at)) {
            for counter in stream.counters().iter() {
                counter.send_modify(|writes| *writes += 1);
            }
        }
    }

    /// Returns the answer and its capacity units; `None` for an operation that is not available.
    fn dispatch(
        &self,
        operation: &str,
        body: &str,
        weighs: bool,
    ) -> Option<Result<(String, Units), DynoxideError>> {
        let db = &self.database;
        Some(match operation {
            "PutItem" => self.charged(body, weighs, |request| db.put_item(request)),
            "GetItem" => self.charged(body, weighs, |request| db.get_item(request)),
            "DeleteItem" => self.charged(body, weighs, |request| db.delete_item(request)),
            "UpdateItem" => self.charged(body, weighs, |request| db.update_item(request)),
            "BatchGetItem" => self.charged(body, weighs, |request| db.batch_get_item(request)),
            "BatchWriteItem" => self.charged(body, weighs, |request| db.batch_write_item(request)),
            "Query" => self.charged(body, weighs, |request| {
                page(body, request, |request| db.query(request))
            }),
            "Scan" => self.charged(body, weighs, |request| {
                page(body, request, |request| db.scan(request))
            }),
            "TransactWriteItems" => {
                self.charged(body, weighs, |request| db.transact_write_items(request))
            }
            "TransactGetItems" => {
                self.charged(body, weighs, |request| db.transact_get_items(request))
            }
            "ExecuteStatement" => {
                self.charged(body, weighs, |request| db.execute_statement(request))
            }
            "ExecuteTransaction" => {
                self.charged(body, weighs, |request| db.execute_transaction(request))
            }
            "BatchExecuteStatement" => {
                self.charged(body, weighs, |request| db.batch_execute_statement(request))
            }
            _ => {
                return self
                    .manage(operation, body)
                    .map(|answer| Ok((answer?, Units::default())));
            }
        })
    }

    /// Executes a call that reads or writes items.
    fn charged<Q: Charged + DeserializeOwned>(
        &self,
        body: &str,
        weighs: bool,
        run: impl FnOnce(Q) -> dynoxide::errors::Result<Q::Response>,
    ) -> Result<(String, Units), DynoxideError> {
        let mut request: Q = parsed(body)?;
        let asked = capacity::weigh(&mut request, weighs);
        let named = |(at, stream): (usize, &Stream)| request.may_write(&stream.table).then_some(at);
        let written: Vec<usize> = self.streams.iter().enumerate().filter_map(named).collect();
        let answer = run(request);
        // A failed batch may have written some of its items.
        if answer.is_ok() || Q::IN_PARTS {
            self.note_writes(&written);
        }
        let mut answer = answer?;
        let units = Q::units(&answer);
        if !asked {
            Q::forget_units(&mut answer);
        }
        Ok((text(&answer)?, units))
    }

    /// Returns the next records of a table's stream after a sequence number, or from its start;
    /// `None` if the stream cannot be read.
    pub(crate) fn records(
        &self,
        table: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Option<Arc<Page>> {
        if self.is_away() {
            return None;
        }
        let stream = self.stream(table)?;
        let mut latest = stream.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Read {
            writes: stream.writes(),
            after: after.map(str::to_owned),
            limit,
        };
        if let Some((latest, page)) = &*latest
            && *latest == read
        {
            return Some(page.clone());
        }
        let _call = self.calls.read().unwrap_or_else(PoisonError::into_inner);
        let page = self.page(table, after, limit);
        let page = page.inspect_err(|error| drop(self.failed(error))).ok();
        let page = Arc::new(page?);
        *latest = Some((read, page.clone()));
        Some(page)
    }

    fn page(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Page, DynoxideError> {
        let read = self.database.get_records(GetRecordsRequest {
            shard_iterator: self.iterator(table, after)?,
            limit: Some(limit),
        })?;
        let last = read.records.last();
        let last = last.map(|record| record.dynamodb.sequence_number.clone());
        let count = read.records.len();
        let view = self.views.view(table);
        let arn = names::stream_arn(table);
        let mut records = Vec::with_capacity(read.records.len());
        for record in read.records {
            if let Some(record) = aws_record(record, view.as_deref()) {
                records.push(StreamRecord::new(record, &arn)?);
            }
        }
        Ok(Page {
            records,
            last,
            read: count,
            is_full: count >= limit,
        })
    }

    fn iterator(&self, table: &str, after: Option<&str>) -> Result<String, DynoxideError> {
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
        Ok(iterator.unwrap_or_default())
    }

    /// Removes records of a table's stream that none of these consumers needs, oldest first. A
    /// failure is logged: the next call removes them.
    pub(crate) fn trim(&self, table: &str, consumers: &[Consumer]) {
        let _alone = self.calls.write().unwrap_or_else(PoisonError::into_inner);
        let stored = |sequence: &str| {
            let iterator = decode_shard_iterator(&self.iterator(table, Some(sequence))?);
            let position = iterator.map(|(_, _, position)| position);
            position.ok_or_else(|| internal("a shard iterator has no position"))
        };
        let handled = Handled::by(consumers, stored);
        match handled.and_then(|handled| Ok(handled.remove(&self.file, table)?)) {
            Ok(removed) => tracing::debug!(table, removed, "stream records removed"),
            Err(error) => tracing::warn!(table, %error, "stream records not removed"),
        }
    }

    fn get_records(&self, body: &str) -> Result<String, DynoxideError> {
        let request: GetRecordsRequest = parsed(body)?;
        let table = decode_shard_iterator(&request.shard_iterator).map(|(table, ..)| table);
        let view = table.and_then(|table| self.views.view(&table));
        let read = self.database.get_records(request)?;
        let records: Vec<_> = read
            .records
            .into_iter()
            .filter_map(|record| aws_record(record, view.as_deref()))
            .collect();
        text(&json!({ "Records": records, "NextShardIterator": read.next_shard_iterator }))
    }

    /// Executes a call about tables or their streams.
    fn manage(&self, operation: &str, body: &str) -> Option<Result<String, DynoxideError>> {
        let db = &self.database;
        let body = streams::to_dynoxide(body);
        let body = body.as_str();
        let declared = || {
            let declared = self.views.declare(&parsed(body)?).map_err(internal)?;
            Ok::<_, DynoxideError>(declared.to_string())
        };
        let answer = match operation {
            "CreateTable" => {
                declared().and_then(|body| run(&body, |request| db.create_table(request)))
            }
            "UpdateTable" => {
                declared().and_then(|body| run(&body, |request| db.update_table(request)))
            }
            "DeleteTable" => run(body, |request| db.delete_table(request)),
            "DescribeTable" => run(body, |request| db.describe_table(request)),
            "ListTables" => run(body, |request| db.list_tables(request)),
            "ListStreams" => run(body, |request| db.list_streams(request)),
            "DescribeStream" => run(body, |request| db.describe_stream(request)),
            "GetShardIterator" => run(body, |request| db.get_shard_iterator(request)),
            "GetRecords" => return Some(self.get_records(body)),
            _ => return None,
        };
        Some(answer.and_then(|answer| self.views.to_aws(&answer)))
    }
}

impl fmt::Debug for Dynamo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamo").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileFault {
    /// The disk is full, has an I/O error, or another process has locked the file.
    Transient,
    /// The file is damaged, missing or read-only until an operator restores it.
    Damaged,
}

/// Classifies an error as a fault of the file; `None` for an answer of `DynamoDB`.
fn fault(error: &DynoxideError) -> Option<FileFault> {
    // dynoxide keeps SQLite's text and drops its code in errors that cross its storage interface.
    const TRANSIENT: [&str; 4] = [
        "database or disk is full",
        "I/O error",
        "locked",
        "interrupted",
    ];
    let text = match error {
        DynoxideError::InternalServerError(text) => text.clone(),
        DynoxideError::SqliteError(error) => error.to_string(),
        _ => return None,
    };
    let is_transient = TRANSIENT.iter().any(|part| text.contains(part));
    Some(if is_transient {
        FileFault::Transient
    } else {
        FileFault::Damaged
    })
}

pub(crate) fn table_names(file: &Path) -> rusqlite::Result<Vec<String>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let database = rusqlite::Connection::open_with_flags(file, flags)?;
    let mut names = database.prepare("SELECT table_name FROM _tables")?;
    let names = names.query_map([], |row| row.get(0))?;
    names.collect()
}

/// Returns the part of a table that differs from its template; `None` if it is the same. A table
/// whose creation was interrupted lacks its stream, so that no function receives its writes.
fn difference(create: &Value, described: &Value) -> Option<&'static str> {
    let described = described.get("Table").unwrap_or(&Value::Null);
    let has_stream = |table: &Value| {
        table
            .pointer("/StreamSpecification/StreamViewType")
            .is_some()
    };
    let indexes = |table: &Value| {
        let indexes = table
            .get("GlobalSecondaryIndexes")
            .and_then(Value::as_array);
        let mut indexes: Vec<_> = indexes
            .into_iter()
            .flatten()
            .map(|index| {
                let part = |name| index.get(name).map(Value::to_string);
                (part("IndexName"), part("KeySchema"))
            })
            .collect();
        indexes.sort();
        indexes
    };
    if create.get("KeySchema") != described.get("KeySchema") {
        return Some("key");
    }
    if has_stream(create) != has_stream(described) {
        return Some("stream");
    }
    (indexes(create) != indexes(described)).then_some("index")
}

/// Adds the indexes that dynoxide lacks.
///
/// - It finds the last and the next records of a stream by reading all of them.
/// - It sorts the whole table for each page of a parallel scan.
///
/// The measurements are in docs/decisions/0003.
fn add_indexes(name: &str, tables: &[Table]) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(name)?;
    connection.execute_batch(
        "CREATE INDEX IF NOT EXISTS cairn_stream_order
         ON _stream_records (table_name, CAST(sequence_number AS INTEGER))",
    )?;
    for table in tables {
        let table = table.name.replace('"', "\"\"");
        connection.execute_batch(&format!(
            "CREATE INDEX IF NOT EXISTS \"cairn_scan_order_{table}\"
             ON \"{table}\" (hash_prefix, pk, sk)"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dynoxide::{
        storage::ScanParams,
        storage_backend::sql_builders::{SqlParam, scan_items},
    };

    use super::*;
    use crate::aws::dynamo::with_a_table;

    /// Scans a table of items with this many bytes, and returns the number of items in each page.
    fn pages(items: usize, bytes: usize) -> Vec<u64> {
        let dynamo = with_a_table();
        for n in 0..items {
            let text = "x".repeat(bytes - "k00000text".len());
            let item = json!({ "k": { "S": format!("{n:05}") }, "text": { "S": text } });
            let put = json!({ "TableName": "Table", "Item": item }).to_string();
            assert_eq!(dynamo.call("PutItem", &put).status, 200);
        }
        let (mut pages, mut scan) = (vec![], json!({ "TableName": "Table" }));
        loop {
            let page = dynamo.call("Scan", &scan.to_string()).body;
            let page: Value = serde_json::from_str(&page).unwrap();
            pages.push(page["Count"].as_u64().unwrap());
            match page.get("LastEvaluatedKey") {
                Some(key) => scan["ExclusiveStartKey"] = key.clone(),
                None => return pages,
            }
        }
    }

    #[test]
    fn a_page_without_a_limit_ends_at_1_mb_or_with_the_table() {
        assert_eq!(pages(2_100, 20), [2_100]);
        assert_eq!(pages(2_048, 20), [2_048]);
        assert_eq!(pages(2_500, 512), [2_048, 452]);
    }

    #[test]
    fn a_page_of_a_parallel_scan_needs_no_sorting() {
        let dynamo = with_a_table();
        let (sql, parameters) = scan_items(
            "Table",
            &ScanParams {
                exclusive_start_pk: Some("S:a"),
                exclusive_start_sk: Some(""),
                segment: Some(1),
                total_segments: Some(8),
                ..ScanParams::default()
            },
        );
        let connection = rusqlite::Connection::open(&dynamo.file).unwrap();
        let mut plan = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let texts = parameters.iter().map(|parameter| match parameter {
            SqlParam::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        });
        let plan = plan.query_map(rusqlite::params_from_iter(texts), |row| row.get(3));
        let plan: Vec<String> = plan.unwrap().collect::<Result<_, _>>().unwrap();
        assert!(
            plan.iter()
                .any(|step| step.contains("cairn_scan_order_Table")),
            "{plan:?}"
        );
        assert!(
            !plan.iter().any(|step| step.contains("TEMP B-TREE")),
            "{plan:?}"
        );
    }
}
