//! Keeps the read model `stock`: the row per SKU.

use cairn::lambda::{ConfigError, Environment, Function, consumer};
use orders::read_models::stock::StockLevels;

/// The function. It needs `EVENTS_TABLE` and `STOCK_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    consumer::projection(environment, environment.rows::<StockLevels>("STOCK_TABLE")?)
}
