//! Causes of errors.

/// The cause of an error, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
