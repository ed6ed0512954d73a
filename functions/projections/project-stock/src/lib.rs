//! Projects the read model `stock`: one row per SKU.

use cairn_aws::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::stock::StockLevels;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<StockLevels>()?)
}
