//! Projects the read model `sales`: counters by time window.

use cairn_aws::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::sales::Sales;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.counters::<Sales>()?)
}
