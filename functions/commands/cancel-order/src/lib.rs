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
mod tests {
    use std::{sync::Arc, time::Duration};

    use cairn::{
        Aggregate, Context, Timestamp,
        personal_data::Sealed,
        repository::Repository,
        store::{answers::MemoryAnswers, memory::MemoryStore},
    };
    use cairn_aws::lambda::api::{Problem, Request, Response};
    use orders::{
        prices::Prices,
        requests::{OrderRequest, RequestedLines},
    };
    use serde_json::Value;

    use super::*;

    const ORDER: &str = "7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d";

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

    async fn shop() -> Shop {
        Shop {
            orders: orders().await,
            answers: MemoryAnswers::default(),
        }
    }

    fn customer(id: &str) -> Caller {
        Caller::User(id.to_owned())
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
    async fn a_customer_cancels_an_order_once_for_each_key() {
        let shop = shop().await;
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
            assert_eq!(shop().await.cancel(ORDER, caller, "x").await.0, 200);
        }
    }

    #[tokio::test]
    async fn an_order_of_another_customer_does_not_exist() {
        let shop = shop().await;
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
        let shop = shop().await;
        handle(&shop.orders, &Command::Confirm).await;
        handle(&shop.orders, &Command::Ship).await;
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
        let (status, _, problem) = shop().await.cancel(ORDER, Caller::Anonymous, "").await;
        assert_eq!(
            (status, &problem["errors"][0]["pointer"]),
            (422, &json!("/reason"))
        );
    }
}
