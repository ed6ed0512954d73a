//! Authorization: the tokens that the API accepts, and the access that they give.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    http::{Method, StatusCode},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn::Timestamp;
use cairn_local::{Options, Platform, client::Client, template::Trigger};
use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use orders_local::options;
use rsa::{RsaPrivateKey, pkcs1::EncodeRsaPrivateKey, traits::PublicKeyParts};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::{
    events::event,
    fixture::{Fixture, order, template_with},
};

/// The keys of this run: the issuer's, and one of an attacker.
static KEYS: LazyLock<[RsaPrivateKey; 2]> =
    LazyLock::new(|| [(); 2].map(|()| RsaPrivateKey::new(&mut rand::thread_rng(), 2048).unwrap()));

const AUDIENCE: &str = "shop";
/// Tokens of operators are for another client of the issuer.
const AUDIENCES: &str = "shop,shop-operators";

/// A shop that accepts tokens of its own issuer.
pub(crate) struct Closed {
    pub(crate) fixture: Fixture,
    issuer: Issuer,
}

impl Closed {
    pub(crate) async fn open() -> Self {
        Self::with(options()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let issuer = Issuer::start().await;
        let template = template_with(&[
            ("Authorization", "jwt"),
            ("Prices", "caller"),
            ("JwtIssuer", &issuer.url),
            ("JwtAudience", AUDIENCES),
        ]);
        let fixture = Fixture::with_template(&template, options).await;
        Self { fixture, issuer }
    }

    fn token(&self, customer: &str, scope: &str) -> String {
        signed(0, &self.claims(customer, scope))
    }

    fn claims(&self, customer: &str, scope: &str) -> Value {
        let now = seconds();
        json!({
            "iss": self.issuer.url, "aud": AUDIENCE, "sub": customer, "scope": scope,
            "iat": now, "exp": now + 300,
        })
    }

    fn bearing(&self, token: String) -> Client {
        self.fixture.client.clone().bearing(token)
    }

    pub(crate) fn customer(&self, id: &str) -> Client {
        self.bearing(self.token(id, "openid"))
    }

    pub(crate) fn operator(&self) -> Client {
        self.bearing(self.token("o-1", "openid cairn/operator"))
    }

    async fn status(&self, token: &str) -> StatusCode {
        let path = "/customers/c-1/orders";
        let answer = self.bearing(token.to_owned()).get(path).await.unwrap();
        if answer.status == StatusCode::UNAUTHORIZED {
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
        answer.status
    }
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn signed(key: usize, claims: &Value) -> String {
    let header = Header {
        kid: Some("key-1".to_owned()),
        ..Header::new(Algorithm::RS256)
    };
    signed_as(key, &header, claims)
}

fn signed_as(key: usize, header: &Header, claims: &Value) -> String {
    let key = KEYS[key].to_pkcs1_der().unwrap();
    encode(header, claims, &EncodingKey::from_rsa_der(key.as_bytes())).unwrap()
}

struct Issuer {
    url: String,
    fetches: Arc<AtomicUsize>,
    is_available: Arc<AtomicBool>,
}

impl Issuer {
    /// Serves the discovery document of an `OpenID` provider, with the first of the keys.
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let number = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({
            "kty": "RSA", "kid": "key-1", "alg": "RS256", "use": "sig",
            "n": number(KEYS[0].n().to_bytes_be()), "e": number(KEYS[0].e().to_bytes_be()),
        });
        let unknown = json!({ "kty": "NEW", "kid": "key-2" });
        let found = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let keys = json!({ "keys": [unknown, key] });
        let issuer = Self {
            url,
            fetches: Arc::default(),
            is_available: Arc::new(AtomicBool::new(true)),
        };
        let (fetches, is_available) = (issuer.fetches.clone(), issuer.is_available.clone());
        let answer = move || {
            fetches.fetch_add(1, Ordering::SeqCst);
            let status = if is_available.load(Ordering::SeqCst) {
                StatusCode::OK
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            std::future::ready((status, Json(keys.clone())))
        };
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || std::future::ready(Json(found.clone()))),
            )
            .route("/keys", get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

/// The local platform with a clock that a test advances.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Platform for Clock {
    fn now(&self) -> Timestamp {
        let passed = Duration::from_millis(self.0.load(Ordering::SeqCst));
        Timestamp::now().after(passed)
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn chance(&self) -> f64 {
        0.5
    }

    fn pace(&self, wait: Duration) -> Duration {
        wait / 60
    }
}

async fn placed(client: &Client, customer: &str) -> String {
    let mut body = order("TEA-01", 1, "tok_visa");
    body["customerId"] = customer.into();
    let answer = client.post("/orders", &[], &body).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    answer.body["orderId"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tokens_of_the_issuer_for_this_audience_and_time_are_taken() {
    let shop = Closed::open().await;
    let answer = shop.fixture.get("/customers/c-1/orders").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "no token");
    let good = shop.claims("c-1", "");
    assert_eq!(shop.status(&signed(0, &good)).await, StatusCode::OK);
    let mut second = good.clone();
    second["aud"] = json!("shop-operators");
    assert_eq!(shop.status(&signed(0, &second)).await, StatusCode::OK);
    // The audience may be in another claim.
    let mut other = good.clone();
    other["client_id"] = other["aud"].take();
    other.as_object_mut().unwrap().remove("aud");
    assert_eq!(shop.status(&signed(0, &other)).await, StatusCode::OK);

    let mut refused = vec![
        ("no token at all", "x.y.z".to_owned()),
        ("another's key", signed(1, &good)),
    ];
    for (why, name, value) in [
        ("expired", "exp", json!(seconds() - 1)),
        ("not valid yet", "nbf", json!(seconds() + 200)),
        ("no expiry", "exp", Value::Null),
        ("an expiry that is not a time", "exp", json!("soon")),
        ("issued in the future", "iat", json!(seconds() + 200)),
        ("a start that is not a time", "nbf", json!("soon")),
        ("an ID token", "token_use", json!("id")),
        ("another issuer", "iss", json!("http://127.0.0.1:1")),
        ("another audience", "aud", json!("other-shop")),
        ("both at once", "aud", json!(AUDIENCES)),
        ("nobody's", "sub", json!("")),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        refused.push((why, signed(0, &claims)));
    }
    for (why, token) in refused {
        let status = shop.status(&token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{why}");
    }
    // Signed with the public key as a secret, and unsigned.
    let unsigned = |head: Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&head), part(&good))
    };
    for algorithm in ["none", "HS256"] {
        let token = unsigned(json!({ "alg": algorithm, "kid": "key-1" }));
        let status = shop.status(&token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{algorithm}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_deals_with_their_own_orders_and_with_no_others() {
    let shop = Closed::open().await;
    let (a, b) = (shop.customer("c-a"), shop.customer("c-b"));
    let order_of_b = placed(&b, "c-b").await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    // Before and after the read model has the order.
    for _ in 0..2 {
        for path in ["", "/events", "?minVersion=1", "?at=2999-01-01T00:00:00Z"] {
            let theirs = a.get(&format!("/orders/{order_of_b}{path}")).await.unwrap();
            let none = a.get(&format!("/orders/{unknown}{path}")).await.unwrap();
            assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(theirs.body, none.body, "{path} reveals the order");
            let own = b.get(&format!("/orders/{order_of_b}{path}")).await.unwrap();
            assert_eq!(own.status, StatusCode::OK, "{path}");
        }
        shop.fixture.settled().await;
    }
    let cancel = format!("/orders/{order_of_b}/cancel");
    let reason = json!({ "reason": "not mine" });
    let answer = a.post(&cancel, &[], &reason).await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let answer = a.get("/customers/c-b/orders").await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let mut body = order("TEA-01", 1, "tok_visa");
    body["customerId"] = "c-b".into();
    let answer = a.post("/orders", &[], &body).await.unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);

    let answer = b.get("/customers/c-b/orders").await.unwrap();
    assert_eq!(answer.body["orders"].as_array().unwrap().len(), 1);
    let answer = b.post(&cancel, &[], &reason).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_operator_ships_takes_stock_in_sets_prices_and_sees_sales() {
    let shop = Closed::open().await;
    let (customer, operator) = (shop.customer("c-a"), shop.operator());
    let id = placed(&customer, "c-a").await;
    let path = format!("/orders/{id}/ship");
    let receipts = "/stock/TEA-01/receipts";
    for (path, body) in [
        (path.as_str(), json!({})),
        (receipts, json!({ "quantity": 5 })),
    ] {
        let answer = customer.post(path, &[], &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    let answer = customer.get("/sales").await.unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let price = json!({ "price": { "amount": 1250, "currency": "EUR" } });
    let answer = customer.put("/products/TEA-01", &[], &price).await.unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let answer = customer.get("/products/TEA-01").await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.body);
    let answer = operator.put("/products/TEA-01", &[], &price).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let answer = customer.get("/products/TEA-01").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);

    let received = json!({ "quantity": 5 });
    let answer = operator.post(receipts, &[], &received).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    let theirs = placed(&operator, "c-a").await;
    shop.fixture.settled().await;
    let path = format!("/orders/{theirs}/ship");
    let answer = operator.post(&path, &[], &json!({})).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    for path in ["/sales", &format!("/orders/{id}"), "/customers/c-a/orders"] {
        let answer = operator.get(path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    // Every authenticated caller may read the stock.
    let answer = customer.get("/stock/TEA-01").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_its_callers_own() {
    let shop = Closed::open().await;
    let key = [("idempotency-key", "k-1")];
    let mut orders = vec![];
    for customer in ["c-a", "c-b"] {
        let client = shop.customer(customer);
        let mut body = order("TEA-01", 1, "tok_visa");
        body["customerId"] = customer.into();
        let first = client.post("/orders", &key, &body).await.unwrap();
        let again = client.post("/orders", &key, &body).await.unwrap();
        assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
        assert_eq!(first.body, again.body);
        orders.push(first.body["orderId"].clone());
    }
    assert_ne!(orders[0], orders[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_critical_extension_and_another_algorithm_are_refused() {
    let shop = Closed::open().await;
    let good = shop.claims("c-1", "");
    assert_eq!(shop.status(&signed(0, &good)).await, StatusCode::OK);
    let header = |algorithm| Header {
        kid: Some("key-1".to_owned()),
        ..Header::new(algorithm)
    };
    for names in [vec!["b64"], vec!["exp"], vec![]] {
        let critical = Header {
            crit: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..header(Algorithm::RS256)
        };
        let status = shop.status(&signed_as(0, &critical, &good)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{names:?}");
    }
    // Signed with the right key, but with an algorithm that the API does not accept.
    let other = signed_as(0, &header(Algorithm::RS512), &good);
    assert_eq!(shop.status(&other).await, StatusCode::UNAUTHORIZED);
    // Signed with the public key as a secret.
    let public = KEYS[0].n().to_bytes_be();
    let secret = EncodingKey::from_secret(&public);
    let confused = encode(&header(Algorithm::HS256), &good, &secret).unwrap();
    assert_eq!(shop.status(&confused).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_cause_one_fetch_in_an_interval() {
    let clock = Arc::new(Clock::default());
    let options = Options {
        platform: clock.clone(),
        ..options()
    };
    let shop = Closed::with(options).await;
    let mut good = shop.claims("c-1", "");
    good["exp"] = json!(seconds() + 3_600);
    let unknown = |kid: usize| {
        let header = Header {
            kid: Some(format!("unknown-{kid}")),
            ..Header::new(Algorithm::RS256)
        };
        signed_as(1, &header, &good)
    };
    let tokens: Vec<_> = (0..32).map(unknown).collect();
    for fetches in 1..=3 {
        let statuses = join_all(tokens.iter().map(|token| shop.status(token))).await;
        assert!(
            statuses
                .iter()
                .all(|status| *status == StatusCode::UNAUTHORIZED)
        );
        assert_eq!(shop.status(&signed(0, &good)).await, StatusCode::OK);
        assert_eq!(shop.issuer.fetches(), fetches);
        clock.pass(Duration::from_secs(31));
    }
    // A failed fetch keeps the known keys.
    shop.issuer.is_available.store(false, Ordering::SeqCst);
    let status = shop.status(&tokens[0]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.status(&signed(0, &good)).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_unavailable_is_503_without_its_address() {
    let clock = Arc::new(Clock::default());
    let options = Options {
        platform: clock.clone(),
        ..options()
    };
    let shop = Closed::with(options).await;
    shop.issuer.is_available.store(false, Ordering::SeqCst);
    let customer = shop.customer("c-1");
    for _ in 0..2 {
        let answer = customer.get("/customers/c-1/orders").await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let wait: u64 = answer.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
        assert!(
            !answer.body.to_string().contains("127.0.0.1"),
            "{}",
            answer.body
        );
    }
    assert_eq!(shop.issuer.fetches(), 1);
    shop.issuer.is_available.store(true, Ordering::SeqCst);
    clock.pass(Duration::from_secs(31));
    let answer = customer.get("/customers/c-1/orders").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}

/// The gateway refuses a token without the scope of an operator's route, and runs no function.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_requires_the_scopes_of_a_route() {
    let shop = Closed::open().await;
    let hosts = &shop.fixture.system.composition.hosts;
    let scoped = hosts.values().flat_map(|hosted| {
        let triggers = hosted.spec.triggers.iter();
        triggers.filter_map(move |trigger| match trigger {
            Trigger::Http(route) if route.scopes.as_ref().is_some_and(|own| !own.is_empty()) => {
                Some((hosted, route))
            }
            _ => None,
        })
    });
    let scoped: Vec<_> = scoped.collect();
    assert!(scoped.len() >= 3, "{scoped:?}");
    for (hosted, route) in scoped {
        let path = route
            .path
            .replace("{orderId}", "x")
            .replace("{sku}", "TEA-01");
        let method: Method = route.method.parse().unwrap();
        let json = [("content-type", "application/json")];
        let body = json!({ "quantity": 1 }).to_string();
        for scope in ["", "openid", "cairn/operators", "cairn"] {
            let client = shop.bearing(shop.token("c-1", scope));
            let answer = client.send(method.clone(), &path, &json, body.clone().into());
            let answer = answer.await.unwrap();
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {scope}");
            assert_eq!(answer.headers["content-type"], "application/problem+json");
        }
        assert_eq!(hosted.invocations(), 0, "{path}");
        let answer = shop
            .operator()
            .send(method, &path, &json, body.into())
            .await;
        assert_ne!(answer.unwrap().status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(hosted.invocations(), 1, "{path}");
    }
}

/// A direct invocation of a function has no claims and is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_asks_for_claims_itself() {
    let shop = Closed::open().await;
    let mut event: Value = serde_json::from_str(&event("get-sales")).unwrap();
    let context = event["requestContext"].as_object_mut().unwrap();
    context.remove("authorizer").unwrap();
    let system = &shop.fixture.system.composition;
    let answer = system.invoke("GetSalesFunction", &event.to_string()).await;
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(answer["statusCode"], 401, "{answer}");
}
