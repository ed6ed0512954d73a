//! Request bodies: accepted values, and the fields that errors point to.

use cairn::{
    commit::fingerprint,
    input::{FieldError, parse},
};
use orders::{
    prices::Prices,
    requests::{CancelOrder, OrderRequest, ReceiveStock, RequestedLines, SetPrice},
    values::MAX_AMOUNT,
};
use serde_json::{Value, json};

use crate::{fixtures::body, sample_order};

/// Parses an order with the caller's prices.
fn place_order(body: &Value) -> Result<OrderRequest, Vec<FieldError>> {
    OrderRequest::parse(body, Prices::Caller)
}

/// Returns the sample body with another value at a pointer.
fn with(pointer: &str, value: impl Into<Value>) -> Value {
    let mut body = body();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap();
    match name.parse::<usize>() {
        Ok(index) => parent[index] = value.into(),
        Err(_) => parent[name] = value.into(),
    }
    body
}

/// Returns the sample body without the member at a pointer.
fn without(pointer: &str) -> Value {
    let mut body = body();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let object = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    object.remove(name).expect("the member to remove");
    body
}

/// Returns the sample body with this number of lines.
fn with_lines(count: usize) -> Value {
    with("/lines", vec![body()["lines"][0].clone(); count])
}

/// Returns the invalid fields of an order's body.
fn pointers(body: &Value) -> Vec<String> {
    let errors = place_order(body).expect_err("an invalid body");
    errors.into_iter().map(|error| error.pointer).collect()
}

/// Checks that each of these values is an error of this field, and the only one.
#[track_caller]
fn refuses(pointer: &str, values: impl IntoIterator<Item = Value>) {
    for value in values {
        assert_eq!(
            pointers(&with(pointer, value.clone())),
            [pointer],
            "{value}"
        );
    }
}

#[test]
fn what_is_remembered_of_a_request_does_not_depend_on_what_is_personal() {
    let digest = |body: Value| fingerprint(&place_order(&body).unwrap().impersonal()).unwrap();
    let remembered = digest(body());
    for personal in [
        with("/shipTo/name", "Somebody Else"),
        with("/shipTo/country", "FR"),
        with("/email", "ada@example.com"),
    ] {
        assert_eq!(digest(personal), remembered);
    }
    for another in [
        with("/customerId", "c-43"),
        with("/lines/0/quantity", 3),
        with("/payment/token", "tok_declined"),
    ] {
        assert_ne!(digest(another), remembered);
    }
}

#[test]
fn a_good_body_is_an_order() {
    assert_eq!(place_order(&body()), Ok(sample_order::request()));
}

#[test]
fn a_second_line_of_the_address_is_optional() {
    let order = place_order(&with("/shipTo/line2", "2nd floor")).unwrap();
    assert_eq!(order.ship_to.line2, Some(sample_order::text("2nd floor")));
    let order = place_order(&with("/shipTo/line2", Value::Null)).unwrap();
    assert_eq!(order.ship_to.line2, None);
    refuses("/shipTo/line2", [json!(2), json!("")]);
}

#[test]
fn an_email_address_is_optional_and_only_one() {
    let order = place_order(&with("/email", "ada@example.com")).unwrap();
    assert_eq!(order.email.unwrap().as_str(), "ada@example.com");
    let order = place_order(&with("/email", Value::Null)).unwrap();
    assert_eq!(order.email, None);
    let long = format!("{}@example.com", "a".repeat(243));
    let wrong = [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@example",
        "ada@example..com",
        "ada@a@example.com",
        "ada@example.com,bob@example.com",
        "Ada <ada@example.com>",
        "ada@example.com\r\nBcc: x@y.z",
        long.as_str(),
    ];
    refuses(
        "/email",
        wrong
            .map(|email| json!(email))
            .into_iter()
            .chain([json!(1)]),
    );
}

#[test]
fn a_quantity_is_a_whole_number_from_1_to_a_million() {
    let pointer = "/lines/0/quantity";
    for good in [1, 1_000_000] {
        assert!(place_order(&with(pointer, good)).is_ok(), "{good}");
    }
    refuses(
        pointer,
        [
            json!(0),
            json!(1_000_001),
            json!(-1),
            json!(1.5),
            json!(2.0),
            json!("2"),
            json!(true),
            json!([2]),
            Value::Null,
        ],
    );
}

#[test]
fn an_amount_is_a_whole_number_of_minor_units() {
    refuses(
        "/lines/1/unitPrice/amount",
        [
            json!(-1),
            json!(12.5),
            json!("900"),
            json!(MAX_AMOUNT + 1),
            json!(1e30),
            Value::Null,
        ],
    );
}

#[test]
fn a_currency_is_one_of_iso_4217() {
    refuses(
        "/lines/0/unitPrice/currency",
        [
            json!("XXX"),
            json!("eur"),
            json!("EURO"),
            json!("EUR USD"),
            json!(""),
            json!(978),
        ],
    );
}

#[test]
fn an_order_in_two_currencies_is_pointed_at_where_the_second_begins() {
    let pointer = "/lines/1/unitPrice/currency";
    assert_eq!(pointers(&with(pointer, "USD")), [pointer]);
}

#[test]
fn an_order_has_from_1_to_50_lines() {
    for good in [1, 50] {
        assert!(place_order(&with_lines(good)).is_ok(), "{good}");
    }
    for bad in [0, 51, 1000] {
        assert_eq!(pointers(&with_lines(bad)), ["/lines"], "{bad}");
    }
    refuses("/lines", [json!({}), json!("TEA-01"), Value::Null]);
}

#[test]
fn too_many_lines_are_one_mistake_however_bad_they_are() {
    let body = with("/lines", vec![Value::Null; 51]);
    assert_eq!(pointers(&body), ["/lines"]);
}

#[test]
fn a_line_is_an_object() {
    assert_eq!(pointers(&with("/lines/1", "TEA-01")), ["/lines/1"]);
    let pointer = "/lines/1/unitPrice";
    assert_eq!(pointers(&with(pointer, 1250)), [pointer]);
}

#[test]
fn a_sku_is_of_capital_letters_digits_and_hyphens() {
    let pointer = "/lines/2/sku";
    assert!(place_order(&with(pointer, "A".repeat(40))).is_ok());
    refuses(
        pointer,
        [
            json!(""),
            json!("tea-01"),
            json!("TEA 01"),
            json!("TEA/01"),
            json!("TÉA"),
            json!("A".repeat(41)),
            json!("TEA-01\n"),
            json!(1),
        ],
    );
}

#[test]
fn a_total_is_at_most_what_json_keeps_exactly() {
    let mut body = with_lines(1);
    body["lines"][0]["quantity"] = 1.into();
    body["lines"][0]["unitPrice"]["amount"] = MAX_AMOUNT.into();
    assert!(place_order(&body).is_ok());
    body["lines"][0]["quantity"] = 2.into();
    assert_eq!(pointers(&body), ["/lines"]);
}

#[test]
fn no_field_of_an_order_may_be_missing() {
    for pointer in [
        "/customerId",
        "/lines",
        "/lines/0/sku",
        "/lines/0/quantity",
        "/lines/0/unitPrice/amount",
        "/lines/0/unitPrice/currency",
        "/payment/token",
        "/shipTo/name",
        "/shipTo/line1",
        "/shipTo/city",
        "/shipTo/postalCode",
        "/shipTo/country",
    ] {
        let errors = place_order(&without(pointer)).unwrap_err();
        assert_eq!(errors.len(), 1, "{pointer}");
        assert_eq!(errors[0].pointer, pointer);
        assert!(errors[0].detail.starts_with("is required"), "{pointer}");
    }
}

#[test]
fn a_missing_object_is_one_mistake() {
    for pointer in ["/payment", "/shipTo", "/lines/0/unitPrice"] {
        let errors = place_order(&without(pointer)).unwrap_err();
        assert_eq!(errors.len(), 1, "{pointer}");
        assert_eq!(errors[0].pointer, pointer);
        assert!(errors[0].detail.starts_with("is required"), "{pointer}");
    }
}

#[test]
fn a_body_is_an_object() {
    for body in [json!([]), json!("order"), json!(7), Value::Null] {
        assert_eq!(pointers(&body), [""]);
    }
}

#[test]
fn a_text_has_no_control_characters_and_is_not_blank() {
    for pointer in [
        "/shipTo/name",
        "/shipTo/line1",
        "/shipTo/city",
        "/shipTo/postalCode",
    ] {
        refuses(
            pointer,
            [
                json!("a\u{0}b"),
                json!("a\nb"),
                json!("a\u{1b}[31m"),
                json!("a\u{85}"),
                json!(""),
                json!("  "),
                json!("a".repeat(201)),
                json!(10115),
            ],
        );
    }
}

#[test]
fn a_text_is_measured_in_characters_not_in_bytes() {
    assert!(place_order(&with("/shipTo/name", "é".repeat(200))).is_ok());
}

#[test]
fn ids_tokens_and_countries_keep_their_rules() {
    refuses(
        "/customerId",
        [json!(""), json!("c 42"), json!("c".repeat(256)), json!(42)],
    );
    refuses(
        "/payment/token",
        [
            json!(""),
            json!("tok visa"),
            json!("t".repeat(129)),
            json!(1),
        ],
    );
    refuses(
        "/shipTo/country",
        [
            json!("de"),
            json!("D"),
            json!("DEU"),
            json!("D1"),
            json!(49),
        ],
    );
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_reading() {
    let mut body = body();
    body["customerId"] = "c 42".into();
    body["lines"][0]["quantity"] = 0.into();
    body["lines"][2]["sku"] = "tea".into();
    body["lines"][2]["unitPrice"]["currency"] = "XXX".into();
    body["payment"] = json!({});
    body["shipTo"]["city"] = "\u{7}".into();
    assert_eq!(
        pointers(&body),
        [
            "/customerId",
            "/lines/0/quantity",
            "/lines/2/sku",
            "/lines/2/unitPrice/currency",
            "/payment/token",
            "/shipTo/city",
        ]
    );
}

#[test]
fn a_mistake_says_what_the_field_takes() {
    let errors = place_order(&with("/lines/0/quantity", 0)).unwrap_err();
    assert_eq!(errors[0].detail, "must be from 1 to 1000000");
}

#[test]
fn a_cancellation_has_a_reason() {
    let body = parse::<CancelOrder>(&json!({ "reason": "changed my mind" }));
    assert_eq!(body.unwrap().reason, sample_order::text("changed my mind"));
    for body in [
        json!({}),
        json!({ "reason": "" }),
        json!({ "reason": " \t" }),
        json!({ "reason": "a\nb" }),
        json!({ "reason": 7 }),
        json!("changed my mind"),
    ] {
        let errors = parse::<CancelOrder>(&body).unwrap_err();
        assert_eq!(errors.len(), 1, "{body}");
        assert_eq!(errors[0].pointer, "/reason", "{body}");
    }
}

#[test]
fn a_receipt_has_a_quantity() {
    let received = parse::<ReceiveStock>(&json!({ "quantity": 100 }));
    assert_eq!(received.unwrap().quantity.get(), 100);
    for body in [
        json!({}),
        json!({ "quantity": 0 }),
        json!({ "quantity": 1_000_001 }),
        json!({ "quantity": 1.5 }),
        json!({ "quantity": "100" }),
        json!([100]),
    ] {
        let errors = parse::<ReceiveStock>(&body).unwrap_err();
        assert_eq!(errors.len(), 1, "{body}");
        assert_eq!(errors[0].pointer, "/quantity", "{body}");
    }
}

#[test]
fn a_price_is_a_positive_amount_in_a_currency() {
    let price = |amount: Value, currency: &str| {
        let body = json!({ "price": { "amount": amount, "currency": currency } });
        parse::<SetPrice>(&body).map(|body| body.price)
    };
    assert_eq!(
        price(json!(1250), "EUR").unwrap().money(),
        sample_order::eur(1250)
    );
    assert!(price(json!(MAX_AMOUNT), "EUR").is_ok());
    for amount in [json!(0), json!(-1), json!(1.5), json!(MAX_AMOUNT + 1)] {
        let errors = price(amount.clone(), "EUR").unwrap_err();
        assert_eq!(errors.len(), 1, "{amount}");
        assert_eq!(errors[0].pointer, "/price/amount", "{amount}");
    }
    let errors = price(json!(1), "EURO").unwrap_err();
    assert_eq!(errors[0].pointer, "/price/currency");
    for body in [json!({}), json!({ "price": 1250 }), json!([1250])] {
        let errors = parse::<SetPrice>(&body).unwrap_err();
        assert_eq!(errors[0].pointer, "/price", "{body}");
    }
}

#[test]
fn with_a_catalogue_a_line_may_leave_its_price_out() {
    let of_catalogue = |body: &Value| OrderRequest::parse(body, Prices::Catalogue);
    let order = of_catalogue(&without("/lines/0/unitPrice")).unwrap();
    let RequestedLines::Unpriced(lines) = &order.lines else {
        panic!("{order:?}");
    };
    let prices: Vec<_> = lines
        .as_slice()
        .iter()
        .map(|line| line.unit_price)
        .collect();
    assert_eq!(prices[..2], [None, Some(sample_order::eur(900))]);
    assert_eq!(
        pointers(&without("/lines/0/unitPrice")),
        ["/lines/0/unitPrice"]
    );
    let errors = of_catalogue(&with("/lines/1/unitPrice/currency", "USD")).unwrap_err();
    assert_eq!(errors[0].pointer, "/lines/1/unitPrice/currency");
    let errors = of_catalogue(&with("/lines/0/unitPrice/amount", "1")).unwrap_err();
    assert_eq!(errors[0].pointer, "/lines/0/unitPrice/amount");
}

/// A retry is recognized even if the parameter has changed since.
#[test]
fn the_digest_of_a_request_does_not_depend_on_where_prices_come_from() {
    let digest = |prices| {
        let order = OrderRequest::parse(&body(), prices).unwrap();
        fingerprint(&order.impersonal()).unwrap()
    };
    assert_eq!(digest(Prices::Caller), digest(Prices::Catalogue));
}
