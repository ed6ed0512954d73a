//! The program of a function, and the changes of its files.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The program of a function, which each of its execution environments starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The folder of the code, in which the program starts.
    pub directory: PathBuf,
    /// The file or folder whose change makes the next invocation start the program again.
    pub watched: Option<PathBuf>,
}

/// The state of a program's files. It changes with each build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    files: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// The age of a change at which a file counts as complete.
const SETTLED: Duration = Duration::from_millis(200);
/// Folders whose files no build of the function writes.
const UNWATCHED: [&str; 3] = ["node_modules", "target", "__pycache__"];

impl Program {
    /// Returns the state of the files to watch; `None` if there are none.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let mut stamp = Stamp::default();
        add(self.watched.as_ref()?, &mut stamp).ok()?;
        Some(stamp)
    }
}

impl Stamp {
    /// False while a build may still write the files.
    pub(super) fn is_settled(&self) -> bool {
        let age = self.modified.and_then(|modified| modified.elapsed().ok());
        // A time in the future has no age.
        age.is_none_or(|age| age >= SETTLED)
    }
}

fn add(path: &Path, stamp: &mut Stamp) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with('.') && !UNWATCHED.contains(&name.as_ref()) {
                add(&entry.path(), stamp)?;
            }
        }
        return Ok(());
    }
    stamp.files += 1;
    stamp.bytes += metadata.len();
    stamp.modified = stamp.modified.max(Some(metadata.modified()?));
    Ok(())
}
