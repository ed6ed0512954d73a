//! Maintains the deadlines of orders from the event table's DynamoDB Stream.

use cairn_aws::lambda::{AppContext, ConfigError, Handler, stream};
use orders::deadlines::deadline_update;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let step_timeout = app.seconds("STEP_TIMEOUT_SECONDS")?;
    stream::deadlines(app, move |event| deadline_update(event, step_timeout))
}
