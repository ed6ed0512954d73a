//! `POST /orders/{orderId}/cancel`: cancels an order that is not shipped yet.

use cairn::commit::fingerprint;
use cairn_aws::lambda::{
    AppContext, ConfigError, Handler,
    api::{CommandFunction, command},
    caller::Caller,
};
use orders::{
    order::{Canceller, Command, Order},
    requests::CancelOrder,
};
use serde_json::json;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    cancel_order().build(app, orders::CLAIMS)
}

fn cancel_order() -> CommandFunction<Order, CancelOrder> {
    command::<Order>("cancel-order", "POST /orders/{orderId}/cancel")
        .not_found("order not found")
        .owned_by(|order| order.placed().map(|placed| placed.customer_id.as_str()))
        .conflict("cannot-be-cancelled", "The order cannot be cancelled", "order")
        .stores_answers()
        .body(|body: &CancelOrder, caller| cancel(body, canceller(caller)))
        // An earlier release stored the digest of this command for every caller.
        .formerly(|body, _| fingerprint(&cancel(body, Canceller::Customer)).ok())
        .responds(200, |order| {
            json!({ "orderId": order.id, "status": order.state.status(), "version": order.version })
        })
}

fn cancel(body: &CancelOrder, by: Canceller) -> Command {
    let reason = body.reason.clone();
    Command::Cancel { reason, by }
}

fn canceller(caller: &Caller) -> Canceller {
    match caller {
        Caller::User(_) => Canceller::Customer,
        Caller::Operator(_) => Canceller::Operator,
        Caller::Anonymous => Canceller::Unknown,
    }
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
    use cairn_aws::lambda::api::{Problem, Request, Response};
    use serde_json::Value;

    use super::{
        sample_order::{ORDER, order_id, placed},
        *,
    };

    struct Shop {
        orders: Repository<Order, Arc<MemoryStore>>,
        answers: MemoryAnswers,
    }

    impl Shop {
        async fn cancel(&self, id: &str, caller: Caller, reason: &str) -> (u16, bool, Value) {
            let body = json!({ "reason": reason });
            let mut request = Request::for_test(&[("orderId", id)], &body);
            request.caller = caller;
            request.key = Some("key".to_owned());
            let function = cancel_order();
            let answer = function.handle(&self.orders, &self.answers, &request);
            let response: Response = answer.await.unwrap_or_else(Problem::into_response);
            let (status, headers, body) = response.into_parts();
            let replayed = headers.contains_key("idempotent-replayed");
            (status, replayed, serde_json::from_str(&body).unwrap())
        }
    }

    async fn shop(commands: &[Command]) -> Shop {
        Shop {
            orders: orders(commands).await,
            answers: MemoryAnswers::default(),
        }
    }

    fn customer(id: &str) -> Caller {
        Caller::User(id.to_owned())
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
    async fn a_customer_cancels_an_order_once_for_each_key() {
        let shop = shop(&[]).await;
        let cancelled = json!({ "orderId": ORDER, "status": "cancelled", "version": 2 });
        let first = shop.cancel(ORDER, customer("c-42"), "too late").await;
        assert_eq!(first, (200, false, cancelled.clone()));
        let again = shop.cancel(ORDER, customer("c-42"), "too late").await;
        assert_eq!(again, (200, true, cancelled));
        let (status, _, problem) = shop.cancel(ORDER, customer("c-42"), "other").await;
        assert_eq!(
            (status, &problem["type"]),
            (422, &json!("urn:cairn:problem:idempotency-key-reused"))
        );
    }

    #[tokio::test]
    async fn the_event_names_the_party_that_cancels() {
        let operator = Caller::Operator("o-1".to_owned());
        for (caller, by) in [
            (customer("c-42"), Canceller::Customer),
            (operator, Canceller::Operator),
            (Caller::Anonymous, Canceller::Unknown),
        ] {
            assert_eq!(canceller(&caller), by);
            assert_eq!(shop(&[]).await.cancel(ORDER, caller, "x").await.0, 200);
        }
    }

    #[tokio::test]
    async fn an_order_of_another_customer_does_not_exist() {
        let shop = shop(&[]).await;
        let unknown = "00000000-0000-0000-0000-000000000000";
        for (id, caller) in [
            (ORDER, customer("c-43")),
            (unknown, customer("c-42")),
            (unknown, Caller::Anonymous),
            ("none", Caller::Anonymous),
        ] {
            let (status, _, problem) = shop.cancel(id, caller, "x").await;
            assert_eq!(
                (status, &problem["detail"]),
                (404, &json!("order not found"))
            );
        }
    }

    #[tokio::test]
    async fn a_shipped_order_cannot_be_cancelled_and_the_answer_stays() {
        let shop = shop(&[Command::Confirm, Command::Ship]).await;
        let (status, replayed, problem) = shop.cancel(ORDER, customer("c-42"), "x").await;
        assert_eq!((status, replayed), (409, false));
        let order = json!({ "orderId": ORDER, "status": "shipped", "version": 3 });
        assert_eq!(problem["order"], order);
        assert_eq!(problem["type"], "urn:cairn:problem:cannot-be-cancelled");
        let again = shop.cancel(ORDER, customer("c-42"), "x").await;
        assert_eq!(again, (409, true, problem));
    }

    #[tokio::test]
    async fn a_body_without_a_reason_is_invalid() {
        let (status, _, problem) = shop(&[]).await.cancel(ORDER, Caller::Anonymous, "").await;
        assert_eq!(
            (status, &problem["errors"][0]["pointer"]),
            (422, &json!("/reason"))
        );
    }
}
