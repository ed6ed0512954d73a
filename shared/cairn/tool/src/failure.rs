//! The end of a command, and its exit status.

use std::{fmt, io};

use cairn::store::StoreError;
use cairn_aws::{dynamodb::TableError, lambda::ConfigError};

/// The result of a command that was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Exit status 0.
    Well,
    /// Exit status 1: the command succeeded and found problems.
    Wrong,
    /// Exit status 2: the command found no problem, and could not check everything.
    Unknown,
}

impl Verdict {
    pub(crate) fn unless(is_wrong: bool) -> Self {
        if is_wrong { Self::Wrong } else { Self::Well }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(problem) | Self::Refused(problem) => f.write_str(problem),
            Self::Output => f.write_str("stdout is closed"),
        }
    }
}

/// The reason for which a command was not executed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit status 1: the system rejected the command.
    Found(String),
    /// Exit status 2: usage error, or the system is unreachable.
    Refused(String),
    /// The reader closed stdout.
    Output,
}

impl Failure {
    pub(crate) fn found(problem: impl fmt::Display) -> Self {
        Self::Found(problem.to_string())
    }

    pub(crate) fn refused(problem: impl fmt::Display) -> Self {
        Self::Refused(problem.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Output,
            _ => Self::refused(error),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::refused(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Self::refused(error)
        } else {
            Self::found(error)
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        if error.is_transient() {
            Self::refused(error)
        } else {
            Self::found(error)
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            return io::Error::from(error).into();
        }
        Self::found(error)
    }
}
