//! Keeps the deadlines of orders: reads the event table's stream, not the bus.

use cairn::lambda::{ConfigError, Environment, Function, stream};
use orders::deadlines::deadline_update;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    let step_timeout = environment.seconds("STEP_TIMEOUT_SECONDS")?;
    stream::deadlines(environment, move |event| {
        deadline_update(event, step_timeout)
    })
}
