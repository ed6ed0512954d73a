//! Keeps the deadlines of orders: reads the event table's stream, not the bus.

use cairn::lambda::{ConfigError, Environment, Function, stream};
use orders::deadlines::mark;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let step_timeout = environment.seconds("STEP_PATIENCE_SECONDS")?;
    stream::deadlines(environment, move |event| mark(event, step_timeout))
}
