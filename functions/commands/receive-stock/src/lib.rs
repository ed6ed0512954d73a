//! `POST /stock/{sku}/receipts`: receives units of a SKU.

use cairn::commit::fingerprint;
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{CommandFunction, command},
};
use orders::{
    read_models::stock::StockView,
    requests::ReceiveStock,
    stock::{Command, Stock},
};
use serde_json::json;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    receive_stock().build(app, orders::CLAIMS)
}

fn receive_stock() -> CommandFunction<Stock, ReceiveStock> {
    command::<Stock>("receive-stock", "POST /stock/{sku}/receipts")
        .operators_only()
        .body(|body: &ReceiveStock, _| Command::Receive(body.quantity))
        // An earlier release stored the digest of the command.
        .formerly(|body, _| fingerprint(&Command::Receive(body.quantity)).ok())
        .responds(201, |stock| {
            json!(StockView {
                sku: stock.id.to_string(),
                on_hand: stock.state.on_hand(),
                reserved: stock.state.reserved(),
                available: stock.state.available(),
                version: stock.version,
            })
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

    type Streams = Repository<Stock, Arc<MemoryStore>>;

    async fn call(streams: &Streams, sku: &str, body: &Value) -> (u16, Value) {
        let mut request = Request::for_test(&[("sku", sku)], body);
        request.caller = Caller::Operator("o-1".to_owned());
        request.key = Some("key".to_owned());
        answer(streams, &request).await
    }

    async fn answer(streams: &Streams, request: &Request) -> (u16, Value) {
        let (function, answers) = (receive_stock(), MemoryAnswers::default());
        Response::for_test(function.handle(streams, &answers, request).await).unwrap()
    }

    #[tokio::test]
    async fn units_are_received_once_for_each_key() {
        let stocks = Repository::new(Arc::new(MemoryStore::default()));
        let body = json!({ "quantity": 100 });
        let view = json!({
            "sku": "TEA-01", "onHand": 100, "reserved": 0, "available": 100, "version": 1,
        });
        assert_eq!(call(&stocks, "TEA-01", &body).await, (201, view.clone()));
        assert_eq!(call(&stocks, "TEA-01", &body).await, (201, view));
    }

    #[tokio::test]
    async fn an_invalid_sku_or_body_is_refused() {
        let streams = Repository::new(Arc::new(MemoryStore::default()));
        let (status, problem) = call(&streams, "tea", &json!({})).await;
        let detail = "the sku must be 1 to 40 characters of A-Z 0-9 -";
        assert_eq!((status, &problem["detail"]), (400, &json!(detail)));
        let (status, problem) = call(&streams, "TEA-01", &json!({ "quantity": 0 })).await;
        let pointer = &problem["errors"][0]["pointer"];
        assert_eq!((status, pointer), (422, &json!("/quantity")));
    }

    #[tokio::test]
    async fn a_customer_may_not_call_it() {
        let streams = Repository::new(Arc::new(MemoryStore::default()));
        let mut request = Request::for_test(&[("sku", "TEA-01")], &json!({}));
        request.caller = Caller::User("c-42".to_owned());
        assert_eq!(answer(&streams, &request).await.0, 403);
    }

    /// No function of the order system has this access yet: `cairn add command` writes it.
    #[tokio::test]
    async fn a_command_that_its_id_owns_is_for_the_caller_with_that_id() {
        let function = command::<Stock>("count-stock", "POST /stock/{sku}/counts")
            .not_found("SKU not found")
            .owned_by_id()
            .body(|body: &ReceiveStock, _| Command::Receive(body.quantity));
        let (streams, answers) = (
            Streams::new(Arc::new(MemoryStore::default())),
            MemoryAnswers::default(),
        );
        for (caller, expected) in [("c-42", 404), ("TEA-01", 200)] {
            let mut request = Request::for_test(&[("sku", "TEA-01")], &json!({ "quantity": 1 }));
            request.caller = Caller::User(caller.to_owned());
            let response = function.handle(&streams, &answers, &request).await;
            assert_eq!(
                Response::for_test(response).unwrap().0,
                expected,
                "{caller}"
            );
        }
    }
}
