//! `PUT /products/{sku}`: sets the price of a product.

use cairn_aws::{
    dynamodb::Repository,
    lambda::{
        AppContext, ConfigError, Handler,
        api::{self, Problem, Request, Response, problem},
    },
};
use orders::{
    product::{Command, Product},
    read_models::products::ProductView,
    requests,
    values::Sku,
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let products = app.repository()?;
    api::function(app, move |request| set(products.clone(), request))
}

async fn set(products: Repository<Product>, request: Request) -> Result<Response, Problem> {
    request.caller.require_operator()?;
    let sku: Sku = request
        .path("sku")
        .parse()
        .map_err(|error| Problem::bad_request(format!("the sku {error}")))?;
    let price = requests::set_price(&request.json()?).map_err(Problem::invalid)?;
    let context = request.context("set-price")?;
    let set = products
        .handle(&sku.product_stream(), &Command::SetPrice(price), &context)
        .await
        .map_err(|error| problem(error, |rejection, _| match rejection {}))?;
    let body = ProductView {
        sku,
        price: price.money(),
        version: set.current.version,
    };
    Ok(Response::new(200, body)?.replayed(set.replayed))
}
