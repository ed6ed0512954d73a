//! Keeps the read model `stock`: the row per SKU.

use cairn::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::stock::StockLevels;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<StockLevels>("STOCK_TABLE")?)
}
