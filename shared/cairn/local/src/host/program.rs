//! The program of a function, and the changes of its files.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
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
        let path = self.watched.as_ref()?;
        let mut stamp = Stamp::default();
        stamp.add(path, &fs::metadata(path).ok()?);
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

    /// Adds the files of a path. An unreadable one, such as a link that leads nowhere, is left out.
    fn add(&mut self, path: &Path, metadata: &Metadata) {
        if !metadata.is_dir() {
            self.files += 1;
            self.bytes += metadata.len();
            self.modified = self.modified.max(metadata.modified().ok());
            return;
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            if name.starts_with('.') || UNWATCHED.contains(&name.as_ref()) {
                continue;
            }
            // The link to a folder may lead back to this one.
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if let Ok(metadata) = fs::metadata(&path)
                && !(is_link && metadata.is_dir())
            {
                self.add(&path, &metadata);
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_lead_nowhere_or_back_do_not_hide_a_change() {
        let folder = tempfile::tempdir().unwrap();
        symlink("absent", folder.path().join("dangling")).unwrap();
        symlink(folder.path(), folder.path().join("loop")).unwrap();
        let program = Program {
            command: vec![],
            directory: folder.path().to_owned(),
            watched: Some(folder.path().to_owned()),
        };
        let before = program.stamp().unwrap();
        std::fs::write(folder.path().join("file"), "1").unwrap();
        assert_ne!(program.stamp().unwrap(), before);
    }
}
