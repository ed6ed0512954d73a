//! Projects the read model `orders`: one row per order.

use cairn_aws::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::orders::Orders;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<Orders>()?)
}
