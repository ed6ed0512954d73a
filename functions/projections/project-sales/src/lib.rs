//! Keeps the read model `sales`: the windows of sales.

use cairn::lambda::{ConfigError, Environment, Function, consumer};
use orders::read_models::sales::Sales;

/// The function. It needs `EVENTS_TABLE` and `SALES_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    consumer::projection(environment, environment.counters::<Sales>("SALES_TABLE")?)
}
