//! Projects the read model `products`: one row per product.

use cairn_aws::lambda::{AppContext, ConfigError, Handler, consumer};
use orders::read_models::products::ProductView;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    consumer::projection(app, app.rows::<ProductView>()?)
}
