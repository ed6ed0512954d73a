//! Redrives dead letters, each to the function that failed to handle it, or deletes them with a
//! reason.

pub use cairn_aws::functions::redrive as function;
