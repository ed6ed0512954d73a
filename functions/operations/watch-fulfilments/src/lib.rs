//! The watchdog: starts, retries or compensates fulfilments that make no progress. A schedule
//! invokes it every minute; an operator invokes it for a stuck fulfilment.

use cairn_aws::{
    functions,
    lambda::{AppContext, ConfigError, Handler},
};
use orders::fulfilment::Fulfilment;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    functions::watchdog::<Fulfilment>(app)
}
