//! Publishes every committed event from the event table's DynamoDB Stream to the event bus.

use cairn_aws::lambda::{AppContext, ConfigError, Handler, stream};
use orders::{canary, fulfilment};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    stream::relay(app, |event| {
        fulfilment::outcome(&event.event.name).or_else(|| canary::outcome(event))
    })
}
