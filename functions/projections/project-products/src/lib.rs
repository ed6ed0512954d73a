//! Keeps the read model `products`: the row per product.

use cairn::lambda::{ConfigError, Environment, Function, consumer};
use orders::read_models::products::Products;

/// Builds the function. It needs `EVENTS_TABLE` and `PRODUCTS_TABLE`.
///
/// # Errors
/// When an environment variable is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    consumer::projection(environment, environment.rows::<Products>("PRODUCTS_TABLE")?)
}
