//! Keeps the read model `sales`: the windows of sales.

use cairn::lambda::{ConfigError, Environment, Function, consumer};
use orders::read_models::sales::Sales;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    consumer::projection(environment, environment.counters::<Sales>("SALES_TABLE")?)
}
