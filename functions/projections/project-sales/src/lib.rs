//! Keeps the read model `sales`: the windows of sales.

use cairn::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::sales::Sales;

/// Builds the function.
///
/// # Errors
/// When an environment variable is missing or wrong: the error names it.
pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.counters::<Sales>("SALES_TABLE")?)
}
