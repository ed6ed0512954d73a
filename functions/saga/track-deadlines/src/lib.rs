//! Keeps the deadlines of orders: reads the event table's stream, not the bus.

use cairn::lambda::{AppContext, ConfigError, Handler, stream};
use orders::deadlines::deadline_update;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let step_timeout = app.seconds("STEP_TIMEOUT_SECONDS")?;
    stream::deadlines(app, move |event| deadline_update(event, step_timeout))
}
