//! Publishes every committed event from the event table's DynamoDB Stream to the event bus.

use cairn::lambda::{AppContext, ConfigError, Handler, stream};
use orders::fulfilment::outcome;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    stream::relay(app, |event| outcome(&event.event.name))
}
