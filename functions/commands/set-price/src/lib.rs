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
    use std::sync::Arc;

    use cairn::{
        repository::Repository,
        store::{answers::MemoryAnswers, memory::MemoryStore},
    };
    use cairn_aws::lambda::{
        api::{Request, Response},
        caller::Caller,
    };
    use serde_json::Value;

    use super::*;

    type Streams = Repository<Product, Arc<MemoryStore>>;

    async fn call(streams: &Streams, sku: &str, body: &Value) -> (u16, Value) {
        let mut request = Request::for_test(&[("sku", sku)], body);
        request.caller = Caller::Operator("o-1".to_owned());
        request.key = Some("key".to_owned());
        answer(streams, &request).await
    }

    async fn answer(streams: &Streams, request: &Request) -> (u16, Value) {
        let (function, answers) = (set_price(), MemoryAnswers::default());
        Response::for_test(function.handle(streams, &answers, request).await).unwrap()
    }

    #[tokio::test]
    async fn a_price_is_set() {
        let products = Repository::new(Arc::new(MemoryStore::default()));
        let price = json!({ "amount": 1250, "currency": "EUR" });
        let view = json!({ "sku": "TEA-01", "price": price, "version": 1 });
        let body = json!({ "price": price });
        assert_eq!(call(&products, "TEA-01", &body).await, (200, view));
    }

    #[tokio::test]
    async fn an_invalid_sku_or_body_is_refused() {
        let streams = Repository::new(Arc::new(MemoryStore::default()));
        let (status, problem) = call(&streams, "tea", &json!({})).await;
        let detail = "the sku must be 1 to 40 characters of A-Z 0-9 -";
        assert_eq!((status, &problem["detail"]), (400, &json!(detail)));
        let (status, problem) = call(
            &streams,
            "TEA-01",
            &json!({ "price": { "amount": 0, "currency": "EUR" } }),
        )
        .await;
        let pointer = &problem["errors"][0]["pointer"];
        assert_eq!((status, pointer), (422, &json!("/price/amount")));
    }

    #[tokio::test]
    async fn a_customer_may_not_call_it() {
        let streams = Repository::new(Arc::new(MemoryStore::default()));
        let mut request = Request::for_test(&[("sku", "TEA-01")], &json!({}));
        request.caller = Caller::User("c-42".to_owned());
        assert_eq!(answer(&streams, &request).await.0, 403);
    }
}
