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
            let (sku, state) = (stock.id.to_string(), stock.state);
            json!(StockView::new(
                sku,
                state.on_hand(),
                state.reserved(),
                stock.version
            ))
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
    use orders::stock::Event;
    use serde_json::Value;

    use super::*;

    async fn stock(history: &[Event]) -> Given<Stock, ReceiveStock> {
        let sku = "TEA-01".parse().unwrap();
        given(receive_stock(), &sku, history.iter().cloned()).await
    }

    fn receipt(sku: &str, body: &Value) -> Request {
        Request::for_test(&[("sku", sku)], body)
            .by(Caller::Operator("o-1".to_owned()))
            .with_key("key")
    }

    #[tokio::test]
    async fn units_are_received_once_for_each_key() {
        let stock = stock(&[Event::Received { quantity: 20 }]).await;
        let request = || receipt("TEA-01", &json!({ "quantity": 100 }));
        let view = json!({
            "sku": "TEA-01", "onHand": 120, "reserved": 0, "available": 120, "version": 2,
        });
        let received = Event::Received { quantity: 100 };
        stock.when(request()).await.then(201, &view, [received]);
        stock.when(request()).await.then_replayed(201, &view);
    }

    #[tokio::test]
    async fn reserved_units_are_not_available() {
        let order_id = "6f9619ff-8b86-4011-b42d-00cf4fc964ff".parse().unwrap();
        let reserved = Event::Reserved {
            order_id,
            quantity: 5,
        };
        let stock = stock(&[Event::Received { quantity: 20 }, reserved]).await;
        let received = stock
            .when(receipt("TEA-01", &json!({ "quantity": 1 })))
            .await;
        let view = json!({
            "sku": "TEA-01", "onHand": 21, "reserved": 5, "available": 16, "version": 3,
        });
        received.then(201, &view, [Event::Received { quantity: 1 }]);
    }

    #[tokio::test]
    async fn an_invalid_sku_or_body_is_refused() {
        let stock = stock(&[]).await;
        let detail = "the sku must be 1 to 40 characters of A-Z 0-9 -";
        let refused = stock.when(receipt("tea", &json!({}))).await;
        refused.then_problem(400, &json!({ "detail": detail }));
        let refused = stock
            .when(receipt("TEA-01", &json!({ "quantity": 0 })))
            .await;
        refused.then_problem(422, &json!({}));
        assert_eq!(refused.body["errors"][0]["pointer"], "/quantity");
    }

    #[tokio::test]
    async fn a_customer_may_not_call_it() {
        let customer = Caller::User("c-42".to_owned());
        let receipt = receipt("TEA-01", &json!({ "quantity": 1 })).by(customer);
        let refused = stock(&[]).await.when(receipt).await;
        refused.then_problem(403, &json!({}));
    }

    /// No function of the order system has this access yet: `cairn add command` writes it.
    #[tokio::test]
    async fn a_command_that_its_id_owns_is_for_the_caller_with_that_id() {
        let function = command::<Stock>("count-stock", "POST /stock/{sku}/counts")
            .not_found("SKU not found")
            .owned_by_id()
            .body(|body: &ReceiveStock, _| Command::Receive(body.quantity));
        let store = std::sync::Arc::new(cairn::store::memory::MemoryStore::default());
        let streams = cairn::repository::Repository::<Stock, _>::new(store);
        let answers = cairn::store::answers::MemoryAnswers::default();
        for (caller, expected) in [("c-42", 404), ("TEA-01", 200)] {
            let mut request = Request::for_test(&[("sku", "TEA-01")], &json!({ "quantity": 1 }));
            request.caller = Caller::User(caller.to_owned());
            let response = function.handle(&streams, &answers, &request).await;
            let response = response.unwrap_or_else(cairn_aws::lambda::api::Problem::into_response);
            assert_eq!(response.into_parts().0, expected, "{caller}");
        }
    }
}
