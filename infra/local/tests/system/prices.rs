//! The price catalogue, and the prices of orders.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use cairn_local::{Composition, client::Answer};
use orders_local::{options, parts};
use serde_json::{Value, json};

use crate::{
    events::event,
    fixture::{Fixture, order, template, template_file, template_of, template_with},
    still::StillShop,
};

/// A system whose orders take their prices from the catalogue, the default of a deployment.
pub(crate) async fn catalogue() -> Fixture {
    let template = template_with(&[("Authorization", "none"), ("Console", "on")]);
    Fixture::with_template(&template, options()).await
}

fn eur(amount: u64) -> Value {
    json!({ "amount": amount, "currency": "EUR" })
}

/// An order with lines, each with a SKU and the price that the caller expects.
fn lines(lines: &[(&str, Option<u64>)]) -> Value {
    let lines = lines.iter().map(|(sku, expected)| {
        let mut line = json!({ "sku": sku, "quantity": 2 });
        if let Some(amount) = expected {
            line["unitPrice"] = eur(*amount);
        }
        line
    });
    let lines: Vec<_> = lines.collect();
    let mut order = order("TEA-01", 1, "tok_visa");
    order["lines"] = lines.into();
    order
}

fn pointers(answer: &Answer) -> Vec<&str> {
    let errors = answer.body["errors"].as_array().unwrap().iter();
    errors
        .map(|error| error["pointer"].as_str().unwrap())
        .collect()
}

/// Returns the calls of a function so far, by operation.
fn calls(system: &Fixture, function: &str) -> BTreeMap<String, u64> {
    let counts = system.system.composition.aws.meter.counts();
    let counts = counts.into_iter();
    counts
        .filter(|((caller, _), _)| caller == function)
        .map(|((_, operation), count)| (operation, count))
        .collect()
}

async fn calls_for(system: &Fixture, order: &Value) -> BTreeMap<String, u64> {
    let before = calls(system, "PlaceOrderFunction");
    system.place(order).await;
    let mut after = calls(system, "PlaceOrderFunction");
    for (operation, count) in before {
        *after.get_mut(&operation).unwrap() -= count;
    }
    after.retain(|_, count| *count > 0);
    after
}

fn are(calls: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let calls = calls.iter();
    calls
        .map(|(operation, count)| ((*operation).to_owned(), *count))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_is_set_shown_and_changed() {
    let system = Fixture::start().await;
    let path = "/products/TEA-01";
    let none = system.get(path).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);

    let set = system.put(path, &json!({ "price": eur(1250) })).await;
    let product = json!({ "sku": "TEA-01", "price": eur(1250), "version": 1 });
    assert_eq!((set.status, &set.body), (StatusCode::OK, &product));
    assert_eq!(system.get(path).await.body, product);

    let before = system.history().len();
    let again = system.put(path, &json!({ "price": eur(1250) })).await;
    assert_eq!((again.status, &again.body), (StatusCode::OK, &product));
    assert_eq!(system.history().len(), before, "the same price is no event");

    let changed = system.put(path, &json!({ "price": eur(1300) })).await;
    let product = json!({ "sku": "TEA-01", "price": eur(1300), "version": 2 });
    assert_eq!(changed.body, product);
    assert_eq!(system.get(path).await.body, product);
    system.settled().await;
    assert_eq!(system.scan("ProductsTable"), [product]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_is_none_is_refused_and_nothing_is_stored() {
    let system = Fixture::start().await;
    for (price, pointer) in [
        (eur(0), "/price/amount"),
        (json!({ "amount": -1, "currency": "EUR" }), "/price/amount"),
        (eur(9_007_199_254_740_992), "/price/amount"),
        (json!({ "amount": 1, "currency": "EUX" }), "/price/currency"),
        (Value::Null, "/price"),
    ] {
        let body = json!({ "price": price });
        let answer = system.put("/products/TEA-01", &body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(pointers(&answer), [pointer], "{body}");
    }
    let body = json!({ "price": eur(1) });
    let answer = system.put("/products/tea", &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = system.post("/products/TEA-01", &body).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(system.history().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_callers_name_prices_each_line_needs_one_and_it_is_taken() {
    let system = Fixture::start().await;
    system.set_price("TEA-01", 1300).await;
    let refused = system
        .post("/orders", &lines(&[("TEA-01", Some(1)), ("TEA-01", None)]))
        .await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(pointers(&refused), ["/lines/1/unitPrice"]);
    let placed = system
        .post("/orders", &lines(&[("TEA-01", Some(50))]))
        .await;
    assert_eq!(placed.body["total"], eur(100), "{}", placed.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_takes_the_prices_of_the_catalogue() {
    let system = catalogue().await;
    system.receive("TEA-01", 10).await;
    system.receive("CUP-07", 10).await;
    system.set_price("TEA-01", 1250).await;
    system.set_price("CUP-07", 900).await;
    let asked = lines(&[("TEA-01", None), ("CUP-07", Some(900))]);
    let shown = system.fulfil(&asked).await;
    assert_eq!(shown["status"], "confirmed", "{shown}");
    assert_eq!(shown["total"], eur(4300));
    assert_eq!(shown["lines"][0]["unitPrice"], eur(1250));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_is_not_the_catalogues_is_answered_with_the_catalogues() {
    let system = catalogue().await;
    system.set_price("TEA-01", 1250).await;
    system.set_price("CUP-07", 900).await;
    let asked = lines(&[("TEA-01", Some(1)), ("CUP-07", Some(900)), ("TEA-01", None)]);
    let refused = system.post("/orders", &asked).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    assert_eq!(pointers(&refused), ["/lines/0/unitPrice"]);
    assert_eq!(refused.body["price"], eur(1250));
    assert_eq!(
        refused.body["prices"],
        json!([{ "sku": "TEA-01", "price": eur(1250) }])
    );
    let history = system.history();
    assert!(
        history
            .iter()
            .all(|event| event.stream.category() == "product")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sku_without_a_price_is_not_sold() {
    let system = catalogue().await;
    system.set_price("TEA-01", 1250).await;
    let asked = lines(&[("TEA-01", None), ("CUP-07", Some(900)), ("CUP-08", None)]);
    let refused = system.post("/orders", &asked).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(pointers(&refused), ["/lines/1/sku", "/lines/2/sku"]);
}

/// Neither a lagging row nor a cached price decides.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_meets_the_price_that_was_just_set() {
    let system = catalogue().await;
    for amount in 101..=120 {
        system.set_price("TEA-01", amount).await;
        let old = system
            .post("/orders", &lines(&[("TEA-01", Some(amount - 1))]))
            .await;
        assert_eq!(old.status, StatusCode::CONFLICT, "{}", old.body);
        assert_eq!(old.body["price"], eur(amount));
        for expected in [None, Some(amount)] {
            let new = system
                .post("/orders", &lines(&[("TEA-01", expected)]))
                .await;
            assert_eq!(new.status, StatusCode::CREATED, "{}", new.body);
            assert_eq!(new.body["total"], eur(2 * amount));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_of_several_currencies_make_no_order() {
    let system = catalogue().await;
    system.set_price("TEA-01", 1250).await;
    let dollars = json!({ "price": { "amount": 900, "currency": "USD" } });
    system.put("/products/CUP-07", &dollars).await;
    let mixed = lines(&[("TEA-01", None), ("CUP-07", None)]);
    let refused = system.post("/orders", &mixed).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(pointers(&refused), ["/lines/1/sku"]);
    let most = 9_007_199_254_740_991;
    system.set_price("GOLD-01", most).await;
    let refused = system.post("/orders", &lines(&[("GOLD-01", None)])).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(pointers(&refused), ["/lines"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_has_the_first_answer_whatever_the_price_is_now() {
    let system = catalogue().await;
    system.set_price("TEA-01", 1250).await;
    let key = |key| [("idempotency-key", key)];
    for (name, expected) in [("k-1", None), ("k-2", Some(1250))] {
        let body = lines(&[("TEA-01", expected)]);
        let first = system
            .client
            .post("/orders", &key(name), &body)
            .await
            .unwrap();
        assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
        system.set_price("TEA-01", 1300).await;
        if expected.is_some() {
            // The function then has the new price cached and would refuse the old one.
            system.place(&lines(&[("TEA-01", None)])).await;
        }
        let again = system
            .client
            .post("/orders", &key(name), &body)
            .await
            .unwrap();
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.headers["idempotent-replayed"], "true");
        let other = lines(&[("TEA-01", Some(1))]);
        let reused = system
            .client
            .post("/orders", &key(name), &other)
            .await
            .unwrap();
        assert_eq!(reused.status, StatusCode::UNPROCESSABLE_ENTITY);
        system.set_price("TEA-01", 1250).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_take_one_call_more_and_none_when_they_are_known() {
    let callers = Fixture::start().await;
    callers.place(&order("TEA-01", 1, "tok_visa")).await;
    let plain = calls_for(&callers, &order("TEA-01", 1, "tok_visa")).await;

    let system = catalogue().await;
    let skus: Vec<_> = (1..=50).map(|number| format!("TEA-{number}")).collect();
    for sku in &skus {
        system.set_price(sku, 100).await;
    }
    system.settled().await;
    let all: Vec<_> = skus.iter().map(|sku| (sku.as_str(), None)).collect();
    // The customer's key is created with the first order.
    system.place(&lines(&all[..1])).await;
    let cold = calls_for(&system, &lines(&all)).await;
    let warm = calls_for(&system, &lines(&all)).await;
    let of_keys = plain
        .clone()
        .into_iter()
        .filter(|(name, _)| name != "PutItem");
    let of_keys: BTreeMap<_, _> = of_keys.collect();
    assert_eq!(plain.get("PutItem"), Some(&1), "{plain:?}");
    let and = |calls: &[(&str, u64)]| {
        let mut all = are(calls);
        all.extend(of_keys.clone());
        all
    };
    assert_eq!(warm, and(&[("TransactWriteItems", 1)]));
    assert_eq!(cold, and(&[("BatchGetItem", 1), ("TransactWriteItems", 1)]));
}

/// A row is a cache: if it is lost, the price comes from the events.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_of_a_product_loses_no_order() {
    let system = catalogue().await;
    system.set_price("TEA-01", 1250).await;
    system.settled().await;
    let row = json!({ "TableName": "ProductsTable", "Key": { "sku": { "S": "TEA-01" } } });
    system.aws("DynamoDB_20120810.DeleteItem", &row);
    let placed = system.post("/orders", &lines(&[("TEA-01", None)])).await;
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.body);
}

/// The projection reads the missing event from the event table.
#[tokio::test(start_paused = true)]
async fn a_lost_price_is_read_when_the_next_one_arrives() {
    const PROJECTION: &str = "ProjectProductsFunction";
    let shop = StillShop::open();
    shop.platform.lost.lock().unwrap().insert(PROJECTION);
    for amount in [1250, 1300] {
        let body = json!({ "price": eur(amount) });
        let (status, answer) = shop.send("PUT", "/products/TEA-01", &body).await;
        assert_eq!(status, 200, "{answer}");
        shop.system.settled().await;
        shop.platform.lost.lock().unwrap().clear();
    }
    assert_eq!(shop.platform.metric("GapsFilled"), Some(1));
    let rows = shop.items("ProductsTable");
    let shown: Vec<_> = rows.iter().map(|row| &row["price"]).collect();
    assert_eq!(shown, [&eur(1300)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_changes_no_price() {
    let system = catalogue().await;
    system.set_price("TEA-01", 1250).await;
    system.settled().await;
    let composition = &system.system.composition;
    for step in [
        json!({ "step": "start", "segments": 1 }),
        json!({ "step": "backfill", "segment": 0 }),
        json!({ "step": "promote" }),
        json!({ "step": "prune" }),
    ] {
        let mut request = step.clone();
        request["projection"] = "products".into();
        let request = request.to_string();
        let done = composition.invoke("RebuildProjectionFunction", &request);
        done.await
            .unwrap_or_else(|error| panic!("{step}: {error:?}"));
    }
    let rows = system.scan("ProductsTable");
    assert_eq!(rows.len(), 1);
    assert_ne!(rows[0]["sku"], "TEA-01", "the row is of another generation");
    let calls = calls_for(&system, &lines(&[("TEA-01", Some(1250))])).await;
    assert_eq!(calls["BatchGetItem"], 2, "{calls:?}");
    assert!(!calls.contains_key("Query"), "{calls:?}");
}

#[tokio::test]
async fn the_source_of_prices_has_to_be_one_of_two() {
    let text = std::fs::read_to_string(template_file()).unwrap();
    let wrong = text.replace("PRICES: !Ref Prices", "PRICES: anybody");
    let template = template_of(&wrong).unwrap();
    let refused = Composition::start(&template, parts()).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("`anybody`"), "{refused}");
    assert!(refused.contains("must be catalogue or caller"), "{refused}");
}

/// The default of the parameter is the restrictive value.
#[tokio::test]
async fn by_default_the_catalogue_has_the_prices() {
    let default = template_with(&[("Authorization", "none")]);
    let system = Composition::start(&default, parts()).unwrap();
    let answer = system
        .invoke("PlaceOrderFunction", &event("place-order"))
        .await;
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(answer["statusCode"], 422, "{answer}");
    let callers = Composition::start(&template(), parts()).unwrap();
    let answer = callers
        .invoke("PlaceOrderFunction", &event("place-order"))
        .await;
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(answer["statusCode"], 201, "{answer}");
}
