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
    use cairn_aws::lambda::{
        api::{Request, testing::given},
        caller::Caller,
    };

    use super::{
        sample_order::{ORDER, order_id, was_confirmed, was_placed, was_shipped},
        *,
    };

    fn shipping(caller: Caller) -> Request {
        Request::for_test(&[("orderId", ORDER)], &json!({})).by(caller)
    }

    fn operator() -> Caller {
        Caller::Operator("o-1".to_owned())
    }

    #[tokio::test]
    async fn an_operator_ships_a_confirmed_order() {
        let confirmed = [was_placed(), was_confirmed()];
        let orders = given(ship_order(), &order_id(), confirmed).await;
        let shipped = json!({ "orderId": ORDER, "status": "shipped", "version": 3 });
        let handled = orders.when(shipping(operator())).await;
        handled.then(200, &shipped, [was_shipped()]);
    }

    #[tokio::test]
    async fn an_order_that_is_not_confirmed_cannot_be_shipped() {
        let orders = given(ship_order(), &order_id(), [was_placed()]).await;
        let problem = json!({
            "type": "urn:cairn:problem:cannot-be-shipped",
            "order": { "orderId": ORDER, "status": "placed", "version": 1 },
        });
        orders
            .when(shipping(operator()))
            .await
            .then_problem(409, &problem);
    }

    #[tokio::test]
    async fn a_customer_ships_nothing() {
        let confirmed = [was_placed(), was_confirmed()];
        let orders = given(ship_order(), &order_id(), confirmed).await;
        let customer = Caller::User("c-42".to_owned());
        let refused = orders.when(shipping(customer)).await;
        refused.then_problem(403, &json!({}));
    }
}
