//! Publishes every committed event from the event table's DynamoDB Stream to the event bus.

use cairn_aws::{
    functions,
    lambda::{AppContext, ConfigError, Handler},
};
use orders::{canary, fulfilment};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    functions::relay(app, |event| {
        fulfilment::outcome(&event.event.name).or_else(|| canary::outcome(event))
    })
}
