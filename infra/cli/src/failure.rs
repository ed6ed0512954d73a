//! How a command ends, and the status that says so.

use std::{fmt, io};

use cairn::{lambda::ConfigError, store::StoreError};

/// How a command ended that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Status 0.
    Well,
    /// Status 1: what was asked for was done, and it shows that something is wrong.
    Wrong,
}

impl Verdict {
    /// Well, if nothing is wrong.
    pub(crate) fn unless(is_wrong: bool) -> Self {
        if is_wrong { Self::Wrong } else { Self::Well }
    }
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Status 1: the system says no.
    Found(String),
    /// Status 2: called wrongly, or the system cannot be reached.
    Refused(String),
    /// The output is gone. Who closed it knows.
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

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            return io::Error::from(error).into();
        }
        Self::found(error)
    }
}
