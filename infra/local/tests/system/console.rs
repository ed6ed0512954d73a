//! The page and its local routes: all of them live, and for local clients only.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use axum::http::{Method, StatusCode};
use cairn_local::{Functions, Options, Program, Template, faults::FaultProfile};
use orders_local::options_with_page;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fixture::{Fixture, TIMEOUT, order, template, template_file, template_with},
    waiting::within,
};

async fn shop() -> Fixture {
    shop_of(&template()).await
}

async fn shop_of(template: &Template) -> Fixture {
    let options = options_with_page(&FaultProfile::default(), None);
    Fixture::with_template(template, options).await
}

/// Returns a whole answer as text, including its headers.
async fn raw(server: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    within("the whole answer", read).await.unwrap();
    answer
}

/// A reader of the live feed.
struct Reader(BufReader<TcpStream>);

impl Reader {
    async fn connect(server: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let request = format!("GET /console/stream HTTP/1.1\r\nHost: {server}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    /// Returns the next message; `None` at the end of the feed.
    async fn next(&mut self) -> Option<(String, Value)> {
        let mut kind = None;
        loop {
            let mut line = String::new();
            let read = timeout(TIMEOUT, self.0.read_line(&mut line)).await;
            if read.unwrap().unwrap() == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                kind = Some(event.trim().to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((kind.unwrap(), serde_json::from_str(data).unwrap()));
            }
        }
    }
}

async fn put(shop: &Fixture, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let body = body.to_string().into();
    let path = "/console/troubles";
    let answer = shop.client.send(Method::PUT, path, headers, body).await;
    let answer = answer.unwrap();
    (answer.status.as_u16(), answer.body)
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn troubled(shop: &Fixture, faults: &[&str]) {
    let wanted = json!({ "troubles": faults });
    assert_eq!(put(shop, &JSON, &wanted).await, (200, wanted));
}

async fn letters(shop: &Fixture) -> Vec<Value> {
    let letters = shop.get("/console/dead-letters").await.body["letters"].take();
    letters.as_array().unwrap().clone()
}

async fn redrive(shop: &Fixture) -> Value {
    let path = "/console/dead-letters/redrive";
    let report = shop.post(path, &json!({})).await;
    assert_eq!(report.status, StatusCode::OK, "{}", report.body);
    shop.settled().await;
    report.body
}

/// Returns the outcomes of an order's deliveries, by consumer and event.
async fn outcomes(shop: &Fixture, id: &str) -> BTreeMap<(String, String), Vec<String>> {
    let path = format!("/console/orders/{id}/deliveries");
    let deliveries = shop.get(&path).await.body["deliveries"].take();
    let mut outcomes = BTreeMap::<_, Vec<_>>::new();
    for delivery in deliveries.as_array().unwrap() {
        let text = |name: &str| delivery[name].as_str().unwrap().to_owned();
        let key = (text("consumer"), text("event"));
        outcomes.entry(key).or_default().push(text("outcome"));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_comes_with_all_that_it_loads_and_may_load_nothing_else() {
    let shop = shop().await;
    let page = raw(shop.system.http, "/").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-type: text/html; charset=utf-8\r\n"));
    assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self'"));
    assert!(page.contains("x-content-type-options: nosniff\r\n"));
    assert!(page.contains("x-correlation-id: "));
    assert!(
        !page.contains("style=\"") && !page.contains("<script>"),
        "{page}"
    );
    let mut size = page.len();
    let named = page.split(['"', '<', '>']);
    let named = named.filter_map(|text| text.strip_prefix("/console/"));
    let named: BTreeSet<_> = named.filter(|name| name.contains('.')).collect();
    for script in [
        "api.js",
        "consumers.js",
        "dom.js",
        "map.js",
        "order.js",
        "sales.js",
    ] {
        assert!(named.contains(script), "{script} is loaded late: {named:?}");
    }
    assert!(named.len() > 8, "{named:?}");
    for name in named {
        let answer = raw(shop.system.http, &format!("/console/{name}")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n"),
            "{name}: {answer}"
        );
        size += answer.len();
    }
    assert!(size < 160_000, "{size} bytes are not small");

    let nothing = shop.get("/console/nothing.js").await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND);
    assert_eq!(nothing.headers["content-type"], "application/problem+json");
    for (path, allowed) in [
        ("/", "GET"),
        ("/console/stream", "GET"),
        ("/console/troubles", "GET, PUT"),
        ("/console/dead-letters/redrive", "POST"),
    ] {
        let answer = shop.client.send(Method::DELETE, path, &JSON, "".into());
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers["allow"], allowed, "{path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert!(answer.headers.contains_key("x-correlation-id"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_name_each_consumer_of_the_bus_with_its_kind() {
    let shop = shop().await;
    let settings = shop.get("/console/settings.json").await.body;
    let consumers = settings["consumers"].as_array().unwrap();
    let text = |consumer: &Value, name: &str| consumer[name].as_str().unwrap().to_owned();
    let of = |kind: &str| -> Vec<_> {
        let named = consumers.iter().filter(|one| text(one, "kind") == kind);
        named.map(|one| text(one, "id")).collect()
    };
    // The folder of a function's crate is its kind.
    let in_folder = |folder: &str| -> Vec<_> {
        let folder = template_file().with_file_name("functions").join(folder);
        let functions = template().functions.into_iter();
        functions
            .filter(|spec| folder.join(&spec.stem).is_dir())
            .filter(|spec| spec.rules().next().is_some())
            .map(|spec| spec.id)
            .collect()
    };
    assert_eq!(of("projection"), in_folder("projections"));
    let steps = of("step");
    assert!(in_folder("saga").iter().all(|step| steps.contains(step)));
    assert!(of("reaction").contains(&"NotifyCustomerFunction".to_owned()));
    assert_eq!(
        consumers.len(),
        of("projection").len() + steps.len() + of("reaction").len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_tells_the_present_and_then_what_happens() {
    let shop = shop().await;
    shop.receive("TEA-01", 10).await;
    shop.settled().await;
    let mut reader = Reader::connect(shop.system.http).await;
    let (kind, state) = reader.next().await.unwrap();
    assert_eq!(kind, "state");
    assert_eq!(state["skus"], json!(["TEA-01"]));
    let id = shop.place(&order("TEA-01", 1, "tok_visa")).await;
    let last = format!("order-{id}@2");
    let (mut events, mut applied) = (vec![], 0);
    let is_done = |delivery: &Value| {
        delivery["consumer"] == "ProjectOrdersFunction" && delivery["event"] == last.as_str()
    };
    let tally = loop {
        let (kind, mut frame) = reader.next().await.unwrap();
        assert_eq!(kind, "frame");
        let news = frame["events"].take();
        events.extend(news.as_array().unwrap().iter().cloned());
        let tally = frame["consumers"]["ProjectOrdersFunction"].take();
        let deliveries = frame["deliveries"].as_array().unwrap();
        applied += deliveries.iter().filter(|one| is_done(one)).count();
        if applied > 0 {
            break tally;
        }
    };
    let order: Vec<_> = events
        .iter()
        .filter(|event| event["id"].as_str().unwrap().contains(&id))
        .collect();
    let placed = order.iter().find(|event| event["type"] == "OrderPlaced");
    assert_eq!(placed.unwrap()["data"]["customerId"], "c-42");
    // A command has no cause, and each outcome of the saga has one.
    let caused = order.iter().filter(|event| event["cause"].is_string());
    assert_eq!(caused.count(), order.len() - 1, "{order:?}");
    assert!(
        order
            .iter()
            .any(|event| event["id"] == last.as_str() && event["type"] == "OrderConfirmed")
    );
    assert!(tally["applied"].as_u64() > Some(0), "{tally}");
    assert!(tally["lagMs"].is_u64(), "{tally}");

    // A new reader receives it in the current state.
    let (_, state) = Reader::connect(shop.system.http)
        .await
        .next()
        .await
        .unwrap();
    let known = state["events"].as_array().unwrap();
    assert!(known.iter().any(|event| event["id"] == last.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_system_and_holds_it_up_no_longer() {
    let shop = shop().await;
    let mut reader = Reader::connect(shop.system.http).await;
    reader.next().await.unwrap();
    within("the system stops", shop.system.stop()).await;
    let mut rest = String::new();
    let read = within("the stream ends", reader.0.read_to_string(&mut rest)).await;
    // A truncated answer has no last chunk.
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "{read:?}: {rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_twice_and_in_no_order_is_told_as_such_and_done_once() {
    let shop = shop().await;
    troubled(&shop, &["duplicates", "disorder"]).await;
    shop.receive("TEA-01", 10).await;
    let shown = shop.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    assert_eq!(shown["fulfilment"]["status"], "completed");
    let outcomes = outcomes(&shop, shown["orderId"].as_str().unwrap()).await;
    for consumer in [
        "ReserveStockFunction",
        "ProjectOrdersFunction",
        "NotifyCustomerFunction",
    ] {
        let is_seen = outcomes.keys().any(|(name, _)| name == consumer);
        assert!(is_seen, "{consumer}: {outcomes:?}");
    }
    for ((consumer, event), outcomes) in &outcomes {
        assert_eq!(outcomes.len(), 2, "{consumer} {event}");
        let news = outcomes.iter().filter(|outcome| *outcome != "duplicate");
        // This function may send twice, with one key for both emails.
        let most = if consumer == "NotifyCustomerFunction" {
            2
        } else {
            1
        };
        assert!(news.count() <= most, "{consumer} {event}: {outcomes:?}");
    }
    // Without faults, each delivery arrives once.
    troubled(&shop, &[]).await;
    let shown = shop.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    let outcomes = self::outcomes(&shop, shown["orderId"].as_str().unwrap()).await;
    assert!(
        outcomes.values().all(|outcomes| outcomes.len() == 1),
        "{outcomes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_consumer_leaves_dead_letters_and_a_redrive_applies_them() {
    let shop = shop().await;
    shop.receive("TEA-01", 10).await;
    troubled(&shop, &["broken-reader"]).await;
    shop.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    let left = letters(&shop).await;
    assert!(!left.is_empty());
    for letter in &left {
        assert_eq!(letter["function"], "ProjectSalesFunction", "{letter}");
        assert_eq!(letter["error"], "received too often", "{letter}");
    }
    assert_eq!(shop.get("/sales").await.body, json!({ "windows": [] }));

    troubled(&shop, &[]).await;
    let one = json!({ "message": left[0]["message"] });
    let path = "/console/dead-letters/redrive";
    assert_eq!(shop.post(path, &one).await.body["redriven"], 1);
    shop.settled().await;
    assert_eq!(letters(&shop).await.len(), left.len() - 1);
    assert_eq!(redrive(&shop).await["redriven"], left.len() - 1);
    assert!(letters(&shop).await.is_empty());
    let sales = shop.get("/sales").await.body["windows"][0].take();
    assert_eq!(
        (&sales["ordersPlaced"], &sales["ordersConfirmed"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_an_unavailable_payment_provider_and_continues() {
    let shop = shop().await;
    shop.receive("TEA-01", 10).await;
    troubled(&shop, &["provider-away"]).await;
    let waiting = shop.fulfil(&order("TEA-01", 2, "tok_visa")).await;
    assert_eq!(waiting["fulfilment"]["status"], "running");
    let left = letters(&shop).await;
    assert_eq!(left[0]["function"], "AuthorizePaymentFunction");
    troubled(&shop, &[]).await;
    redrive(&shop).await;
    let id = waiting["orderId"].as_str().unwrap();
    assert_eq!(shop.order(id).await["fulfilment"]["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_elsewhere_changes_nothing_and_learns_nothing() {
    let shop = shop().await;
    let wanted = json!({ "troubles": ["delays"] });
    let host = shop.system.http.to_string();
    let own = format!("http://{host}");
    let json = JSON[0];
    for elsewhere in [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "https://127.0.0.1",
    ] {
        let headers = [json, ("origin", elsewhere)];
        assert_eq!(put(&shop, &headers, &wanted).await.0, 403, "{elsewhere}");
    }
    // A name that an attacker resolves to this computer.
    let rebound = format!("evil.example:{}", shop.system.http.port());
    let origin = format!("http://{rebound}");
    let headers = [
        json,
        ("host", rebound.as_str()),
        ("origin", origin.as_str()),
    ];
    assert_eq!(put(&shop, &headers, &wanted).await.0, 403);
    let read = |headers: Vec<(&'static str, String)>, path: &'static str| {
        let client = shop.client.clone();
        async move {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            client
                .send(Method::GET, path, &headers, "".into())
                .await
                .unwrap()
                .status
        }
    };
    for path in [
        "/console/stream",
        "/console/dead-letters",
        "/console/troubles",
    ] {
        assert_eq!(
            read(vec![("host", rebound.clone())], path).await,
            403,
            "{path}"
        );
        let elsewhere = vec![("origin", "http://evil.example".to_owned())];
        assert_eq!(read(elsewhere, path).await, 403, "{path}");
    }
    // Media types that a form of another page can send.
    for simple in ["text/plain", "application/x-www-form-urlencoded"] {
        assert_eq!(
            put(&shop, &[("content-type", simple)], &wanted).await.0,
            415
        );
    }
    let unknown = json!({ "troubles": ["fire"] });
    assert_eq!(put(&shop, &JSON, &unknown).await.0, 400);
    assert_eq!(
        shop.get("/console/troubles").await.body,
        json!({ "troubles": [] })
    );

    assert_eq!(put(&shop, &[json, ("origin", &own)], &wanted).await.0, 200);
    assert_eq!(shop.get("/console/troubles").await.body, wanted);
}

/// A process has its own payment provider, which the page cannot reach.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_without_effect_on_processes_is_refused() {
    let program = Program {
        command: vec!["false".into()],
        directory: ".".into(),
        watched: None,
    };
    let template = template();
    let ids = template.functions.iter().map(|spec| spec.id.clone());
    let options = Options {
        functions: Functions::processes(ids.map(|id| (id, program.clone()))),
        ..options_with_page(&FaultProfile::default(), None)
    };
    let shop = Fixture::with_template(&template, options).await;
    let wanted = json!({ "troubles": ["delays", "provider-away"] });
    let (status, problem) = put(&shop, &JSON, &wanted).await;
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("provider-away has no effect"), "{detail}");
    let none = json!({ "troubles": [] });
    assert_eq!(shop.get("/console/troubles").await.body, none);
    troubled(&shop, &["delays", "broken-reader"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_api_takes_tokens_the_page_has_nothing_that_the_api_does_not_tell() {
    let template = template_with(&[
        ("Console", "on"),
        ("JwtIssuer", "http://127.0.0.1:1"),
        ("JwtAudience", "shop"),
    ]);
    let shop = shop_of(&template).await;
    let settings = shop.get("/console/settings.json").await;
    assert_eq!(
        settings.body,
        json!({ "live": false, "authorization": "jwt" })
    );
    assert!(raw(shop.system.http, "/").await.contains("<!doctype html>"));
    for path in [
        "/console/stream",
        "/console/troubles",
        "/console/dead-letters",
    ] {
        assert_eq!(shop.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_there_only_where_it_is_asked_for() {
    let shop = shop_of(&template_with(&[("Authorization", "none")])).await;
    for path in [
        "/",
        "/console/console.js",
        "/console/settings.json",
        "/console/stream",
    ] {
        assert_eq!(shop.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}
