//! With authorization on: whose tokens are taken, and what they open.

use std::{
    net::Ipv4Addr,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Json, Router, http::StatusCode, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn_local::{client::Client, system::Options};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rsa::{RsaPrivateKey, pkcs1::EncodeRsaPrivateKey, traits::PublicKeyParts};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    events::event,
    fixture::{Fixture, order, template_with},
};

/// The keys of this run: the issuer's own, and a stranger's.
static KEYS: LazyLock<[RsaPrivateKey; 2]> =
    LazyLock::new(|| [(); 2].map(|()| RsaPrivateKey::new(&mut rand::thread_rng(), 2048).unwrap()));

const AUDIENCE: &str = "shop";
/// Those of people who see everything are for another client of the issuer.
const AUDIENCES: &str = "shop,shop-operators";

/// A shop that takes tokens of an issuer of its own.
pub(crate) struct Closed {
    pub(crate) fixture: Fixture,
    issuer: String,
}

impl Closed {
    pub(crate) async fn open() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let issuer = issuer().await;
        let template = template_with(&[
            ("Authorization", "jwt"),
            ("JwtIssuer", &issuer),
            ("JwtAudience", AUDIENCES),
        ]);
        let fixture = Fixture::of(&template, options).await;
        Self { fixture, issuer }
    }

    fn token(&self, customer: &str, scope: &str) -> String {
        signed(0, &self.claims(customer, scope))
    }

    fn claims(&self, customer: &str, scope: &str) -> Value {
        let now = seconds();
        json!({
            "iss": self.issuer, "aud": AUDIENCE, "sub": customer, "scope": scope,
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
    let key = KEYS[key].to_pkcs1_der().unwrap();
    encode(&header, claims, &EncodingKey::from_rsa_der(key.as_bytes())).unwrap()
}

/// Serves what an `OpenID` provider says of itself, with the first of the keys.
async fn issuer() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let number = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
    let key = json!({
        "kty": "RSA", "kid": "key-1", "alg": "RS256", "use": "sig",
        "n": number(KEYS[0].n().to_bytes_be()), "e": number(KEYS[0].e().to_bytes_be()),
    });
    let found = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
    let keys = json!({ "keys": [key] });
    let router = Router::new()
        .route(
            "/.well-known/openid-configuration",
            get(move || std::future::ready(Json(found.clone()))),
        )
        .route("/keys", get(move || std::future::ready(Json(keys.clone()))));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
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
    // Whom it is for may stand in another claim.
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
        ("no end", "exp", Value::Null),
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
    // Signed with the public key as if that were a secret, and not signed at all.
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
    // Before the read model has it, and after.
    for _ in 0..2 {
        for path in ["", "/events", "?minVersion=1", "?at=2999-01-01T00:00:00Z"] {
            let theirs = a.get(&format!("/orders/{order_of_b}{path}")).await.unwrap();
            let none = a.get(&format!("/orders/{unknown}{path}")).await.unwrap();
            assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(theirs.body, none.body, "{path} tells that there is one");
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
async fn only_an_operator_ships_takes_stock_in_and_sees_sales() {
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
    // Everybody who is let in may know what there is to buy.
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

/// What reaches a function past the API has no claims, and is let in by nobody.
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
