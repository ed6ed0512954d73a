//! Keeps the deadlines of orders: reads the event table's stream, not the bus.

use cairn::lambda::{ConfigError, Environment, Function, stream};
use orders::deadlines::mark;

/// The function. It needs `DEADLINES_TABLE`, `STEP_PATIENCE_SECONDS` and `STREAM_FAILURES_QUEUE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let patience = environment.seconds("STEP_PATIENCE_SECONDS")?;
    stream::deadlines(environment, move |event| mark(event, patience))
}
