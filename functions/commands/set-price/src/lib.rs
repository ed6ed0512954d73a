//! `PUT /products/{sku}`: sets the price of a product.

use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{CommandFunction, command},
};
use orders::{
    product::{Command, Product},
    requests::SetPrice,
};
use serde_json::json;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    set_price().build(app, orders::CLAIMS)
}

fn set_price() -> CommandFunction<Product, SetPrice> {
    command::<Product>("set-price", "PUT /products/{sku}")
        .operators_only()
        .body(|body: &SetPrice, _| Command::SetPrice(body.price))
        .responds(200, |product| {
            json!({ "sku": product.id, "price": product.state.price(), "version": product.version })
        })
}

#[cfg(test)]
mod tests {
    use cairn_aws::lambda::{
        api::{
            Request,
            testing::{Given, given},
        },
        caller::Caller,
    };
    use orders::product::Event;
    use serde_json::Value;

    use super::*;

    async fn product() -> Given<Product, SetPrice> {
        given(set_price(), &"TEA-01".parse().unwrap(), []).await
    }

    fn price(sku: &str, body: &Value) -> Request {
        Request::for_test(&[("sku", sku)], body).by(Caller::Operator("o-1".to_owned()))
    }

    #[tokio::test]
    async fn a_price_is_set() {
        let eur = json!({ "amount": 1250, "currency": "EUR" });
        let set = product().await;
        let set = set.when(price("TEA-01", &json!({ "price": eur }))).await;
        let view = json!({ "sku": "TEA-01", "price": eur, "version": 1 });
        let price = serde_json::from_value(eur).unwrap();
        set.then(200, &view, [Event::PriceSet { price }]);
    }

    #[tokio::test]
    async fn an_invalid_sku_or_body_is_refused() {
        let product = product().await;
        let detail = "the sku must be 1 to 40 characters of A-Z 0-9 -";
        let refused = product.when(price("tea", &json!({}))).await;
        refused.then_problem(400, &json!({ "detail": detail }));
        let free = json!({ "price": { "amount": 0, "currency": "EUR" } });
        let refused = product.when(price("TEA-01", &free)).await;
        refused.then_problem(422, &json!({}));
        assert_eq!(refused.body["errors"][0]["pointer"], "/price/amount");
    }

    #[tokio::test]
    async fn a_customer_may_not_call_it() {
        let eur = json!({ "price": { "amount": 1250, "currency": "EUR" } });
        let by_customer = price("TEA-01", &eur).by(Caller::User("c-42".to_owned()));
        let refused = product().await.when(by_customer).await;
        refused.then_problem(403, &json!({}));
    }
}
