//! Incremental exports of the event table, in which `cairn audit` finds the streams that changed.
//!
//! The format is documented at
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html>. An
//! export has a folder with two manifests. Its data files are in the folder `data` beside them, or
//! beside that folder, and are decompressed.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use cairn::{
    StreamId, Timestamp,
    audit::{Scope, Window},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::failure::Failure;

/// The summary manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    table_arn: String,
    output_format: String,
    /// A full export has no window.
    export_from_time: Option<Timestamp>,
    export_to_time: Option<Timestamp>,
}

/// A line of the files manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataFile {
    item_count: u64,
    data_file_s3_key: String,
}

/// A line of a data file: an item that was written, changed or removed.
#[derive(Debug, Deserialize)]
struct Change {
    #[serde(rename = "Keys")]
    keys: Keys,
}

#[derive(Debug, Deserialize)]
struct Keys {
    stream: Text,
}

#[derive(Debug, Deserialize)]
struct Text {
    #[serde(rename = "S")]
    text: StreamId,
}

/// Reads exports of a table. Their windows must follow each other without a gap.
pub(crate) fn changed(folders: &[PathBuf], table: &str) -> Result<Scope, Failure> {
    let mut exports = vec![];
    for folder in folders {
        exports.push((window(folder, table)?, folder));
    }
    exports.sort_by_key(|(window, _)| window.from);
    let mut streams = BTreeSet::new();
    let mut whole: Option<Window> = None;
    for (window, folder) in exports {
        if let Some(before) = whole.filter(|before| window.from > Some(before.to)) {
            return Err(refused(
                folder,
                &format!("no export includes the changes from {}", before.to),
            ));
        }
        read(folder, &mut streams)?;
        whole = Some(match whole {
            Some(before) => Window {
                to: before.to.max(window.to),
                ..before
            },
            None => window,
        });
    }
    let window = whole.ok_or_else(|| Failure::refused("no export was given"))?;
    Ok(Scope::Changed { streams, window })
}

fn window(folder: &Path, table: &str) -> Result<Window, Failure> {
    let path = folder.join("manifest-summary.json");
    let text = fs::read_to_string(&path).map_err(|error| refused(&path, &error))?;
    let summary: Summary = parsed(&path, &text)?;
    if !summary.table_arn.ends_with(&format!(":table/{table}")) {
        let problem = format!("it is an export of {}, not of {table}", summary.table_arn);
        return Err(refused(&path, &problem));
    }
    match (summary.export_from_time, summary.export_to_time) {
        (Some(from), Some(to)) if summary.output_format == "DYNAMODB_JSON" => Ok(Window {
            from: Some(from),
            to,
        }),
        _ => Err(refused(
            &path,
            &"it is not an incremental export in the format DYNAMODB_JSON",
        )),
    }
}

/// Adds the streams of every change in an export. A missing or shortened file is an error.
fn read(folder: &Path, streams: &mut BTreeSet<StreamId>) -> Result<(), Failure> {
    let manifest = folder.join("manifest-files.json");
    let text = fs::read_to_string(&manifest).map_err(|error| refused(&manifest, &error))?;
    for line in text.lines() {
        let file: DataFile = parsed(&manifest, line)?;
        if file.item_count == 0 {
            continue;
        }
        let path = data(folder, &file.data_file_s3_key);
        let lines = File::open(&path).map_err(|error| {
            let problem = format!("{error}; download all data files, and decompress them");
            refused(&path, &problem)
        })?;
        let mut read = 0;
        for line in BufReader::new(lines).lines() {
            let line = line.map_err(|error| refused(&path, &error))?;
            let change: Change = parsed(&path, &line)?;
            streams.insert(change.keys.stream.text);
            read += 1;
        }
        if read != file.item_count {
            let problem = format!("it has {read} of {} items", file.item_count);
            return Err(refused(&path, &problem));
        }
    }
    Ok(())
}

/// Returns the path of a data file, by its name.
fn data(folder: &Path, key: &str) -> PathBuf {
    let name = key.rsplit('/').next().unwrap_or(key);
    let name = Path::new("data").join(name.strip_suffix(".gz").unwrap_or(name));
    let inside = folder.join(&name);
    if inside.exists() {
        return inside;
    }
    folder.join("..").join(name)
}

fn parsed<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, problem: &dyn fmt::Display) -> Failure {
    Failure::refused(format!(
        "cannot use the export {}: {problem}",
        path.display()
    ))
}
