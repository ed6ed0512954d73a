//! Keeps the read model `orders`: the row per order.

use cairn::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::orders::Orders;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<Orders>("ORDERS_TABLE")?)
}
