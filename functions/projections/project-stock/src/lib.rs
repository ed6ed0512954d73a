//! Keeps the read model `stock`: the row per SKU.

use cairn::lambda::{ConfigError, Environment, Function, consumer};
use orders::read_models::stock::StockLevels;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    consumer::projection(environment, environment.rows::<StockLevels>("STOCK_TABLE")?)
}
