//! Keeps the read model `products`: the row per product.

use cairn::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::products::Products;

/// Builds the function. It needs `EVENTS_TABLE` and `PRODUCTS_TABLE`.
///
/// # Errors
/// When an environment variable is missing.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<Products>("PRODUCTS_TABLE")?)
}
