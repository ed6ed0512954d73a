//! Publishes every committed event: reads the event table's stream, writes to the bus.

use cairn::lambda::{ConfigError, Environment, Function, stream};
use orders::fulfilment::outcome;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    stream::relay(environment, |event| outcome(&event.event.name))
}
