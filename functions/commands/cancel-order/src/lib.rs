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
    use cairn_aws::lambda::api::{
        Request,
        testing::{Given, given},
    };
    use orders::order::Event;

    use super::{
        sample_order::{ORDER, order_id, placed, text, was_confirmed, was_placed, was_shipped},
        *,
    };

    /// Returns an order with this history after its placement.
    async fn order(history: impl IntoIterator<Item = Event>) -> Given<Order, CancelOrder> {
        let history = [was_placed()].into_iter().chain(history);
        given(cancel_order(), &order_id(), history).await
    }

    fn cancellation(id: &str, caller: Caller, reason: &str) -> Request {
        Request::for_test(&[("orderId", id)], &json!({ "reason": reason }))
            .by(caller)
            .with_key("key")
    }

    fn customer() -> Caller {
        Caller::User("c-42".to_owned())
    }

    fn was_cancelled(by: Canceller) -> Event {
        Event::Cancelled {
            customer_id: placed().customer_id,
            reason: text("too late"),
            by,
        }
    }

    #[tokio::test]
    async fn a_customer_cancels_an_order_once_for_each_key() {
        let order = order([]).await;
        let cancel = |reason| order.when(cancellation(ORDER, customer(), reason));
        let cancelled = json!({ "orderId": ORDER, "status": "cancelled", "version": 2 });
        let event = was_cancelled(Canceller::Customer);
        cancel("too late").await.then(200, &cancelled, [event]);
        cancel("too late").await.then_replayed(200, &cancelled);
        let reused = json!({ "type": "urn:cairn:problem:idempotency-key-reused" });
        cancel("other").await.then_problem(422, &reused);
    }

    #[tokio::test]
    async fn the_event_names_the_party_that_cancels() {
        for (caller, by) in [
            (customer(), Canceller::Customer),
            (Caller::Operator("o-1".to_owned()), Canceller::Operator),
            (Caller::Anonymous, Canceller::Unknown),
        ] {
            let order = order([]).await;
            let cancelled = order.when(cancellation(ORDER, caller, "too late")).await;
            assert_eq!(cancelled.events, [was_cancelled(by)]);
        }
    }

    #[tokio::test]
    async fn an_order_of_another_customer_does_not_exist() {
        let order = order([]).await;
        let unknown = "00000000-0000-0000-0000-000000000000";
        for (id, caller) in [
            (ORDER, Caller::User("c-43".to_owned())),
            (unknown, customer()),
            (unknown, Caller::Anonymous),
            ("none", Caller::Anonymous),
        ] {
            let refused = order.when(cancellation(id, caller, "x")).await;
            refused.then_problem(404, &json!({ "detail": "order not found" }));
        }
    }

    #[tokio::test]
    async fn a_shipped_order_cannot_be_cancelled_and_the_answer_stays() {
        let order = order([was_confirmed(), was_shipped()]).await;
        let cancel = || order.when(cancellation(ORDER, customer(), "x"));
        let refused = cancel().await;
        let problem = json!({
            "type": "urn:cairn:problem:cannot-be-cancelled",
            "order": { "orderId": ORDER, "status": "shipped", "version": 3 },
        });
        refused.then_problem(409, &problem);
        cancel().await.then_replayed(409, &refused.body);
    }

    #[tokio::test]
    async fn a_body_without_a_reason_is_invalid() {
        let order = order([]).await;
        let refused = order.when(cancellation(ORDER, Caller::Anonymous, "")).await;
        refused.then_problem(422, &json!({}));
        assert_eq!(refused.body["errors"][0]["pointer"], "/reason");
    }
}
