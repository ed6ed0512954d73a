//! `GET /products/{sku}`: the price of a product.

use cairn_aws::{
    dynamodb::Repository,
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response},
    },
};
use orders::{product::Product, read_models::products::ProductView, values::Sku};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let products = app.repository()?;
    api::function(app, move |request| get(products.clone(), request))
}

/// Folds the product's stream, so that the price is current.
async fn get(products: Repository<Product>, request: Request) -> Result<Response, Problem> {
    let unpriced = || Problem::not_found("the SKU has no price");
    let sku: Sku = request.path("sku").parse().map_err(|_| unpriced())?;
    let product = products.load(&sku.product_stream()).await?;
    let price = product.state.price().ok_or_else(unpriced)?;
    let view = ProductView {
        sku,
        price,
        version: product.version,
    };
    Response::new(200, view)
}
