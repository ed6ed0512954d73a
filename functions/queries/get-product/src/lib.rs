//! `GET /products/{sku}`: the price of a product.

use cairn::{Aggregate, repository::Repository, store::EventStore};
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{Problem, Request, Response, query},
};
use orders::{product::Product, read_models::products::ProductView, values::Sku};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    query(app, orders::CLAIMS, app.repository()?, get)
}

/// Folds the product's stream, so that the price is current.
async fn get<S: EventStore + Clone>(
    products: Repository<Product, S>,
    request: Request,
) -> Result<Response, Problem> {
    let unpriced = "the SKU has no price";
    let sku: Sku = request.id("sku", unpriced)?;
    let product = products.load(&Product::stream(&sku)).await?;
    let price = product.state.price();
    let view = ProductView {
        sku,
        price: price.ok_or_else(|| Problem::not_found(unpriced))?,
        version: product.version,
    };
    Response::new(200, view)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use cairn::{Context, Timestamp, store::memory::MemoryStore};
    use orders::product::Command;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_product_has_its_latest_price() {
        let products = Repository::new(Arc::new(MemoryStore::default()));
        let stream = Product::stream(&"TEA-01".parse().unwrap());
        for (id, amount) in [("1", 1250), ("2", 1300)] {
            let price = json!({ "price": { "amount": amount, "currency": "EUR" } });
            let body: orders::requests::SetPrice = cairn::input::parse(&price).unwrap();
            let context = Context::new(id, Timestamp::from_millis(0), Duration::ZERO);
            let command = Command::SetPrice(body.price);
            products.handle(&stream, &command, &context).await.unwrap();
        }
        let request = |sku| Request::for_test(&[("sku", sku)], &Value::Null);
        let response = get(products.clone(), request("TEA-01")).await.unwrap();
        let view = json!({
            "sku": "TEA-01", "price": { "amount": 1300, "currency": "EUR" }, "version": 2,
        });
        assert_eq!(response.into_parts().2, view.to_string());
        for unpriced in ["TEA-02", "tea"] {
            let problem = get(products.clone(), request(unpriced)).await.unwrap_err();
            assert_eq!(problem.into_response().into_parts().0, 404);
        }
    }
}
