//! The data directory: complete, completed at start, or refused.
//!
//! A first start writes the file `incomplete`, creates the key, the journal and the tables, and
//! renames that file to `format` last. So a directory with `format` has every file that a start
//! needs. A directory with `incomplete` has accepted no data: the next start creates its files
//! again. See docs/decisions/0038.

use std::{
    error::Error,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::{
    dynamo::{self, Dynamo, table_names},
    journal::{self, Journal},
    kms::Kms,
};
use crate::{
    platform::Platform,
    template::{Table, Template},
};

const LOCK: &str = "lock";
const FORMAT: &str = "format";
const INCOMPLETE: &str = "incomplete";
const KEY: &str = "master.key";
const JOURNAL: &str = "journal.sqlite";
const TABLES: &str = "tables.sqlite";
/// The copy of the tables to which the new tables of a changed template are added.
const NEW_TABLES: &str = "tables.sqlite.new";

const FORMAT_N: &str = "cairn-local data directory, format ";
const FORMAT_1: &str = "cairn-local data directory, format 1\n";

const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) journal: Journal,
    pub(crate) dynamo: Dynamo,
    pub(crate) kms: Kms,
}

#[derive(Debug, thiserror::Error)]
#[error("{operation} {} failed: {cause}; {next}", .path.display())]
pub struct DataError {
    operation: &'static str,
    path: PathBuf,
    cause: Cause,
    next: &'static str,
}

type Cause = Box<dyn Error + Send + Sync>;

const RESTORE: &str = "restore it from a backup, or choose another directory with --data";
const WRITER: &str = "run the release that wrote it, or choose another directory with --data";
const ACCESS: &str = "let this user read and write it, or choose another directory with --data";
const FREE: &str = "fix the cause and start again, or choose another directory with --data";

impl DataError {
    fn opening(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self {
            operation: "opening",
            path: path.into(),
            cause: cause.into(),
            next: RESTORE,
        }
    }

    fn making(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self {
            operation: "making",
            path: path.into(),
            cause: cause.into(),
            next: FREE,
        }
    }

    /// Adds the next step for the user.
    fn next(self, next: &'static str) -> Self {
        Self { next, ..self }
    }
}

/// Creates the directory, and locks out other processes while the file is open.
pub(crate) fn lock(directory: &Path) -> Result<File, DataError> {
    if directory.exists() && !directory.is_dir() {
        let error = DataError::opening(directory, "it is not a directory");
        return Err(error.next("choose a directory with --data"));
    }
    fs::create_dir_all(directory).map_err(|error| DataError::making(directory, error))?;
    let path = directory.join(LOCK);
    let file = File::create(&path).map_err(|error| DataError::making(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let error = DataError::opening(directory, "another process uses it");
            Err(error.next("stop that process, or choose another directory with --data"))
        }
        Err(TryLockError::Error(error)) => Err(DataError::making(&path, error)),
    }
}

impl Stores {
    /// Opens the stores, in memory or in a directory, which is completed first.
    pub(crate) fn open(
        directory: Option<&Path>,
        template: &Template,
        platform: &Arc<dyn Platform>,
    ) -> Result<Self, DataError> {
        let Some(directory) = directory else {
            return Self::in_memory(template, platform);
        };
        fs::create_dir_all(directory).map_err(|error| DataError::making(directory, error))?;
        let format = directory.join(FORMAT);
        match read_format(&format)? {
            Some(text) if text == FORMAT_1 => {}
            Some(text) => {
                let text = text.lines().next().unwrap_or_default();
                let cause = format!("this program reads format 1, and the file contains {text:?}");
                let error = DataError::opening(&format, cause);
                return Err(if text.starts_with(FORMAT_N) {
                    error.next(WRITER)
                } else {
                    error
                });
            }
            None if is_unused(directory)? => make(directory, template, platform)?,
            // The previous version wrote no format file.
            None => {
                let stores = Self::in_directory(directory, template, platform)?;
                mark(directory).map_err(|error| DataError::making(&format, error))?;
                return Ok(stores);
            }
        }
        Self::in_directory(directory, template, platform)
    }

    fn in_memory(template: &Template, platform: &Arc<dyn Platform>) -> Result<Self, DataError> {
        let fail = |error: Cause| DataError::making("the tables in memory", error);
        Ok(Self {
            journal: Journal::open(None).map_err(|error| fail(error.into()))?,
            dynamo: Dynamo::open(None, &template.tables).map_err(|error| fail(error.into()))?,
            kms: Kms::new(template.keys.clone(), platform.clone()),
        })
    }

    fn in_directory(
        directory: &Path,
        template: &Template,
        platform: &Arc<dyn Platform>,
    ) -> Result<Self, DataError> {
        let [key, journal, tables] = [KEY, JOURNAL, TABLES].map(|name| directory.join(name));
        let no_key = "it is missing, and no personal data can be decrypted without it";
        require(&key, no_key)?;
        require(&journal, "it is missing, but tables exist")?;
        require(&tables, "it is missing, but a journal exists")?;
        let kms = Kms::open(&key, template.keys.clone(), platform.clone())
            .map_err(|error| DataError::opening(&key, error))?;
        check(&journal)?;
        check(&tables)?;
        add_tables(directory, &template.tables)?;
        Ok(Self {
            journal: Journal::open(Some(&journal)).map_err(|error| {
                let next = match error {
                    journal::OpenError::Newer { .. } => WRITER,
                    journal::OpenError::Database(_) => RESTORE,
                };
                DataError::opening(&journal, error).next(next)
            })?,
            dynamo: Dynamo::open(Some(&tables), &template.tables).map_err(|error| {
                let next = match error {
                    dynamo::OpenError::OtherTables(_) => WRITER,
                    dynamo::OpenError::Database(_) => RESTORE,
                };
                DataError::opening(&tables, error).next(next)
            })?,
            kms,
        })
    }
}

/// The text of a file; `None` if the file does not exist.
fn read_format(path: &Path) -> Result<Option<String>, DataError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataError::opening(path, error)),
    }
}

/// True if a directory without `format` has accepted no data yet.
fn is_unused(directory: &Path) -> Result<bool, DataError> {
    if directory.join(INCOMPLETE).exists() {
        return Ok(true);
    }
    for name in [JOURNAL, TABLES] {
        let path = directory.join(name);
        if has_rows(&path).map_err(|error| DataError::opening(&path, error))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True if any table has a row, except dynoxide's own descriptions of tables.
fn has_rows(path: &Path) -> rusqlite::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut tables = database.prepare(
        "SELECT name FROM sqlite_master WHERE type = 'table'
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT IN ('_config', '_tables')",
    )?;
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for table in tables {
        let sql = format!("SELECT 1 FROM \"{}\" LIMIT 1", table.replace('"', "\"\""));
        let row: Option<i64> = database.query_row(&sql, [], |row| row.get(0)).optional()?;
        if row.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Creates every file that a start needs, and the format file last.
fn make(
    directory: &Path,
    template: &Template,
    platform: &Arc<dyn Platform>,
) -> Result<(), DataError> {
    let incomplete = directory.join(INCOMPLETE);
    write_synced(&incomplete, FORMAT_1)
        .and_then(|()| sync_directory(directory))
        .map_err(|error| DataError::making(&incomplete, error))?;
    let [key, journal, tables] = [KEY, JOURNAL, TABLES].map(|name| directory.join(name));
    for file in [&key, &journal, &tables] {
        remove(file).map_err(|error| DataError::making(file, error))?;
    }
    // Close it: SQLite then writes the whole database to its file.
    Journal::open(Some(&journal)).map_err(|error| DataError::making(&journal, error))?;
    Dynamo::open(Some(&tables), &template.tables)
        .map_err(|error| DataError::making(&tables, error))?;
    Kms::make(&key, platform.as_ref()).map_err(|error| DataError::making(&key, error))?;
    for file in [&key, &journal, &tables] {
        sync(file).map_err(|error| DataError::making(file, error))?;
    }
    let format = directory.join(FORMAT);
    sync_directory(directory)
        .and_then(|()| fs::rename(&incomplete, &format))
        .and_then(|()| sync_directory(directory))
        .map_err(|error| DataError::making(&format, error))
}

/// Marks a directory of an earlier version as complete.
fn mark(directory: &Path) -> io::Result<()> {
    let new = directory.join("format.new");
    write_synced(&new, FORMAT_1)?;
    fs::rename(&new, directory.join(FORMAT))?;
    sync_directory(directory)
}

/// Adds the new tables of a changed template to a copy, which then replaces the original. A table
/// that is created in place first lacks its stream, and an interrupted start would leave it so.
fn add_tables(directory: &Path, tables: &[Table]) -> Result<(), DataError> {
    let [original, copy] = [TABLES, NEW_TABLES].map(|name| directory.join(name));
    let fail_to_make = |error: Cause| DataError::making(&copy, error);
    remove(&copy).map_err(|error| fail_to_make(error.into()))?;
    let fail_to_open = |error: Cause| DataError::opening(&original, error);
    let known = table_names(&original).map_err(|error| fail_to_open(error.into()))?;
    if tables.iter().all(|table| known.contains(&table.name)) {
        return Ok(());
    }
    merge_log(&original).map_err(fail_to_open)?;
    fs::copy(&original, &copy).map_err(|error| fail_to_make(error.into()))?;
    Dynamo::open(Some(&copy), tables).map_err(|error| match error {
        dynamo::OpenError::OtherTables(_) => fail_to_open(error.into()).next(WRITER),
        dynamo::OpenError::Database(_) => fail_to_make(error.into()),
    })?;
    merge_log(&copy).map_err(fail_to_make)?;
    sync(&copy)
        .and_then(|()| fs::rename(&copy, &original))
        .and_then(|()| sync_directory(directory))
        .map_err(|error| fail_to_make(error.into()))
}

/// Merges the write-ahead log into the database file.
fn merge_log(path: &Path) -> Result<(), Cause> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode: String = database.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    if mode == "delete" {
        Ok(())
    } else {
        Err(format!("its log cannot be merged: the journal mode is {mode}").into())
    }
}

fn require(path: &Path, missing: &'static str) -> Result<(), DataError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let length = opened.and_then(|file| Ok(file.metadata()?.len()));
    match length {
        Ok(0) => Err(DataError::opening(path, "it is empty")),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DataError::opening(path, missing))
        }
        Err(error) => Err(DataError::opening(path, error).next(ACCESS)),
    }
}

/// Reads a whole database and checks that it is consistent and writable.
fn check(path: &Path) -> Result<(), DataError> {
    let checked = || -> rusqlite::Result<String> {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let verdict = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        database.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
        Ok(verdict)
    };
    match checked() {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => {
            let verdict = verdict.replace('\n', " ");
            let cause = format!("the database is damaged: {verdict}");
            Err(DataError::opening(path, cause))
        }
        Err(error) => {
            let next = match error.sqlite_error_code() {
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => ACCESS,
                _ => RESTORE,
            };
            Err(DataError::opening(path, error).next(next))
        }
    }
}

/// Removes a file, and the files that `SQLite` keeps beside it, if they exist.
fn remove(path: &Path) -> io::Result<()> {
    let companions = COMPANIONS.map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    });
    for file in companions.iter().map(PathBuf::as_path).chain([path]) {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.sync_all()
}

/// Makes the file names of a directory survive a power cut.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Windows stores file names durably by itself.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
