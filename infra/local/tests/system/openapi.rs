//! docs/openapi.yaml matches the HTTP API: exactly the routes of the template, and every answer,
//! member by member.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    str::FromStr,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, StatusCode},
};
use cairn::Timestamp;
use cairn_local::{client::Answer, template::Trigger};
use fastrand::Rng;
use orders::values::{
    Country, Currency, CustomerId, Email, MAX_AMOUNT, OrderId, PaymentToken, Quantity, Sku, Text,
};
use orders_local::options;
use regex_lite::Regex;
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

use crate::{
    bodies,
    fixture::{
        Fixture, order, template, template_file, template_of, template_taking, template_with,
    },
    prices::catalogue,
    tokens::Closed,
    waiting::until,
};

/// Keywords of schemas that no value can violate.
const REMARKS: [&str; 4] = ["description", "example", "default", "nullable"];

#[test]
fn the_document_and_the_template_have_the_same_routes() {
    let document = Document::read();
    let documented: BTreeSet<_> = document
        .operations()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let template = template();
    let deployed: BTreeSet<_> = template
        .functions
        .iter()
        // The page is not an API for programs.
        .filter(|function| function.stem != "show-console")
        .flat_map(|function| &function.triggers)
        .filter_map(|trigger| match trigger {
            Trigger::Http(route) => Some(format!("{} {}", route.method, route.path)),
            Trigger::Rule(_) | Trigger::Stream(_) | Trigger::Schedule(_) | Trigger::Queue(_) => {
                None
            }
        })
        .collect();
    assert_eq!(documented, deployed);
}

#[test]
fn every_example_keeps_its_schema() {
    let document = Document::read();
    let mut examples = 0;
    Document::each(&document.root, &mut |node| {
        let Some(schema) = node.get("schema") else {
            return;
        };
        let named = node.get("examples").and_then(Value::as_object);
        let named = named.into_iter().flat_map(Map::values);
        let values = named.map(|example| &example["value"]);
        for example in values.chain(node.get("example")) {
            let mistakes = document.mistakes(schema, example, "");
            assert!(mistakes.is_empty(), "{example}: {mistakes:?}");
            examples += 1;
        }
    });
    assert!(examples > 20, "{examples}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_as_the_document_says() {
    let document = Document::read();
    let system = Fixture::start().await;
    let mut seen = BTreeSet::new();
    let mut check = |operation: &str, answer: &Answer| {
        assert!(answer.status.is_success(), "{operation}: {}", answer.body);
        document.check(operation, answer);
        seen.insert(operation.to_owned());
    };
    let body = |operation: &str| {
        let content = &document.operation(operation)["requestBody"]["content"];
        content["application/json"]["example"].clone()
    };
    let key = [("idempotency-key", "checkout-4711")];
    let post = async |path: &str, body: &Value| {
        let answer = system.client.post(path, &key, body).await;
        answer.unwrap()
    };

    let receipt = ("/stock/TEA-01/receipts", body("receiveStock"));
    check("receiveStock", &post(receipt.0, &receipt.1).await);
    let price = body("setPrice");
    check("setPrice", &system.put("/products/TEA-01", &price).await);
    check("getProduct", &system.get("/products/TEA-01").await);
    let placed = post("/orders", &body("placeOrder")).await;
    check("placeOrder", &placed);
    system.settled().await;
    let again = post("/orders", &body("placeOrder")).await;
    assert!(again.headers.contains_key("idempotent-replayed"));
    check("placeOrder", &again);

    let id = placed.body["orderId"].as_str().unwrap();
    let shown = system.order(id).await;
    let at = shown["placedAt"].as_str().unwrap();
    for query in ["", "?minVersion=1", &format!("?at={at}")] {
        check(
            "getOrder",
            &system.get(&format!("/orders/{id}{query}")).await,
        );
    }
    let ship = format!("/orders/{id}/ship");
    check("shipOrder", &post(&ship, &body("shipOrder")).await);
    let events = format!("/orders/{id}/events");
    check("getOrderEvents", &system.get(&events).await);
    // A failed order has a cancellation and compensated steps.
    let failed = system.fulfil(&order("TEA-01", 1, "tok_declined")).await;
    let failed = failed["orderId"].as_str().unwrap();
    check("getOrder", &system.get(&format!("/orders/{failed}")).await);
    check("getStock", &system.get("/stock/TEA-01?minVersion=1").await);
    check("getSales", &system.get("/sales?window=hour").await);
    let page = system.get("/customers/c-42/orders?limit=1").await;
    assert!(page.body["cursor"].is_string());
    check("listOrders", &page);
    let waiting = system.place(&order("TEA-01", 1, "tok_down")).await;
    let cancel = format!("/orders/{waiting}/cancel");
    check("cancelOrder", &post(&cancel, &body("cancelOrder")).await);

    // The other operations get the request of the document: writes, then reads.
    let mut others: Vec<_> = document.operations().collect();
    others.retain(|(_, _, operation)| !seen.contains(id_of(operation)));
    others.sort_by_key(|(method, ..)| method == "GET");
    for (method, path, operation) in others {
        let id = id_of(operation);
        let (path, body) = (document.example_path(path, operation), body(id));
        let body = if method == "GET" {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let headers = [("content-type", "application/json")];
        let method = Method::from_str(&method).unwrap();
        let answer = system
            .client
            .send(method, &path, &headers, body)
            .await
            .unwrap();
        system.settled().await;
        assert!(answer.status.is_success(), "{id}: {}", answer.body);
        document.check(id, &answer);
    }
}

fn id_of(operation: &Value) -> &str {
    operation["operationId"].as_str().unwrap()
}

/// Returns the answer to an order over the limit of its customer.
async fn over_the_limit() -> Answer {
    let one_a_minute = [
        ("Authorization", "none"),
        ("Prices", "caller"),
        ("CustomerOrdersPerMinute", "1"),
    ];
    let limited = template_with(&one_a_minute);
    let limited = Fixture::with_template(&limited, options()).await;
    let body = order("TEA-01", 1, "tok_visa");
    // A minute can end between two orders.
    until("an order over the limit", async || {
        let placed = limited.post("/orders", &body).await;
        match placed.status.as_u16() {
            429 => Ok(placed),
            status => Err(status),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_is_answered_as_the_document_says() {
    let document = Document::read();
    let mut seen = BTreeSet::new();
    let mut called = BTreeSet::new();
    let mut check = |operation: &str, answer: &Answer| {
        document.check(operation, answer);
        called.insert(operation.to_owned());
        seen.insert(answer.body["type"].as_str().unwrap().to_owned());
    };
    let system = Fixture::start().await;
    let valid = order("TEA-01", 1, "tok_down");
    let key = [("idempotency-key", "checkout-4711")];
    let send = async |method, path: &str, media_type: &str, body: Bytes| {
        let headers = [("content-type", media_type)];
        let answer = system.client.send(method, path, &headers, body).await;
        answer.unwrap()
    };

    let media_type = "application/json";
    let no_json = send(Method::POST, "/orders", media_type, "{".into()).await;
    check("placeOrder", &no_json);
    check("getOrder", &system.get("/orders/none?minVersion=x").await);
    let text = send(Method::POST, "/orders", "text/plain", "{}".into()).await;
    check("placeOrder", &text);
    // Bodies that are too large for the functions, and for the gateway.
    for bytes in [256 * 1024 + 1, 11 * 1024 * 1024] {
        let large = Bytes::from(vec![b' '; bytes]);
        let answer = send(Method::POST, "/orders", media_type, large).await;
        check("placeOrder", &answer);
    }
    check("placeOrder", &system.post("/orders", &json!({})).await);
    check(
        "shipOrder",
        &system.post("/orders/x/ship", &json!([])).await,
    );
    let placed = system.client.post("/orders", &key, &valid).await.unwrap();
    let other = order("TEA-01", 2, "tok_down");
    let reused = system.client.post("/orders", &key, &other).await.unwrap();
    check("placeOrder", &reused);
    let id = placed.body["orderId"].as_str().unwrap();
    let early = system.post(&format!("/orders/{id}/ship"), &json!({})).await;
    check("shipOrder", &early);
    check("getStock", &system.get("/stock/NONE-01").await);
    document.check_response("NotFound", &system.get("/nowhere").await);
    let wrong = send(Method::DELETE, "/orders", media_type, Bytes::new()).await;
    // No operation returns this answer, so no response of the document describes it.
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.headers["allow"], "POST");
    assert_eq!(wrong.body["type"], "urn:cairn:problem:method-not-allowed");
    let problem = &document.root["components"]["schemas"]["Problem"];
    let mistakes = document.mistakes(problem, &wrong.body, "");
    assert!(mistakes.is_empty(), "{mistakes:?}: {}", wrong.body);
    system.system.composition.aws.dynamo.interrupt(true);
    check("getStock", &system.get("/stock/TEA-01").await);
    check("placeOrder", &system.post("/orders", &valid).await);
    system.system.composition.aws.dynamo.interrupt(false);
    // Later events of the order would change the following answers.
    system.settled().await;
    // A row that no projection has written.
    let item = json!({ "orderId": { "S": id }, "orderVersion": { "N": "9" } });
    let put = json!({ "TableName": "OrdersTable", "Item": item });
    system.aws("DynamoDB_20120810.PutItem", &put);
    check(
        "getOrder",
        &system.get(&format!("/orders/{id}?minVersion=9")).await,
    );

    let system = Fixture::start().await;
    system.receive("TEA-01", 1).await;
    let shown = system.fulfil(&order("TEA-01", 1, "tok_visa")).await;
    let path = format!("/orders/{}", shown["orderId"].as_str().unwrap());
    system.post(&format!("{path}/ship"), &json!({})).await;
    let late = system
        .post(&format!("{path}/cancel"), &json!({ "reason": "x" }))
        .await;
    check("cancelOrder", &late);

    let few = Fixture::with_template(&template_taking(0, 1), options()).await;
    few.get("/stock/TEA-01").await;
    check("getStock", &few.get("/stock/TEA-01").await);

    check("placeOrder", &over_the_limit().await);

    let system = catalogue().await;
    system.set_price("TEA-01", 1300).await;
    let expected = order("TEA-01", 1, "tok_visa");
    check("placeOrder", &system.post("/orders", &expected).await);
    check("getProduct", &system.get("/products/NONE-01").await);
    check(
        "setPrice",
        &system.put("/products/TEA-01", &json!({})).await,
    );

    let shop = Closed::open().await;
    check("getStock", &shop.fixture.get("/stock/TEA-01").await);
    check(
        "getSales",
        &shop.customer("c-1").get("/sales").await.unwrap(),
    );

    // The test of a function covers the problems that only its operation has.
    let mut documented = BTreeSet::new();
    let operations = document.operations().map(|(_, _, operation)| operation);
    let called = operations.filter(|operation| called.contains(id_of(operation)));
    let parts = called.chain([&document.root["components"]]);
    parts.for_each(|part| {
        Document::each(part, &mut |node| {
            if node.contains_key("title") && node.contains_key("detail") {
                documented.extend(node["type"].as_str().map(str::to_owned));
            }
        });
    });
    assert_eq!(seen, documented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_busy_is_unavailable_and_says_how_long() {
    let document = Document::read();
    let text = std::fs::read_to_string(template_file()).unwrap();
    let code = "CodeUri: functions/queries/get-stock";
    let busy = format!("ReservedConcurrentExecutions: 0\n      {code}");
    let template = template_of(&text.replacen(code, &busy, 1)).unwrap();
    let system = Fixture::with_template(&template, options()).await;
    let answer = system.get("/stock/TEA-01").await;
    assert_eq!(answer.status.as_u16(), 503, "{}", answer.body);
    document.check("getStock", &answer);
}

#[test]
fn the_document_takes_the_texts_that_the_code_takes() {
    let document = Document::read();
    let schemas = &document.root["components"]["schemas"];
    document.agrees::<OrderId>(&schemas["OrderId"]);
    document.agrees::<CustomerId>(&schemas["CustomerId"]);
    document.agrees::<Sku>(&schemas["Sku"]);
    document.agrees::<Text>(&schemas["Text"]);
    document.agrees::<Email>(&schemas["Email"]);
    document.agrees::<PaymentToken>(&schemas["PaymentToken"]);
    document.agrees::<Country>(&schemas["Country"]);
}

#[test]
fn the_document_takes_the_currencies_and_numbers_that_the_code_takes() {
    let document = Document::read();
    let schemas = &document.root["components"]["schemas"];
    let letters = || 'A'..='Z';
    let taken: Vec<_> = letters()
        .flat_map(|a| letters().map(move |b| (a, b)))
        .flat_map(|(a, b)| letters().map(move |c| format!("{a}{b}{c}")))
        .filter(|code| code.parse::<Currency>().is_ok())
        .collect();
    assert_eq!(schemas["Currency"]["enum"], json!(taken));

    let quantity = &schemas["Quantity"];
    let limits = [quantity["minimum"].as_u64(), quantity["maximum"].as_u64()];
    for (limit, beyond) in [(limits[0].unwrap(), 0), (limits[1].unwrap(), 1_000_001)] {
        assert!(Quantity::try_from(limit).is_ok());
        assert_eq!(limit.abs_diff(beyond), 1);
        assert!(Quantity::try_from(beyond).is_err());
    }
    assert_eq!(
        schemas["Money"]["properties"]["amount"]["maximum"],
        MAX_AMOUNT
    );
}

/// The schema has the name of the operation, so it is the one of the body's type.
#[test]
fn every_request_body_has_a_generated_schema() {
    for (_, _, operation) in Document::read().operations() {
        let Some(body) = operation.get("requestBody") else {
            continue;
        };
        let (first, rest) = operation["operationId"].as_str().unwrap().split_at(1);
        let name = first.to_ascii_uppercase() + rest;
        let schema = &body["content"]["application/json"]["schema"];
        let generated = format!("#/components/schemas/{name}");
        assert_eq!(schema, &json!({ "$ref": generated }));
        assert!(bodies::schemas().contains_key(&name), "{name}");
    }
}

struct Document {
    root: Value,
    patterns: BTreeMap<String, Regex>,
}

impl Document {
    fn read() -> Self {
        let path = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/openapi.yaml"
        ));
        let text = std::fs::read_to_string(path).unwrap();
        let root = plain(&Yaml::load_from_str(&text).unwrap()[0]);
        let mut patterns = BTreeMap::new();
        Self::each(&root, &mut |node| {
            if let Some(pattern) = node.get("pattern").and_then(Value::as_str) {
                patterns.insert(pattern.to_owned(), Regex::new(pattern).unwrap());
            }
        });
        Self { root, patterns }
    }

    /// Visits every object in a part of the document.
    fn each(node: &Value, see: &mut impl FnMut(&Map<String, Value>)) {
        match node {
            Value::Object(members) => {
                see(members);
                members.values().for_each(|node| Self::each(node, see));
            }
            Value::Array(items) => items.iter().for_each(|node| Self::each(node, see)),
            _ => {}
        }
    }

    /// Returns the routes: method, path and operation.
    fn operations(&self) -> impl Iterator<Item = (String, &str, &Value)> {
        let paths = self.root["paths"].as_object().unwrap();
        paths.iter().flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations
                .filter(|(name, _)| *name != "parameters")
                .map(|(method, operation)| (method.to_uppercase(), path.as_str(), operation))
        })
    }

    fn operation(&self, id: &str) -> &Value {
        let mut operations = self.operations();
        let found = operations.find(|(_, _, operation)| operation["operationId"] == id);
        found.unwrap().2
    }

    /// Returns the path of an operation with the examples of its parameters.
    fn example_path(&self, path: &str, operation: &Value) -> String {
        let item = &self.root["paths"][path];
        let lists = [&item["parameters"], &operation["parameters"]];
        let parameters = lists.into_iter().filter_map(Value::as_array).flatten();
        parameters.fold(path.to_owned(), |path, parameter| {
            let parameter = self.resolved(parameter);
            let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
            path.replace(&name, parameter["example"].as_str().unwrap_or_default())
        })
    }

    fn resolved<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node["$ref"].as_str() {
            Some(reference) => self.root.pointer(&reference[1..]).unwrap(),
            None => node,
        }
    }

    /// Asserts that the operation documents the answer.
    #[track_caller]
    fn check(&self, operation: &str, answer: &Answer) {
        let status = answer.status.as_str();
        let response = &self.operation(operation)["responses"][status];
        assert!(
            !response.is_null(),
            "{operation} has no {status}: {}",
            answer.body
        );
        self.check_against(self.resolved(response), answer);
    }

    #[track_caller]
    fn check_response(&self, name: &str, answer: &Answer) {
        self.check_against(&self.root["components"]["responses"][name], answer);
    }

    #[track_caller]
    fn check_against(&self, response: &Value, answer: &Answer) {
        self.check_headers(&response["headers"], &answer.headers);
        let media_type = answer.headers["content-type"].to_str().unwrap();
        let content = &response["content"][media_type];
        assert!(!content.is_null(), "it is {media_type}: {response}");
        let mistakes = self.mistakes(&content["schema"], &answer.body, "");
        assert!(mistakes.is_empty(), "{mistakes:?}: {}", answer.body);
        // A problem must match one of the examples.
        if answer.status.is_client_error() || answer.status.is_server_error() {
            let named = content["examples"].as_object();
            let named = named.into_iter().flat_map(Map::values);
            let mut examples = named
                .map(|example| &example["value"])
                .chain([&content["example"]]);
            let is_alike = |example: &Value| {
                ["type", "title", "status"]
                    .iter()
                    .all(|member| example[*member] == answer.body[*member])
            };
            assert!(examples.any(is_alike), "no example: {}", answer.body);
            assert_eq!(answer.body["status"], answer.status.as_u16());
        }
    }

    #[track_caller]
    fn check_headers(&self, documented: &Value, headers: &HeaderMap) {
        for (name, header) in documented.as_object().unwrap() {
            let header = self.resolved(header);
            let Some(value) = headers.get(name) else {
                assert!(header["required"] != true, "no {name}: {headers:?}");
                continue;
            };
            let text = value.to_str().unwrap();
            let value = match header["schema"]["type"].as_str() {
                Some("integer") => json!(text.parse::<u64>().unwrap()),
                _ => text.into(),
            };
            let mistakes = self.mistakes(&header["schema"], &value, name);
            assert!(mistakes.is_empty(), "{mistakes:?}");
        }
    }

    /// Returns the parts of a value that violate its schema. A member that the schema does not name
    /// violates it too. An unsupported keyword panics.
    fn mistakes(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let schema = self.resolved(schema);
        if schema["nullable"] == true && value.is_null() {
            return vec![];
        }
        let mut mistakes = vec![];
        for (keyword, wanted) in schema.as_object().unwrap() {
            let number = wanted.as_u64();
            let text = value.as_str().unwrap_or_default();
            let items = value.as_array();
            let size = items.map_or(text.chars().count(), Vec::len) as u64;
            let holds = match keyword.as_str() {
                "type" => match wanted.as_str().unwrap() {
                    "string" => value.is_string(),
                    "integer" => value.is_u64(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("the type {other} is not supported"),
                },
                "enum" => wanted.as_array().unwrap().contains(value),
                "pattern" => self.patterns[wanted.as_str().unwrap()].is_match(text),
                "minimum" => value.as_u64() >= number,
                "maximum" => value.as_u64() <= number,
                "minItems" => Some(size) >= number,
                "maxItems" | "maxLength" => Some(size) <= number,
                "format" => match wanted.as_str().unwrap() {
                    "date-time" => Timestamp::from_str(text).is_ok(),
                    "uuid" => uuid::Uuid::from_str(text).is_ok(),
                    other => panic!("the format {other} is not supported"),
                },
                "required" => {
                    let names = wanted.as_array().unwrap().iter();
                    names
                        .map(|name| name.as_str().unwrap())
                        .all(|name| value.get(name).is_some())
                }
                "allOf" => {
                    for schema in wanted.as_array().unwrap() {
                        mistakes.extend(self.mistakes(schema, value, at));
                    }
                    true
                }
                "items" => {
                    for (index, item) in items.into_iter().flatten().enumerate() {
                        mistakes.extend(self.mistakes(wanted, item, &format!("{at}/{index}")));
                    }
                    true
                }
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        let at = format!("{at}/{name}");
                        match wanted.get(name) {
                            Some(schema) => mistakes.extend(self.mistakes(schema, value, &at)),
                            None => mistakes.push(format!("{at} is not in the document")),
                        }
                    }
                    true
                }
                "additionalProperties" => wanted == true,
                other if REMARKS.contains(&other) => true,
                other => panic!("the keyword {other} is not supported"),
            };
            if !holds {
                mistakes.push(format!("{at}: {value} breaks {keyword}: {wanted}"));
            }
        }
        mistakes
    }

    /// Asserts that a type accepts a text exactly when its schema does.
    #[track_caller]
    fn agrees<T: FromStr>(&self, schema: &Value) {
        let mut rng = Rng::with_seed(1);
        // Valid texts and near misses of them; noise alone is never valid.
        let taken = [
            "c-42",
            "TEA-01",
            "tok_visa",
            "DE",
            "1 Main St",
            "a.b+c@mail.example.com",
            "7b9f7c4e-0d5c-4bb0-9d0e-5f3f1a2b3c4d",
        ];
        let pieces = [
            "", "a", "A", "7", "-", "_", ".", "..", "@", "+", "/", "\\", "'", "\"", " ", "\n",
            "\0", "\u{7f}", "\u{85}", "\u{a0}", "\u{3000}", "\u{feff}", "é", "🫖", "^", "~", "[",
            ":", "|", "=", "\u{200b}", "\u{202e}", "\u{2028}", "\u{3164}", "\u{fe0f}", "\u{ffff}",
            "\u{ad}", "\u{2800}", "\u{fff9}", "\u{61c}",
        ];
        let mut texts: Vec<_> = taken.map(str::to_owned).into();
        for length in [0, 1, 2, 3, 40, 41, 64, 65, 128, 129, 200, 201, 254, 255] {
            texts.extend(["A", " ", "é"].map(|piece| piece.repeat(length)));
            texts.push(format!("a@b.{}", "c".repeat(length.saturating_sub(4))));
        }
        for _ in 0..2_000 {
            let mut text: Vec<_> = rng
                .choice(taken)
                .unwrap()
                .chars()
                .map(String::from)
                .collect();
            for _ in 0..rng.usize(1..3) {
                // Replaces a character, or inserts one before it.
                let place = rng.usize(0..text.len());
                if rng.bool() {
                    text[place].clear();
                }
                text[place].insert_str(0, rng.choice(pieces).unwrap());
            }
            texts.push(text.concat());
            texts.push(
                (0..rng.usize(0..4))
                    .map(|_| *rng.choice(&pieces).unwrap())
                    .collect(),
            );
        }
        let mut both = [0, 0];
        for text in texts {
            let is_taken = text.parse::<T>().is_ok();
            let mistakes = self.mistakes(schema, &json!(text), "");
            assert_eq!(is_taken, mistakes.is_empty(), "{text:?} and {schema}");
            both[usize::from(is_taken)] += 1;
        }
        assert!(both.iter().all(|count| *count > 0), "{both:?}");
    }
}

pub(crate) fn plain(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
        Yaml::Value(Scalar::Integer(value)) => (*value).into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(plain).collect(),
        Yaml::Mapping(members) => members
            .iter()
            .map(|(name, value)| (name.as_str().unwrap().to_owned(), plain(value)))
            .collect(),
        // The tag of a function of CloudFormation.
        Yaml::Tagged(_, node) => plain(node),
        other => panic!("{other:?} is not JSON"),
    }
}
