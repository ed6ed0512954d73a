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
#[path = "../../../../shared/orders/tests/domain/sample_order.rs"]
#[expect(dead_code, reason = "the tests use the sample order only")]
mod sample_order;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cairn::{
        Aggregate,
        repository::Repository,
        step::testing::given,
        store::{answers::MemoryAnswers, memory::MemoryStore},
    };
    use cairn_aws::lambda::{
        api::{Request, Response},
        caller::Caller,
    };
    use serde_json::Value;

    use super::{
        sample_order::{ORDER, order_id, placed},
        *,
    };

    async fn ship(orders: &Repository<Order, Arc<MemoryStore>>, caller: Caller) -> (u16, Value) {
        let mut request = Request::for_test(&[("orderId", ORDER)], &json!({}));
        request.caller = caller;
        let (function, answers) = (ship_order(), MemoryAnswers::default());
        Response::for_test(function.handle(orders, &answers, &request).await).unwrap()
    }

    /// Returns the orders of a store in which the sample order is placed, after these commands.
    async fn orders(commands: &[Command]) -> Repository<Order, Arc<MemoryStore>> {
        let orders = Repository::new(Arc::new(MemoryStore::default()));
        let mut history = vec![Command::Place(Box::new(placed()))];
        history.extend_from_slice(commands);
        given(&orders, &Order::stream(&order_id()), &history).await;
        orders
    }

    #[tokio::test]
    async fn an_operator_ships_a_confirmed_order() {
        let operator = || Caller::Operator("o-1".to_owned());
        let (status, problem) = ship(&orders(&[]).await, operator()).await;
        let placed = json!({ "orderId": ORDER, "status": "placed", "version": 1 });
        assert_eq!((status, &problem["order"]), (409, &placed));
        assert_eq!(problem["type"], "urn:cairn:problem:cannot-be-shipped");
        let confirmed = orders(&[Command::Confirm]).await;
        let shipped = json!({ "orderId": ORDER, "status": "shipped", "version": 3 });
        assert_eq!(ship(&confirmed, operator()).await, (200, shipped));
    }

    #[tokio::test]
    async fn a_customer_ships_nothing() {
        let customer = Caller::User("c-42".to_owned());
        assert_eq!(ship(&orders(&[]).await, customer).await.0, 403);
    }
}
