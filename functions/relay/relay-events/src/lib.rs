//! Publishes every committed event: reads the event table's stream, writes to the bus.

use cairn::lambda::{AppContext, ConfigError, Handler, stream};
use orders::fulfilment::outcome;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    stream::relay(app, |event| outcome(&event.event.name))
}
