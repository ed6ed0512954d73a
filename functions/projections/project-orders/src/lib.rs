//! Keeps the read model `orders`: the row per order.

use cairn::lambda::{ConfigError, Environment, Function, consumer};
use orders::read_models::orders::Orders;

/// The function. It needs `EVENTS_TABLE` and `ORDERS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    consumer::projection(environment, environment.rows::<Orders>("ORDERS_TABLE")?)
}
