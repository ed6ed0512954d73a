//! Template errors, with file and line.

use std::fmt;

use crate::yaml::LineError;

/// The file name of a template that is given as a text.
pub(super) const DEFAULT_FILE: &str = "template.yaml";

/// An error in a template, with its file and, if known, its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// `None` until the file is known.
    file: Option<String>,
    line: Option<usize>,
    problem: String,
}

impl TemplateError {
    pub(crate) fn new(line: usize, problem: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            ..Self::of_all(problem)
        }
    }

    pub(super) fn at(LineError { line, problem }: LineError) -> Self {
        Self::new(line, problem)
    }

    pub(super) fn of_all(problem: impl Into<String>) -> Self {
        Self {
            file: None,
            line: None,
            problem: problem.into(),
        }
    }

    /// Sets the file, unless the error already has one.
    pub(super) fn within(mut self, file: &str) -> Self {
        self.file.get_or_insert_with(|| file.to_owned());
        self
    }
}

impl std::error::Error for TemplateError {}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file.as_deref().unwrap_or(DEFAULT_FILE))?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}
