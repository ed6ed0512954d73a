//! Keeps the read model `orders`: the row per order.

use cairn::lambda::{ConfigError, Environment, Function, consumer};
use orders::read_models::orders::Orders;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    consumer::projection(environment, environment.rows::<Orders>("ORDERS_TABLE")?)
}
