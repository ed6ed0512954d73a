//! `POST /orders/{orderId}/ship`: hands a confirmed order to the carrier.

use cairn::commit::fingerprint;
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{CommandFunction, command},
};
use orders::{
    order::{Command, Order},
    requests::ShipOrder,
};
use serde_json::json;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    ship_order().build(app, orders::CLAIMS)
}

fn ship_order() -> CommandFunction<Order, ShipOrder> {
    command::<Order>("ship-order", "POST /orders/{orderId}/ship")
        .not_found("order not found")
        .operators_only()
        .conflict("cannot-be-shipped", "The order cannot be shipped", "order")
        .stores_answers()
        .body(|_: &ShipOrder, _| Command::Ship)
        // An earlier release stored the digest of the body alone.
        .formerly(|_, json| fingerprint(json).ok())
        .responds(200, |order| {
            json!({ "orderId": order.id, "status": order.state.status(), "version": order.version })
        })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use cairn::{
        Aggregate, Context, Timestamp,
        personal_data::Sealed,
        repository::Repository,
        store::{answers::MemoryAnswers, memory::MemoryStore},
    };
    use cairn_aws::lambda::{
        api::{Request, Response},
        caller::Caller,
    };
    use orders::{
        prices::Prices,
        requests::{OrderRequest, RequestedLines},
    };
    use serde_json::Value;

    use super::*;

    const ORDER: &str = "7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d";

    async fn ship(orders: &Repository<Order, Arc<MemoryStore>>, caller: Caller) -> (u16, Value) {
        let mut request = Request::for_test(&[("orderId", ORDER)], &json!({}));
        request.caller = caller;
        let (function, answers) = (ship_order(), MemoryAnswers::default());
        Response::for_test(function.handle(orders, &answers, &request).await).unwrap()
    }

    /// Returns the orders of a store in which one customer has placed an order.
    async fn orders() -> Repository<Order, Arc<MemoryStore>> {
        let body = json!({
            "customerId": "c-42",
            "lines": [{ "sku": "TEA-01", "quantity": 1, "unitPrice": { "amount": 1250, "currency": "EUR" } }],
            "payment": { "token": "tok_visa" },
            "shipTo": { "name": "A", "line1": "1", "city": "B", "postalCode": "1", "country": "DE" },
        });
        let order = OrderRequest::parse(&body, Prices::Caller).unwrap();
        let RequestedLines::Priced(lines) = order.lines.clone() else {
            panic!("the lines have no prices");
        };
        let place = order.sealed(lines, Sealed::new("an address".to_owned()), None);
        let orders = Repository::new(Arc::new(MemoryStore::default()));
        handle(&orders, &Command::Place(Box::new(place))).await;
        orders
    }

    async fn handle(orders: &Repository<Order, Arc<MemoryStore>>, command: &Command) {
        let stream = Order::stream(&ORDER.parse().unwrap());
        let id = format!("{command:?}");
        let context = Context::new(id, Timestamp::from_millis(0), Duration::ZERO);
        orders.handle(&stream, command, &context).await.unwrap();
    }

    #[tokio::test]
    async fn an_operator_ships_a_confirmed_order() {
        let orders = orders().await;
        let operator = || Caller::Operator("o-1".to_owned());
        let (status, problem) = ship(&orders, operator()).await;
        let placed = json!({ "orderId": ORDER, "status": "placed", "version": 1 });
        assert_eq!((status, &problem["order"]), (409, &placed));
        assert_eq!(problem["type"], "urn:cairn:problem:cannot-be-shipped");
        handle(&orders, &Command::Confirm).await;
        let shipped = json!({ "orderId": ORDER, "status": "shipped", "version": 3 });
        assert_eq!(ship(&orders, operator()).await, (200, shipped));
    }

    #[tokio::test]
    async fn a_customer_ships_nothing() {
        let customer = Caller::User("c-42".to_owned());
        assert_eq!(ship(&orders().await, customer).await.0, 403);
    }
}
