//! Publishes every committed event: reads the event table's stream, writes to the bus.

use cairn::lambda::{ConfigError, Environment, Function, stream};
use orders::fulfilment::outcome;

/// The function. It needs `EVENT_BUS`, `EVENT_SOURCE` and `STREAM_FAILURES_QUEUE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    stream::relay(environment, |event| outcome(&event.event.name))
}
