//! Generates events/schemas and infra/schemas.yaml from the event types.
//!
//! A version that has a file was shipped and is not overwritten. `--replace OrderPlaced/1`
//! overwrites a version that no stored event uses. `--released` records the versions that this code
//! reads and writes, once it is deployed: only then may the next release write them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer tool"
)]

mod files;

use std::{fs, io, path::Path, process::ExitCode};

use cairn::schema::{Release, same_structure};
use orders::system;
use serde_json::Value;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments == ["--released"] {
        return record_release();
    }
    let replaced: Vec<_> = arguments
        .iter()
        .filter(|name| *name != "--replace")
        .collect();
    let mut refused = false;
    for kind in system().event_types() {
        let version = format!("{}/{}", kind.name, kind.version);
        let is_replaced = replaced.contains(&&version);
        let file = files::schema(&kind.name, kind.version);
        let shipped = files::read(&file);
        let is_changed = |shipped: &Value| !same_structure(shipped, &kind.schema);
        if shipped.as_ref().is_some_and(is_changed) && !is_replaced {
            eprintln!(
                "{version} was shipped with another schema: add a version of {} with an Upcaster",
                kind.name
            );
            refused = true;
            continue;
        }
        if shipped.as_ref() != Some(&kind.schema) {
            write(&file, &kind.schema).unwrap();
            println!("wrote {version}");
        }
        let golden = files::golden(&kind.name, kind.version);
        if is_replaced || !golden.exists() {
            write(&golden, &Value::Array(files::examples(&kind))).unwrap();
            println!("wrote examples of {version}");
        }
    }
    fs::write(files::template(), files::registered()).unwrap();
    if refused {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Records this code as the previous release, unless the recorded one cannot read its events.
fn record_release() -> ExitCode {
    let types = system().event_types();
    let unreadable = files::released().unreadable(&types);
    for found in &unreadable {
        eprintln!("{found}");
    }
    if !unreadable.is_empty() {
        return ExitCode::FAILURE;
    }
    let released = serde_json::to_value(Release::new(&types)).unwrap();
    write(&files::release(), &released).unwrap();
    println!("recorded the release");
    ExitCode::SUCCESS
}

fn write(file: &Path, value: &Value) -> io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    fs::write(file, format!("{value:#}\n"))
}
