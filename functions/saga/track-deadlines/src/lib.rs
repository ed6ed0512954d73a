//! Maintains the deadlines of orders from the event table's DynamoDB Stream.

use cairn_aws::{
    functions,
    lambda::{AppContext, ConfigError, Handler},
};
use orders::fulfilment::Fulfilment;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    functions::track_deadlines::<Fulfilment>(app)
}
