//! Forwards a customer's cancellation of an order to its fulfilment.

use cairn_aws::{
    functions,
    lambda::{AppContext, ConfigError, Handler},
};
use orders::fulfilment::Fulfilment;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    functions::forward_cancellations::<Fulfilment>(app)
}
