//! Every row of the contract's table of bad input: a clear error, and no stored data.

use std::error::Error as _;

use axum::{
    body::Bytes,
    http::{Method, StatusCode},
};
use cairn_local::{Options, client::Answer};
use orders_local::options;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Holding, order, template_taking};

#[track_caller]
fn problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    for member in ["type", "title", "detail"] {
        assert!(
            answer.body[member].is_string(),
            "no {member}: {}",
            answer.body
        );
    }
    assert_eq!(answer.body["status"], status);
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut order = order("TEA-01", 1, "tok_visa");
    *order.pointer_mut(pointer).unwrap() = value;
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_is_pointed_at_and_nothing_is_stored() {
    let system = Fixture::start().await;
    let line = order("TEA-01", 1, "tok_visa")["lines"][0].clone();
    let dollars = {
        let mut line = line.clone();
        line["unitPrice"]["currency"] = json!("USD");
        line
    };
    let dear = {
        let mut line = line.clone();
        line["unitPrice"]["amount"] = json!(9_007_199_254_740_991_u64);
        line
    };
    let cases = [
        (changed("/customerId", json!(7)), "/customerId"),
        (
            changed("/lines/0/quantity", json!("2")),
            "/lines/0/quantity",
        ),
        (changed("/lines/0/quantity", json!(0)), "/lines/0/quantity"),
        (
            changed("/lines/0/quantity", json!(1_000_001)),
            "/lines/0/quantity",
        ),
        (
            changed("/lines/0/quantity", json!(1.5)),
            "/lines/0/quantity",
        ),
        (changed("/lines/0/quantity", json!(-1)), "/lines/0/quantity"),
        (
            changed("/lines/0/unitPrice/currency", json!("EUX")),
            "/lines/0/unitPrice/currency",
        ),
        (
            changed("/lines", json!([line, dollars])),
            "/lines/1/unitPrice/currency",
        ),
        (changed("/lines", json!([])), "/lines"),
        (changed("/lines", json!(vec![line.clone(); 51])), "/lines"),
        (changed("/lines", json!("none")), "/lines"),
        (changed("/lines/0/sku", json!("tea 01")), "/lines/0/sku"),
        (
            changed("/lines/0/sku", json!("A".repeat(41))),
            "/lines/0/sku",
        ),
        (changed("/lines", json!([dear, line])), "/lines"),
        (changed("/payment", json!(null)), "/payment"),
        (changed("/payment/token", json!(null)), "/payment/token"),
        (changed("/shipTo", json!("here")), "/shipTo"),
        (changed("/lines/0", json!(1)), "/lines/0"),
        (
            changed("/shipTo/country", json!("Germany")),
            "/shipTo/country",
        ),
        (json!([]), ""),
    ];
    for (body, pointer) in cases {
        let answer = system.post("/orders", &body).await;
        problem(&answer, 422);
        let errors = answer.body["errors"].as_array().unwrap();
        assert!(
            errors.iter().any(|error| error["pointer"] == pointer),
            "{pointer}: {errors:?}"
        );
    }
    for (quantity, path) in [
        (json!(0), "/stock/TEA-01/receipts"),
        (json!("1"), "/stock/TEA-01/receipts"),
    ] {
        problem(
            &system.post(path, &json!({ "quantity": quantity })).await,
            422,
        );
    }
    problem(
        &system
            .post("/stock/tea%2F01/receipts", &json!({ "quantity": 1 }))
            .await,
        400,
    );
    assert!(system.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_no_route_names_is_ignored() {
    let system = Fixture::start().await;
    for path in [
        "/customers/c-42/orders?color=red,blue&color=",
        "/sales?limit=x",
    ] {
        assert_eq!(system.get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_there_twice_is_pointed_at_and_nothing_is_stored() {
    let system = Fixture::start().await;
    let body = order("TEA-01", 1, "tok_visa").to_string();
    let twice = |name: &str, value: &str| {
        let member = format!("\"{name}\":");
        body.replacen(&member, &format!("\"{name}\":{value},{member}"), 1)
    };
    let orders = [
        (twice("customerId", "\"c-42\""), "/customerId"),
        (twice("quantity", "1"), "/lines/0/quantity"),
        (twice("amount", "1"), "/lines/0/unitPrice/amount"),
        (twice("token", "\"tok_visa\""), "/payment/token"),
        (twice("city", "\"Berlin\""), "/shipTo/city"),
        (twice("lines", "[]"), "/lines"),
        (
            body.replacen('{', r#"{"x":{"y":[{"z":1,"z":1}]},"#, 1),
            "/x/y/0/z",
        ),
    ];
    let id = "7b9f7c4e-0d5c-4bb0-9d0e-111111111111";
    let (cancel, ship) = (format!("/orders/{id}/cancel"), format!("/orders/{id}/ship"));
    let others = [
        (cancel.as_str(), r#"{"reason":"a","reason":"b"}"#, "/reason"),
        (ship.as_str(), r#"{"a":1,"a":1}"#, "/a"),
        (
            "/stock/TEA-01/receipts",
            r#"{"quantity":1,"quantity":2}"#,
            "/quantity",
        ),
    ];
    let orders = orders
        .iter()
        .map(|(body, pointer)| ("/orders", body.as_str(), *pointer));
    for (path, body, pointer) in orders.chain(others) {
        let headers = [("content-type", "application/json")];
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = system.client.send(Method::POST, path, &headers, body);
        let answer = answer.await.unwrap();
        problem(&answer, 422);
        assert_eq!(
            answer.body["errors"][0]["pointer"], pointer,
            "{}",
            answer.body
        );
    }
    assert!(system.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_no_reader_sees_or_that_reorders_a_line_is_pointed_at() {
    let system = Fixture::start().await;
    let fields = ["name", "line1", "line2", "city", "postalCode"];
    for text in [
        " ",
        "\u{200b}\u{feff}",
        "\u{3164}",
        "a\u{202e}b",
        "a\u{2028}b",
        "a\u{85}",
        "a\u{ffff}",
    ] {
        for field in fields {
            let mut body = order("TEA-01", 1, "tok_visa");
            body["shipTo"][field] = json!(text);
            let answer = system.post("/orders", &body).await;
            problem(&answer, 422);
            let pointer = format!("/shipTo/{field}");
            assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{text:?}");
        }
        let cancel = "/orders/7b9f7c4e-0d5c-4bb0-9d0e-111111111111/cancel";
        let answer = system.post(cancel, &json!({ "reason": text })).await;
        problem(&answer, 422);
        assert_eq!(answer.body["errors"][0]["pointer"], "/reason", "{text:?}");
    }
    for id in [".", "..", "a/b", "a b", ""] {
        let answer = system
            .post("/orders", &changed("/customerId", json!(id)))
            .await;
        problem(&answer, 422);
        assert_eq!(answer.body["errors"][0]["pointer"], "/customerId", "{id:?}");
    }
    assert!(system.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_is_refused() {
    let system = Fixture::start().await;
    let deep = "[".repeat(100_000);
    for body in [&b"{"[..], b"", b"\xff\xfe", b"{\"a\":1}}", deep.as_bytes()] {
        let headers = [("content-type", "application/json")];
        let body = Bytes::copy_from_slice(body);
        let answer = system
            .client
            .send(Method::POST, "/orders", &headers, body)
            .await
            .unwrap();
        problem(&answer, 400);
    }
    assert!(system.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_said_to_be_json_is_refused() {
    let system = Fixture::start().await;
    let body = Bytes::from(order("TEA-01", 1, "tok_visa").to_string());
    for headers in [&[("content-type", "text/plain")][..], &[]] {
        let answer = system
            .client
            .send(Method::POST, "/orders", headers, body.clone())
            .await
            .unwrap();
        problem(&answer, 415);
    }
    let charset = [("content-type", "application/json; charset=utf-8")];
    let answer = system
        .client
        .send(Method::POST, "/orders", &charset, body)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_256_kb_is_refused() {
    let system = Fixture::start().await;
    let headers = [("content-type", "application/json")];
    for bytes in [256 * 1024 + 1, 2 * 1024 * 1024, 11 * 1024 * 1024] {
        let body = Bytes::from(vec![b' '; bytes]);
        let answer = system
            .client
            .send(Method::POST, "/orders", &headers, body)
            .await
            .unwrap();
        problem(&answer, 413);
    }
    let mut body = order("TEA-01", 1, "tok_visa").to_string();
    body.push_str(&" ".repeat(256 * 1024 - body.len()));
    let answer = system
        .client
        .send(Method::POST, "/orders", &headers, body.into())
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::CREATED, "256 KB are accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_and_a_wrong_method_405() {
    let system = Fixture::start().await;
    let unknown = "7b9f7c4e-0d5c-4bb0-9d0e-111111111111";
    for path in [
        format!("/orders/{unknown}"),
        format!("/orders/{unknown}/events"),
        "/orders/none".to_owned(),
        "/orders/a%23b%2Fc/events".to_owned(),
        "/stock/NONE-01".to_owned(),
        "/stock/tea".to_owned(),
        "/nowhere".to_owned(),
        "/console".to_owned(),
        "/console/nothing.js".to_owned(),
    ] {
        problem(&system.get(&path).await, 404);
    }
    for path in [
        format!("/orders/{unknown}/cancel"),
        "/orders/none/cancel".to_owned(),
    ] {
        problem(&system.post(&path, &json!({ "reason": "x" })).await, 404);
    }
    problem(
        &system
            .post(&format!("/orders/{unknown}/ship"), &json!({}))
            .await,
        404,
    );
    let wrong = system.get("/orders").await;
    assert_eq!(wrong.headers["allow"], "POST");
    for (method, path) in [
        (Method::GET, "/orders"),
        (Method::DELETE, "/orders/none"),
        (Method::PUT, "/stock/TEA-01"),
        (Method::POST, "/sales"),
    ] {
        let answer = system
            .client
            .send(method, path, &[], Bytes::new())
            .await
            .unwrap();
        problem(&answer, 405);
    }
    assert!(system.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_now_is_409_with_the_present_state() {
    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let placed = system.place(&order("TEA-01", 1, "tok_down")).await;
    let too_early = system
        .post(&format!("/orders/{placed}/ship"), &json!({}))
        .await;
    problem(&too_early, 409);
    assert_eq!(too_early.body["order"]["status"], "placed");

    let cancel = format!("/orders/{placed}/cancel");
    let cancelled = system.post(&cancel, &json!({ "reason": "x" })).await;
    assert_eq!(cancelled.status, StatusCode::OK);
    let again = system.post(&cancel, &json!({ "reason": "y" })).await;
    assert_eq!((again.status, again.body), (StatusCode::OK, cancelled.body));
    let too_late = system
        .post(&format!("/orders/{placed}/ship"), &json!({}))
        .await;
    problem(&too_late, 409);
    assert_eq!(too_late.body["order"]["status"], "cancelled");

    let system = Fixture::start().await;
    system.receive("TEA-01", 10).await;
    let order = system.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let id = order["orderId"].as_str().unwrap();
    let shipped = system.post(&format!("/orders/{id}/ship"), &json!({})).await;
    assert_eq!(
        (shipped.status, &shipped.body["status"]),
        (StatusCode::OK, &json!("shipped"))
    );
    let gone = system
        .post(&format!("/orders/{id}/cancel"), &json!({ "reason": "x" }))
        .await;
    problem(&gone, 409);
    assert_eq!(
        gone.body["order"],
        json!({ "orderId": id, "status": "shipped", "version": 3 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_make_no_sense_are_refused() {
    let system = Fixture::start().await;
    let id = system.place(&order("TEA-01", 1, "tok_visa")).await;
    for path in [
        format!("/orders/{id}?minVersion=x"),
        format!("/orders/{id}?at=yesterday"),
        "/stock/TEA-01?minVersion=-1".to_owned(),
        "/customers/c-42/orders?limit=0".to_owned(),
        "/customers/c-42/orders?limit=101".to_owned(),
        "/customers/c-42/orders?cursor=!!".to_owned(),
        "/customers/c-42/orders?cursor=e30".to_owned(),
        // {"customerId":"c-42","orderId":"","placedAt":""}
        "/customers/c-42/orders?cursor=eyJjdXN0b21lcklkIjoiYy00MiIsIm9yZGVySWQiOiIiLCJwbGFjZWRBdCI6IiJ9".to_owned(),
        "/sales?window=minute&from=1970-01-01T00:00:00Z".to_owned(),
        "/sales?window=week".to_owned(),
        "/sales?window=minute&from=2026-01-01T00:00:00Z&to=2026-01-01T08:21:00Z".to_owned(),
        // Repeated, a list, empty, out of range, or not in the form of a number.
        "/customers/c-42/orders?limit=x,5".to_owned(),
        "/customers/c-42/orders?limit=5,5".to_owned(),
        "/customers/c-42/orders?limit=5&limit=5".to_owned(),
        "/customers/c-42/orders?limit=5&lim%69t=6".to_owned(),
        "/customers/c-42/orders?limit=".to_owned(),
        "/customers/c-42/orders?limit".to_owned(),
        "/customers/c-42/orders?limit=%2B5".to_owned(),
        "/customers/c-42/orders?limit=-1".to_owned(),
        "/customers/c-42/orders?limit=5.0".to_owned(),
        "/customers/c-42/orders?limit=18446744073709551616".to_owned(),
        "/customers/c-42/orders?cursor=".to_owned(),
        "/customers/c-42/orders?cursor=a&cursor=b".to_owned(),
        format!("/orders/{id}?minVersion=1,1"),
        format!("/orders/{id}?minVersion=1&minVersion=1"),
        format!("/orders/{id}?minVersion=9007199254740992"),
        format!("/orders/{id}?minVersion="),
        format!("/orders/{id}?at="),
        format!("/orders/{id}?at=2026-01-01T00:00:00Z,2026-01-01T00:00:00Z"),
        format!("/orders/{id}?at=2026-01-01T00:00:00Z&at=2026-01-01T00:00:00Z"),
        "/stock/TEA-01?minVersion=1,2".to_owned(),
        "/stock/TEA-01?minVersion=".to_owned(),
        "/sales?window=hour&window=hour".to_owned(),
        "/sales?window=".to_owned(),
        "/sales?from=2026-01-01T00:00:00Z,".to_owned(),
        "/sales?to=now".to_owned(),
        "/sales?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z".to_owned(),
    ] {
        problem(&system.get(&path).await, 400);
    }
    let body = order("TEA-01", 1, "tok_visa");
    for key in ["", "with space", "a/b", &"k".repeat(129)] {
        let headers = [("idempotency-key", key)];
        problem(
            &system
                .client
                .post("/orders", &headers, &body)
                .await
                .unwrap(),
            400,
        );
    }
}

/// The error names KMS, not the event store.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_service_that_is_unavailable_is_503_and_one_that_refuses_is_500() {
    let platform = Holding::new(&[]);
    let system = Fixture::with(Options {
        platform: platform.clone(),
        ..options()
    })
    .await;
    let body = order("TEA-01", 1, "tok_visa");
    let keys = system.system.composition.operator();
    let keys = keys.keyring("CUSTOMER_KEYS_TABLE", "PERSONAL_DATA_KEY");
    let keys = keys.unwrap();
    platform.fail("GenerateDataKey");
    let unavailable = system.post("/orders", &body).await;
    problem(&unavailable, 503);
    assert!(unavailable.headers.contains_key("retry-after"));
    let error = keys.create("c-42").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("GenerateDataKey of KMS failed: "),
        "{error}"
    );
    assert!(error.source().is_some(), "{error:?}");
    platform.work("GenerateDataKey");
    assert!(system.history().is_empty());

    // A wrapped key that KMS did not create.
    let wrapped = json!({ "subject": { "S": "c-42" }, "wrappedKey": { "B": "AAAA" } });
    let put = json!({ "TableName": "CustomerKeysTable", "Item": wrapped });
    system.aws("DynamoDB_20120810.PutItem", &put);
    let error = keys.create("c-42").await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("Decrypt of KMS was rejected: "),
        "{error}"
    );
    problem(&system.post("/orders", &body).await, 500);
    assert!(system.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_503_with_a_time_to_wait_and_nothing_half_done() {
    let system = Fixture::with(options()).await;
    let headers = [("idempotency-key", "k-1")];
    let body = order("TEA-01", 1, "tok_visa");
    system.system.composition.aws.dynamo.interrupt(true);
    let away = system
        .client
        .post("/orders", &headers, &body)
        .await
        .unwrap();
    problem(&away, 503);
    assert!(away.headers.contains_key("retry-after"));
    problem(&system.get("/stock/TEA-01").await, 503);

    system.system.composition.aws.dynamo.interrupt(false);
    assert!(system.history().is_empty());
    let back = system
        .client
        .post("/orders", &headers, &body)
        .await
        .unwrap();
    assert_eq!(back.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_the_template_takes_are_429_and_change_nothing() {
    let system = Fixture::with_template(&template_taking(0, 3), options()).await;
    let body = order("TEA-01", 1, "tok_visa");
    for _ in 0..3 {
        assert_eq!(
            system.post("/orders", &body).await.status,
            StatusCode::CREATED
        );
    }
    for _ in 0..2 {
        let answer = system.post("/orders", &body).await;
        problem(&answer, 429);
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(answer.headers.contains_key("x-correlation-id"));
    }
    let placed = system.history();
    let placed = placed
        .iter()
        .filter(|event| event.id().starts_with("order-") && event.version == 1);
    assert_eq!(placed.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_answers_head() {
    let system = Fixture::start().await;
    for path in ["/stock/TEA-01", "/sales", "/orders/none", "/"] {
        let answer = system.client.send(Method::HEAD, path, &[], Bytes::new());
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers["allow"], "GET", "{path}");
    }
}
