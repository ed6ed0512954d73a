//! Thousands of malicious requests: each gets a 4xx, and no data is stored.

use axum::{body::Bytes, http::Method};
use fastrand::Rng;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::fixture::{Fixture, order};

const REQUESTS: u64 = 3_000;
const AT_ONCE: usize = 16;

/// JSON values that no field of any body accepts.
const NOTHING_TAKES: [&str; 14] = [
    "-1",
    "1.5",
    "1e400",
    "-0",
    "18446744073709551616",
    "true",
    "{}",
    "[]",
    r#""\u0000""#,
    r#""\ud800""#,
    r#""a\nb""#,
    r#""""#,
    r#""   ""#,
    r#"{"$where":"1"}"#,
];

/// Parts of paths that name no resource.
const NAMES_NOTHING: [&str; 12] = [
    "%00",
    "%0d%0aX-Injected:%201",
    "%23",
    "..%2f..%2fstock",
    "%2e%2e",
    "%ff%fe",
    "%",
    "%zz",
    "*",
    "6F9619FF-8b86-4011-b42d-00cf4fc964ff",
    "6f9619ff8b864011b42d00cf4fc964ff",
    "6f9619ff-8b86-4011-b42d-00cf4fc964ff%20",
];

#[derive(Debug)]
struct Hostile {
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_and_nothing_is_stored() {
    let system = Fixture::start().await;
    let requests = (0..REQUESTS).map(|seed| {
        let client = system.client.clone();
        async move {
            let request = hostile(&mut Rng::with_seed(seed));
            let headers: Vec<_> = request
                .headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let body = Bytes::from(request.body.clone());
            let answer = client
                .send(Method::POST, &request.path, &headers, body)
                .await
                .unwrap_or_else(|error| panic!("request {seed}: {error}"));
            assert!(
                answer.status.is_client_error(),
                "request {seed}: {} {}\n{request:?}",
                answer.status,
                answer.body
            );
        }
    });
    stream::iter(requests)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    assert_eq!(system.history(), []);
    // The system still works afterwards.
    system.receive("TEA-01", 1).await;
    assert_eq!(system.stock("TEA-01").await["onHand"], 1);
}

fn hostile(rng: &mut Rng) -> Hostile {
    let json = vec![("content-type", "application/json".to_owned())];
    let valid = order("TEA-01", 1, "tok_visa");
    let to_orders = |body: Vec<u8>| Hostile {
        path: "/orders".to_owned(),
        headers: json.clone(),
        body,
    };
    match rng.u32(0..8) {
        // Noise, mostly not UTF-8.
        0 => {
            let length = rng.usize(0..2_000);
            to_orders(std::iter::repeat_with(|| rng.u8(..)).take(length).collect())
        }
        // A truncated body, or one with a byte that UTF-8 never has.
        1 => {
            let mut body = valid.to_string().into_bytes();
            if rng.bool() {
                body.truncate(rng.usize(0..body.len()));
            } else {
                let index = rng.usize(0..body.len());
                body[index] = 0xff;
            }
            to_orders(body)
        }
        2 => to_orders(deep(rng.usize(128..50_000), rng.bool())),
        // One field has an invalid value.
        3 | 4 => to_orders(with_one_field_wrong(rng, &valid).into_bytes()),
        // One field is missing or duplicate.
        5 => {
            let text = valid.to_string();
            let fields = [
                "customerId",
                "lines",
                "sku",
                "quantity",
                "currency",
                "token",
                "city",
            ];
            let field = fields[rng.usize(0..fields.len())];
            let (from, to) = (
                format!(r#""{field}":"#),
                format!(r#""{field}":null,"{field}":"#),
            );
            let text = if rng.bool() {
                text.replace(&from, r#""unknown":"#)
            } else {
                text.replace(&from, &to).replace("TEA-01", "tea")
            };
            to_orders(text.into_bytes())
        }
        // The path names no resource.
        6 => {
            let part = match rng.usize(0..=NAMES_NOTHING.len()) {
                index if index < NAMES_NOTHING.len() => NAMES_NOTHING[index].to_owned(),
                _ => "x".repeat(rng.usize(1..5_000)),
            };
            let (before, after, body) = [
                ("/orders/", "/cancel", json!({ "reason": "x" })),
                ("/orders/", "/ship", json!({})),
                ("/stock/", "/receipts", json!({ "quantity": 1 })),
            ][rng.usize(0..3)]
            .clone();
            Hostile {
                path: format!("{before}{part}{after}"),
                headers: json,
                body: body.to_string().into_bytes(),
            }
        }
        // The key is invalid and the body is valid.
        _ => {
            let key = match rng.u32(0..4) {
                0 => "x".repeat(rng.usize(129..4_000)),
                1 => "a key".to_owned(),
                2 => "a/b#c".to_owned(),
                _ => "a\tkey".to_owned(),
            };
            let mut headers = json;
            headers.push(("idempotency-key", key));
            headers.push(("x-correlation-id", "y".repeat(rng.usize(0..4_000))));
            Hostile {
                path: "/orders".to_owned(),
                headers,
                body: valid.to_string().into_bytes(),
            }
        }
    }
}

fn deep(depth: usize, is_closed: bool) -> Vec<u8> {
    let mut body = "[".repeat(depth);
    if is_closed {
        body.push_str(&"]".repeat(depth));
    }
    format!(r#"{{"lines":{body}}}"#).into_bytes()
}

fn with_one_field_wrong(rng: &mut Rng, valid: &Value) -> String {
    let pointers = [
        "/customerId",
        "/lines",
        "/lines/0",
        "/lines/0/sku",
        "/lines/0/quantity",
        "/lines/0/unitPrice",
        "/lines/0/unitPrice/amount",
        "/lines/0/unitPrice/currency",
        "/payment",
        "/payment/token",
        "/shipTo",
        "/shipTo/name",
        "/shipTo/city",
        "/shipTo/country",
    ];
    let mut body = valid.clone();
    *body
        .pointer_mut(pointers[rng.usize(0..pointers.len())])
        .unwrap() = "@here@".into();
    let wrong = match rng.usize(0..=NOTHING_TAKES.len()) {
        index if index < NOTHING_TAKES.len() => NOTHING_TAKES[index].to_owned(),
        _ => format!("\"{}\"", "x".repeat(rng.usize(201..20_000))),
    };
    body.to_string().replace(r#""@here@""#, &wrong)
}
