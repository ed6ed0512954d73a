//! Providers that hang, throttle, or accept only some amounts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use cairn::provider::{Call, ProviderError};
use cairn_local::Composition;
use orders::{
    payment::Authorization,
    providers::{AuthorizationRequest, PaymentProvider, SandboxPayments},
    values::{Money, PaymentToken},
};
use orders_local::{functions, parts};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    fixture::{order, template, template_with},
    still::StillShop,
};

/// Time is virtual: it passes only while every task waits.
#[tokio::test(start_paused = true)]
async fn a_provider_that_does_not_answer_delays_its_own_orders_only() {
    let shop = StillShop::open();
    for _ in 0..100 {
        shop.place(&order("TEA-01", 1, "tok_down")).await;
    }
    // All work that does not wait for the provider is done.
    sleep(Duration::from_millis(1)).await;
    let began = shop.platform.elapsed();
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    while shop.order(&id).await["status"] != "confirmed" {
        sleep(Duration::from_millis(1)).await;
        let waited = shop.platform.elapsed().checked_sub(began).unwrap();
        assert!(waited < Duration::from_secs(1), "it waits for the others");
    }
    assert_eq!(
        shop.stock().await["reserved"],
        100,
        "none of them has ended"
    );
}

#[test]
fn concurrency_is_reserved_by_parameters() {
    let reserved = |parameters: &[(&str, &str)]| -> Vec<(String, usize)> {
        let functions = template_with(parameters).functions.into_iter();
        functions
            .filter_map(|spec| Some((spec.stem, spec.reserved?)))
            .collect()
    };
    assert_eq!(reserved(&[("Authorization", "none")]), []);
    let parameters = [
        ("Authorization", "none"),
        ("PaymentConcurrency", "20"),
        ("StockConcurrency", "50"),
        ("ProjectionConcurrency", "100"),
        ("MailConcurrency", "1"),
    ];
    let functions = template().functions.into_iter();
    let expected: Vec<_> = functions
        .filter_map(|spec| {
            let count = match spec.stem.as_str() {
                "reserve-stock" | "confirm-order" => 50,
                "authorize-payment" | "capture-payment" => 20,
                "notify-customer" => 1,
                stem if stem.starts_with("project-") => 100,
                _ => return None,
            };
            Some((spec.stem, count))
        })
        .collect();
    assert_eq!(reserved(&parameters), expected);
}

#[test]
fn reservations_that_leave_no_concurrency_are_refused() {
    let parameters = [("Authorization", "none"), ("PaymentConcurrency", "500")];
    let refused = Composition::start(&template_with(&parameters), parts()).unwrap_err();
    let problem = "the reservations use up the 1000 concurrent invocations";
    assert!(refused.to_string().contains(problem), "{refused}");
}

/// A hanging function uses only its reserved concurrency, and its waiting events are kept.
#[tokio::test(start_paused = true)]
async fn orders_wait_for_a_reserved_payment_step_and_the_api_answers() {
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("PaymentConcurrency", "2"),
    ]);
    let shop = StillShop::with_template(&template, parts());
    for _ in 0..6 {
        shop.place(&order("TEA-01", 1, "tok_down")).await;
    }
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    assert_eq!(shop.order(&id).await["status"], "placed");
    let placed = shop.until(&id, "completed").await;
    assert_eq!(placed["status"], "confirmed");
    let events = shop.events(&id).await;
    assert!(!events.contains(&"StepRetried".to_owned()), "{events:?}");
}

/// A provider that throttles its first calls and demands these pauses before the next ones.
struct Throttling {
    pauses: Mutex<VecDeque<Option<Duration>>>,
}

impl Throttling {
    fn ask(&self) -> Result<(), ProviderError> {
        match self.pauses.lock().unwrap().pop_front() {
            None => Ok(()),
            Some(retry_after) => Err(ProviderError::Throttled {
                reason: "Stripe says 429".to_owned(),
                retry_after,
            }),
        }
    }
}

#[derive(Clone)]
struct Paced(Arc<Throttling>);

impl PaymentProvider for Paced {
    async fn authorize(
        &self,
        call: Call<'_>,
        token: &PaymentToken,
        amount: Money,
    ) -> Result<Authorization, ProviderError> {
        self.0.ask()?;
        SandboxPayments.authorize(call, token, amount).await
    }

    async fn capture(&self, _: Call<'_>, _: &Authorization) -> Result<(), ProviderError> {
        self.0.ask()
    }

    async fn void(&self, _: Call<'_>, _: AuthorizationRequest<'_>) -> Result<(), ProviderError> {
        self.0.ask()
    }

    async fn refund(&self, _: Call<'_>, _: &Authorization, _: &str) -> Result<(), ProviderError> {
        self.0.ask()
    }
}

fn throttled(pauses: impl IntoIterator<Item = Option<Duration>>) -> StillShop {
    let provider = Paced(Arc::new(Throttling {
        pauses: Mutex::new(pauses.into_iter().collect()),
    }));
    let capture = provider.clone();
    let functions = functions()
        .with("authorize-payment", move |app| {
            authorize_payment::with(app, provider.clone())
        })
        .with("capture-payment", move |app| {
            capture_payment::with(app, capture.clone())
        });
    StillShop::with(functions)
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_throttles_paces_an_order_and_uses_up_no_retry() {
    // More often than a step is retried before it is abandoned.
    let shop = throttled([None; 12]);
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    let placed = shop.until(&id, "completed").await;
    assert_eq!(placed["status"], "confirmed");
    let throttled = shop.platform.metrics().into_iter();
    let throttled = throttled.filter(|line| line.get("ProviderThrottled").is_some());
    assert_eq!(throttled.count(), 12);
    assert_eq!(shop.depth("DeadLettersQueue"), 0);
    let (_, body) = shop
        .send("GET", &format!("/orders/{id}/events"), &Value::Null)
        .await;
    let events = body["events"].as_array().unwrap().iter();
    let asked: Vec<_> = events
        .filter(|event| event["type"] == "StepRetried")
        .map(|event| event["data"]["retry"].clone())
        .collect();
    assert_eq!(asked, vec![json!(0); 12]);
    assert!(shop.items("DeadlinesTable").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_not_asked_before_the_time_that_it_wants() {
    let pause = Duration::from_mins(40);
    let shop = throttled([Some(pause)]);
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    shop.until(&id, "completed").await;
    assert!(shop.platform.elapsed() >= pause);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_no_card_can_be_charged_with_is_refused_before_anything_is_stored() {
    let shop = StillShop::open();
    for (amount, currency, status) in [
        (0, "EUR", 422),
        (49, "EUR", 422),
        (50, "EUR", 201),
        (550, "MGA", 422),
        (500, "MGA", 201),
        (500, "ISK", 201),
        (5_124, "KWD", 422),
        (5_120, "KWD", 201),
        (1_000, "KPW", 422),
    ] {
        let mut body = order("TEA-01", 1, "tok_visa");
        body["lines"][0]["unitPrice"] = json!({ "amount": amount, "currency": currency });
        let stored = shop.items("EventsTable").len();
        let (answered, answer) = shop.send("POST", "/orders", &body).await;
        assert_eq!(answered, status, "{amount} {currency}: {answer}");
        if status == 422 {
            assert_eq!(answer["errors"][0]["pointer"], "/lines", "{answer}");
            assert_eq!(shop.items("EventsTable").len(), stored);
        }
        shop.system.settled().await;
    }
}
