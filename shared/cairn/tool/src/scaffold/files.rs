//! The new and changed files of a part, which are written together at the end.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{AddError, edit::EditError};

pub(super) struct Files<'a> {
    root: &'a Path,
    texts: BTreeMap<PathBuf, String>,
}

impl<'a> Files<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self {
            root,
            texts: BTreeMap::new(),
        }
    }

    pub(super) fn create(&mut self, file: PathBuf, text: String) -> Result<(), AddError> {
        if self.root.join(&file).exists() {
            return Err(AddError::Exists(file));
        }
        self.texts.insert(file, text);
        Ok(())
    }

    pub(super) fn edit(
        &mut self,
        file: impl Into<PathBuf>,
        change: impl FnOnce(&str) -> Result<String, EditError>,
    ) -> Result<(), AddError> {
        let file = file.into();
        let text = match self.texts.remove(&file) {
            Some(text) => text,
            None => fs::read_to_string(self.root.join(&file)).map_err(|source| AddError::File {
                file: file.clone(),
                source,
            })?,
        };
        let text = change(&text).map_err(|source| AddError::Edit {
            file: file.clone(),
            source,
        })?;
        self.texts.insert(file, text);
        Ok(())
    }

    /// Edits a file that not every project has.
    pub(super) fn edit_if_present(
        &mut self,
        file: &str,
        change: impl FnOnce(&str) -> Result<String, EditError>,
    ) -> Result<(), AddError> {
        if self.root.join(file).exists() {
            self.edit(file, change)
        } else {
            Ok(())
        }
    }

    /// Formats the Rust files, and writes all files or none.
    pub(super) fn write(mut self) -> Result<Vec<PathBuf>, AddError> {
        for (file, text) in &mut self.texts {
            if file.extension().is_some_and(|extension| extension == "rs") {
                *text = formatted(text).map_err(|source| AddError::Format {
                    file: file.clone(),
                    source,
                })?;
            }
        }
        let mut before = vec![];
        for (file, text) in &self.texts {
            let path = self.root.join(file);
            before.push((path.clone(), fs::read(&path).ok()));
            let written = path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(&path, text));
            if let Err(source) = written {
                before.into_iter().for_each(restore);
                let file = file.clone();
                return Err(AddError::File { file, source });
            }
        }
        Ok(self.texts.into_keys().collect())
    }
}

/// Restores a file, or deletes a new one with its new folders. The error of the write is reported,
/// and not one of this function.
fn restore((path, before): (PathBuf, Option<Vec<u8>>)) {
    if let Some(text) = before {
        let _ = fs::write(path, text);
    } else {
        let _ = fs::remove_file(&path);
        let mut folders = path.ancestors().skip(1);
        // A folder with other files is not removed.
        while folders
            .next()
            .is_some_and(|folder| fs::remove_dir(folder).is_ok())
        {}
    }
}

/// Formats one file, without the modules that it declares.
fn formatted(text: &str) -> io::Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = rustfmt.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let output = rustfmt.wait_with_output()?;
    if output.status.success() {
        String::from_utf8(output.stdout).map_err(io::Error::other)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr)))
    }
}
