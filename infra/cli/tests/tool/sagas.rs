//! `cairn sagas` and `cairn saga`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cairn::provider::{Call, ProviderError};
use cairn_local::Options;
use orders::{
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider},
    values::{Money, PaymentToken},
};
use orders_local::{functions, options};
use serde_json::json;

use crate::{fixture::Fixture, waiting::until};

/// A payment provider that rejects refunds while the flag is set.
struct Stubborn(Arc<AtomicBool>);

impl PaymentProvider for Stubborn {
    async fn authorize(
        &self,
        _: Call<'_>,
        _: &PaymentToken,
        _: Money,
    ) -> Result<Authorization, ProviderError> {
        Err(ProviderError::Permanent("this one captures".to_owned()))
    }

    async fn capture(&self, _: Call<'_>, _: &Authorization) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn void(&self, _: Call<'_>, _: AuthorizationRequest<'_>) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn refund(&self, _: Call<'_>, _: &Authorization, _: &str) -> Result<(), ProviderError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(ProviderError::Permanent("call us".to_owned()));
        }
        Ok(())
    }
}

/// Starts a system with a stuck order: its refund is rejected.
pub(crate) async fn stuck() -> (Fixture, String, Arc<AtomicBool>) {
    let refuses = Arc::new(AtomicBool::new(true));
    let provider = refuses.clone();
    let functions = functions().with("capture-payment", move |app| {
        capture_payment::with(app, Stubborn(provider.clone()))
    });
    let options = Options {
        functions,
        ..options()
    };
    let system = Fixture::with(options).await;
    system.receive("TEA-01", 10).await;
    let id = system.fulfil("tok_visa").await;
    let reason = json!({ "reason": "changed my mind" });
    system.post(&format!("/orders/{id}/cancel"), &reason).await;
    system.settled().await;
    (system, id, refuses)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_fulfilment_is_listed_and_resumed() {
    let (system, id, refuses) = stuck().await;
    let listed = system.json(&["sagas", "--stuck"], 1).await;
    let saga = &listed["sagas"][0];
    assert_eq!(
        (&saga["order"], &saga["phase"]),
        (&json!(id), &json!("stuck")),
        "{listed}"
    );
    assert_eq!(
        (&saga["step"], &saga["next"]),
        (&json!("capture-payment"), &json!("operator"))
    );
    assert_eq!(saga["reason"], "call us");
    let said = system.run(&["sagas"]).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.out
            .lines()
            .any(|line| line.starts_with(&id) && line.ends_with("call us"))
    );

    refuses.store(false, Ordering::Relaxed);
    let resumed = system.run(&["saga", "resume", &id]).await;
    assert_eq!(resumed.status, 0, "{resumed:?}");
    system.settled().await;
    let state = system
        .json(&["state", &format!("fulfilment-{id}")], 0)
        .await;
    assert_eq!(state["state"]["reason"], "changed my mind", "{state}");
    let said = system.run(&["sagas"]).await;
    assert_eq!(
        (said.status, said.out.as_str()),
        (0, "Every fulfilment has ended.\n")
    );
    let again = system.run(&["saga", "resume", &id]).await;
    assert_eq!(again.status, 1, "{again:?}");
    assert!(again.err.contains("is not stuck"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_step_is_left_with_the_reason() {
    let (system, id, _) = stuck().await;
    let without = system.run(&["saga", "abandon", &id]).await;
    assert_eq!(without.status, 2, "{without:?}");
    let arguments = [
        "--as",
        "jane",
        "saga",
        "abandon",
        &id,
        "--reason",
        "refunded by hand",
    ];
    let abandoned = system.json(&arguments, 0).await;
    assert_eq!(abandoned, json!({ "order": id, "did": "abandon" }));
    system.settled().await;
    let history = system
        .json(&["history", &format!("fulfilment-{id}")], 0)
        .await;
    let events = history["events"].as_array().unwrap();
    let left = events
        .iter()
        .find(|event| event["type"] == "StepAbandoned")
        .unwrap();
    assert_eq!(left["data"]["reason"], "refunded by hand");
    assert_eq!(events.last().unwrap()["type"], "FulfilmentAborted");
    // The history shows the operator, and no operator for what the system did.
    let said = system.run(&["history", &id]).await;
    let by = |event: &str| {
        let line = said.out.lines().find(|line| line.contains(event)).unwrap();
        line.split_whitespace().any(|word| word == "jane")
    };
    assert!(by("StepAbandoned") && !by("FulfilmentAborted"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_order_is_not_stuck() {
    let system = Fixture::start().await;
    let id = "2d6944f5-e237-4a33-9c67-ba4a44120b1b";
    let said = system.run(&["saga", "resume", id]).await;
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains(id), "{said:?}");
    let bad = system.run(&["saga", "resume", "order-1"]).await;
    assert_eq!(bad.status, 2, "{bad:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_fulfilment_is_listed_with_its_next_action() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let id = system.place("tok_down").await;
    let reached = until("the payment is due", async || {
        let mut listed = system.json(&["sagas"], 0).await;
        if listed["sagas"][0]["step"] == "authorize-payment" {
            Ok(listed["sagas"][0].take())
        } else {
            Err(listed)
        }
    });
    let saga = reached.await;
    assert_eq!(
        (&saga["order"], &saga["phase"]),
        (&json!(id), &json!("running")),
        "{saga}"
    );
    assert_eq!(saga["action"], "execute");
    let none = system.json(&["sagas", "--stuck"], 0).await;
    assert_eq!(none, json!({ "sagas": [] }));
}
