//! Payments by Stripe, against a fake that follows Stripe's documentation of payment intents and
//! idempotency keys.
//! <https://docs.stripe.com/api/payment_intents>,
//! <https://docs.stripe.com/api/idempotent_requests>

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use cairn::{
    Timestamp,
    provider::{Call, ProviderError},
};
use cairn_aws::lambda::{http_client::HttpClient, secret::Secret};
use cairn_local::{
    LocalPlatform, Options, Platform,
    aws::secrets::Secrets,
    platform::{CallFault, FaultDecision},
};
use orders::{
    providers::{AuthorizationRequest, PaymentProvider},
    values::Money,
};
use orders_local::options;
use payments::Stripe;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::fixture::{Fixture, order, template_with};

const ARN: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:stripe";
const KEY: &str = "sk_test_stand_in";

#[derive(Default)]
struct Account {
    intents: BTreeMap<String, Intent>,
    throttled: usize,
    /// The request and its answer, by idempotency key.
    answers: HashMap<String, (String, u16, Value)>,
}

#[derive(Clone, Debug)]
struct Intent {
    status: &'static str,
    form: HashMap<String, String>,
    refunded: bool,
}

impl Intent {
    fn shown(&self, id: &str) -> Value {
        json!({ "id": id, "object": "payment_intent", "status": self.status })
    }
}

#[derive(Clone)]
struct StandIn {
    url: String,
    account: Arc<Mutex<Account>>,
}

impl StandIn {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let account = Arc::<Mutex<Account>>::default();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(account.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, account }
    }

    /// Returns the states of all intents, and true for each refunded one.
    fn intents(&self) -> Vec<(&'static str, bool)> {
        let account = self.account.lock().unwrap();
        let intents = account.intents.values();
        intents
            .map(|intent| (intent.status, intent.refunded))
            .collect()
    }
}

async fn answer(
    State(account): State<Arc<Mutex<Account>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if header(header::AUTHORIZATION.as_str()) != Some(&format!("Bearer {KEY}")) {
        return (StatusCode::UNAUTHORIZED, "{}").into_response();
    }
    let key = header("idempotency-key").unwrap().to_owned();
    let request = format!("{uri} {}", String::from_utf8_lossy(&body));
    let mut account = account.lock().unwrap();
    if account.throttled > 0 {
        account.throttled -= 1;
        let error = json!({ "error": { "code": "rate_limit" } }).to_string();
        let later = [(header::RETRY_AFTER, "30")];
        return (StatusCode::TOO_MANY_REQUESTS, later, error).into_response();
    }
    let (status, answer) = match account.answers.get(&key) {
        Some((asked, status, answer)) if *asked == request => (*status, answer.clone()),
        Some(_) => (400, json!({ "error": { "type": "idempotency_error" } })),
        None => {
            let form = form_urlencoded::parse(&body).into_owned().collect();
            let (status, answer) = account.carry_out(uri.path(), form);
            let kept = (request, status, answer.clone());
            account.answers.insert(key, kept);
            (status, answer)
        }
    };
    let status = StatusCode::from_u16(status).unwrap();
    (status, answer.to_string()).into_response()
}

impl Account {
    fn carry_out(&mut self, path: &str, form: HashMap<String, String>) -> (u16, Value) {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["v1", "payment_intents"] => {
                if form["payment_method_data[card][token]"] == "tok_nobodys" {
                    return (400, json!({ "error": { "code": "resource_missing" } }));
                }
                let id = format!("pi_{}", self.intents.len() + 1);
                let intent = Intent {
                    status: "requires_confirmation",
                    form,
                    refunded: false,
                };
                let shown = intent.shown(&id);
                self.intents.insert(id, intent);
                (200, shown)
            }
            ["v1", "payment_intents", id, verb] => {
                let intent = self.intents.get_mut(*id).unwrap();
                let token = intent.form["payment_method_data[card][token]"].as_str();
                let next = match (*verb, intent.status) {
                    ("confirm", "requires_confirmation") if token == "tok_chargeDeclined" => {
                        intent.status = "requires_payment_method";
                        return (402, json!({ "error": { "code": "card_declined" } }));
                    }
                    ("confirm", "requires_confirmation") => "requires_capture",
                    ("capture", "requires_capture") => "succeeded",
                    ("cancel", status) if status.starts_with("requires") => "canceled",
                    _ => {
                        let error = json!({
                            "code": "payment_intent_unexpected_state",
                            "payment_intent": intent.shown(id),
                        });
                        return (400, json!({ "error": error }));
                    }
                };
                intent.status = next;
                (200, intent.shown(id))
            }
            ["v1", "refunds"] => {
                let intent = self.intents.get_mut(&form["payment_intent"]).unwrap();
                if intent.status != "succeeded" || intent.refunded {
                    return (
                        400,
                        json!({ "error": { "code": "charge_already_refunded" } }),
                    );
                }
                intent.refunded = true;
                (200, json!({ "id": "re_1", "status": "succeeded" }))
            }
            _ => (404, json!({ "error": {} })),
        }
    }
}

async fn shop(stripe: &StandIn, platform: Arc<dyn Platform>) -> Fixture {
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("Payments", "stripe"),
        ("StripeSecretArn", ARN),
        ("StripeUrl", &stripe.url),
        ("StepTimeoutSeconds", "2"),
    ]);
    let mut secrets = Secrets::default();
    secrets.add(ARN.to_owned(), KEY.to_owned());
    let options = Options {
        secrets,
        platform,
        ..options()
    };
    let shop = Fixture::with_template(&template, options).await;
    shop.receive("TEA-01", 10).await;
    shop
}

fn calm() -> Arc<dyn Platform> {
    Arc::new(LocalPlatform::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_held_and_then_taken() {
    let stripe = StandIn::start().await;
    let shop = shop(&stripe, calm()).await;
    let placed = shop.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    assert_eq!(placed["status"], "confirmed");
    assert_eq!(stripe.intents(), [("succeeded", false)]);
    let form = stripe.account.lock().unwrap().intents["pi_1"].form.clone();
    assert_eq!((&*form["amount"], &*form["currency"]), ("2500", "eur"));
    assert_eq!(form["capture_method"], "manual");
    let events = shop.events(placed["orderId"].as_str().unwrap()).await;
    let authorized = events
        .iter()
        .find(|event| event.event.name == "PaymentAuthorized");
    let data = authorized.unwrap().event.data.get();
    assert!(data.contains(r#""reference":"pi_1""#), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_is_in_the_units_of_stripe() {
    let stripe = StandIn::start().await;
    let shop = shop(&stripe, calm()).await;
    for (amount, currency, charged) in [(500, "ISK", "50000"), (500, "MGA", "5")] {
        let mut body = order("TEA-01", 1, "tok_visa");
        body["lines"][0]["unitPrice"] = json!({ "amount": amount, "currency": currency });
        let placed = shop.fulfil(&body).await;
        assert_eq!(placed["status"], "confirmed", "{placed}");
        let account = stripe.account.lock().unwrap();
        let forms = account.intents.values().map(|intent| &intent.form);
        let mut forms = forms.filter(|form| form["currency"] == currency.to_lowercase());
        assert_eq!(forms.next().unwrap()["amount"], charged);
    }
}

#[tokio::test]
async fn a_429_says_when_to_call_again() {
    let stand_in = StandIn::start().await;
    stand_in.account.lock().unwrap().throttled = 1;
    let key = Secret::from_value(KEY.to_owned());
    let stripe = Stripe::new(HttpClient::network(), &stand_in.url, key);
    let call = Call {
        key: "a",
        attempt: 1,
    };
    let amount = Money {
        amount: 1250,
        currency: "EUR".parse().unwrap(),
    };
    let token = "tok_visa".parse().unwrap();
    let throttled = ProviderError::Throttled {
        reason: "Stripe responded 429 rate_limit".to_owned(),
        retry_after: Some(Duration::from_secs(30)),
    };
    let answer = stripe.authorize(call, &token, amount).await;
    assert_eq!(answer, Err(throttled));
    assert!(stripe.authorize(call, &token, amount).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_card_and_an_unknown_one_cancel_the_order() {
    let stripe = StandIn::start().await;
    let shop = shop(&stripe, calm()).await;
    for (token, reason) in [
        ("tok_chargeDeclined", "payment declined"),
        ("tok_nobodys", "Stripe responded 400 resource_missing"),
    ] {
        let order = shop.fulfil(&order("TEA-01", 1, token)).await;
        assert_eq!(order["status"], "cancelled");
        assert_eq!(order["cancellation"]["reason"], reason);
    }
    assert_eq!(stripe.intents(), [("requires_payment_method", false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn held_money_is_released_and_captured_money_is_refunded() {
    let stripe = StandIn::start().await;
    let shop = shop(&stripe, calm()).await;
    let mut nowhere = order("TEA-01", 1, "tok_visa");
    nowhere["shipTo"]["country"] = "XX".into();
    let order_nowhere = shop.fulfil(&nowhere).await;
    assert_eq!(order_nowhere["fulfilment"]["status"], "aborted");
    assert_eq!(stripe.intents(), [("canceled", false)]);

    let confirmed = shop.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let id = confirmed["orderId"].as_str().unwrap();
    let reason = json!({ "reason": "changed my mind" });
    shop.post(&format!("/orders/{id}/cancel"), &reason).await;
    shop.settled().await;
    assert_eq!(shop.order(id).await["fulfilment"]["status"], "aborted");
    assert_eq!(stripe.intents(), [("canceled", false), ("succeeded", true)]);
}

/// A platform that loses the first answer to each distinct request to Stripe.
#[derive(Debug)]
struct Forgetful {
    asked: Mutex<HashSet<String>>,
    here: LocalPlatform,
}

impl Platform for Forgetful {
    fn now(&self) -> Timestamp {
        self.here.now()
    }

    fn new_id(&self) -> Uuid {
        self.here.new_id()
    }

    fn chance(&self) -> f64 {
        self.here.chance()
    }

    fn pace(&self, wait: Duration) -> Duration {
        self.here.pace(wait)
    }

    fn call(&self, _: &str, operation: &str) -> FaultDecision {
        let is_new = self.asked.lock().unwrap().insert(operation.to_owned());
        let is_stripe = operation.starts_with("http");
        FaultDecision {
            fault: (is_stripe && is_new).then_some(CallFault::AnswerLost),
            ..FaultDecision::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_charges_nobody_twice() {
    let stripe = StandIn::start().await;
    let platform = Arc::new(Forgetful {
        asked: Mutex::default(),
        here: LocalPlatform::default(),
    });
    let shop = shop(&stripe, platform.clone()).await;
    let placed = shop.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    assert_eq!(placed["status"], "confirmed");
    assert_eq!(stripe.intents(), [("succeeded", false)]);
    let asked = platform.asked.lock().unwrap().clone();
    let lost = asked.iter().filter(|call| call.starts_with("http")).count();
    assert_eq!(lost, 3, "create, confirm and capture: {asked:?}");
}

/// The authorization has no known outcome: the compensation determines it, and prevents a late one.
#[tokio::test]
async fn what_has_no_known_outcome_is_undone_for_good() {
    let stand_in = StandIn::start().await;
    let key = Secret::from_value(KEY.to_owned());
    let stripe = Stripe::new(HttpClient::network(), &stand_in.url, key);
    let call = |key| Call { key, attempt: 1 };
    let token = "tok_visa".parse().unwrap();
    let amount = Money {
        amount: 1250,
        currency: "EUR".parse().unwrap(),
    };
    let asked = |key| AuthorizationRequest {
        key,
        token: &token,
        amount,
        reference: None,
    };
    // Authorized, but the answer was lost.
    stripe.authorize(call("a"), &token, amount).await.unwrap();
    stripe.void(call("a/void"), asked("a")).await.unwrap();
    stripe.void(call("a/void"), asked("a")).await.unwrap();
    // Voided before the authorization arrived.
    stripe.void(call("b/void"), asked("b")).await.unwrap();
    let late = stripe.authorize(call("b"), &token, amount).await;
    let refused = ProviderError::Permanent("the payment is canceled".to_owned());
    assert_eq!(late, Err(refused));
    assert_eq!(
        stand_in.intents(),
        [("canceled", false), ("canceled", false)]
    );

    // Refunded before the capture, which is then impossible.
    let held = stripe.authorize(call("c"), &token, amount).await.unwrap();
    stripe
        .refund(call("c/refund"), &held, "c/capture")
        .await
        .unwrap();
    let late = stripe.capture(call("c/capture"), &held).await;
    assert!(matches!(late, Err(ProviderError::Permanent(_))), "{late:?}");
}

#[tokio::test]
async fn a_key_that_is_not_taken_is_no_answer_to_the_customer() {
    let stand_in = StandIn::start().await;
    let key = Secret::from_value("sk_test_another".to_owned());
    let stripe = Stripe::new(HttpClient::network(), &stand_in.url, key);
    let call = Call {
        key: "a",
        attempt: 1,
    };
    let amount = Money {
        amount: 1250,
        currency: "EUR".parse().unwrap(),
    };
    let token = "tok_visa".parse().unwrap();
    let answer = stripe.authorize(call, &token, amount).await;
    assert!(
        matches!(answer, Err(ProviderError::Transient(_))),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_to_the_address_of_the_order_by_ses() {
    let template = template_with(&[
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("Mail", "ses"),
        ("MailFrom", "shop@example.com"),
    ]);
    let shop = Fixture::with_template(&template, options()).await;
    shop.receive("TEA-01", 10).await;
    let mut with_address = order("TEA-01", 1, "tok_visa");
    with_address["email"] = "ada@example.com".into();
    let placed = shop.fulfil(&with_address).await;
    shop.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let mails = shop.system.composition.aws.mailbox.mails();
    assert_eq!(mails.len(), 1, "no address, no email: {mails:?}");
    assert_eq!(mails[0]["FromEmailAddress"], "shop@example.com");
    assert_eq!(
        mails[0]["Destination"]["ToAddresses"],
        json!(["ada@example.com"])
    );
    let message = &mails[0]["Content"]["Simple"];
    assert_eq!(message["Subject"]["Data"], "Your order is confirmed");
    let id = placed["orderId"].as_str().unwrap();
    assert_eq!(message["Headers"][0]["Value"], format!("order-{id}@2"));
}
