//! A template runs with given functions, on both ports, with the routes of an extension.

use std::sync::Arc;

use axum::{Router, body::Bytes, http::Method, routing::get};
use cairn_aws::lambda::{FunctionError, Handler};
use cairn_local::{
    Functions, Options, System, Template,
    client::Client,
    extension::{Extended, Extension, Started},
    http::ApiErrors,
};
use serde_json::{Value, json};

const TEMPLATE: &str = "
Resources:
  HelloFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: functions/hello
      Events:
        Api: { Type: HttpApi, Properties: { Method: GET, Path: '/hello/{name}' } }
";

fn functions() -> Functions {
    Functions::default().with("hello", |_| {
        Ok(Handler::new(|payload, _| async move {
            let request: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            let body = json!({ "hello": request["pathParameters"]["name"] });
            let answer = json!({ "statusCode": 200, "body": body.to_string() });
            Ok(answer.to_string().into_bytes())
        }))
    })
}

#[derive(Debug)]
struct Page;

impl Extension for Page {
    fn start(&self, system: &Started<'_>) -> Option<Extended> {
        let count = system.composition.hosts.len().to_string();
        Some(Extended {
            routes: Router::new().route("/page", get(|| async { count })),
            work: Box::pin(async {}),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_runs_with_its_functions_and_an_extension() {
    let template = Template::parse(TEMPLATE).unwrap();
    let options = Options {
        functions: functions(),
        extension: Some(Arc::new(Page)),
        ..Options::default()
    };
    let system = System::start(&template, &options).await.unwrap();
    let api = Client::new(system.http);
    let answer = api.get("/hello/world").await.unwrap();
    assert_eq!(answer.body, json!({ "hello": "world" }));
    assert_eq!(api.get("/nowhere").await.unwrap().status, 404);
    assert_eq!(api.get("/page").await.unwrap().body, 1);
    let aws = Client::new(system.endpoint);
    let path = "/2015-03-31/functions/HelloFunction/invocations";
    let payload = json!({ "pathParameters": { "name": "you" } });
    let answer = aws.post(path, &[], &payload).await.unwrap();
    assert_eq!(answer.body["statusCode"], 200, "{}", answer.text);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_requests_are_refused_at_the_routes_of_functions_and_of_extensions() {
    let template = Template::parse(TEMPLATE).unwrap();
    let options = Options {
        functions: functions(),
        extension: Some(Arc::new(Page)),
        ..Options::default()
    };
    let system = System::start(&template, &options).await.unwrap();
    let (api, aws) = (Client::new(system.http), Client::new(system.endpoint));
    for (client, path) in [
        (&api, "/hello/world"),
        (&api, "/page"),
        (&api, "/nowhere"),
        (&aws, "/2015-03-31/functions"),
    ] {
        for foreign in [
            ("origin", "http://evil.example"),
            ("host", "evil.example"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let headers = [foreign];
            let answer = client.send(Method::GET, path, &headers, Bytes::new());
            assert_eq!(answer.await.unwrap().status, 403, "{path} {foreign:?}");
        }
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_itself_answers_as_api_gateway_if_it_is_to() {
    let text = format!(
        "Globals: {{ Function: {{ Timeout: 30 }}, HttpApi: {{ RouteSettings: {{ 'GET /slow/{{id}}': {{ ThrottlingBurstLimit: 1, \
         ThrottlingRateLimit: 0 }} }} }} }}{TEMPLATE}        Slow: {{ Type: HttpApi, Properties: \
         {{ Method: GET, Path: '/slow/{{id}}' }} }}
"
    );
    let template = Template::parse(&text).unwrap();
    let options = Options {
        functions: Functions::default().with("hello", |_| {
            Ok(Handler::new(|payload, _| async move {
                let request: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                match request["pathParameters"]["name"].as_str() {
                    Some("fails") => Err(FunctionError::new("test error")),
                    Some("plain") => Ok(br#"{"hello":"plain"}"#.to_vec()),
                    Some("text") => Ok(br#""hello""#.to_vec()),
                    _ => Ok(br#"{"statusCode":404,"body":"mine"}"#.to_vec()),
                }
            }))
        }),
        errors: ApiErrors::ApiGateway,
        ..Options::default()
    };
    let system = System::start(&template, &options).await.unwrap();
    let api = Client::new(system.http);
    let large = Bytes::from(vec![b'x'; 10 * 1024 * 1024 + 1]);
    api.get("/slow/a").await.unwrap();
    for (method, path, body, status, message) in [
        (Method::GET, "/nowhere", Bytes::new(), 404, "Not Found"),
        (Method::PUT, "/hello/world", Bytes::new(), 404, "Not Found"),
        (
            Method::GET,
            "/slow/a",
            Bytes::new(),
            429,
            "Too Many Requests",
        ),
        (
            Method::GET,
            "/hello/world",
            large,
            413,
            "Request Entity Too Large",
        ),
        (
            Method::GET,
            "/hello/fails",
            Bytes::new(),
            500,
            "Internal Server Error",
        ),
    ] {
        let answer = api.send(method, path, &[], body).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert_eq!(answer.body, json!({ "message": message }), "{path}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(answer.headers.contains_key("apigw-requestid"), "{path}");
        for absent in ["x-correlation-id", "retry-after", "allow"] {
            assert!(!answer.headers.contains_key(absent), "{path}: {absent}");
        }
    }
    // The response of a function stays as it is.
    let answer = api.get("/hello/world").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text.as_str()),
        (404, "mine")
    );
    // API Gateway returns a response without a status as it is.
    for (name, text) in [("plain", r#"{"hello":"plain"}"#), ("text", "hello")] {
        let answer = api.get(&format!("/hello/{name}")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, text));
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    system.stop().await;
}

/// Returns a template with a function `echo` on these routes, which are the properties of its events.
fn routed(routes: &[&str]) -> String {
    let events = routes.iter().enumerate().map(|(index, properties)| {
        format!("        Route{index}: {{ Type: HttpApi, Properties: {properties} }}\n")
    });
    format!(
        "Resources:\n  EchoFunction:\n    Type: AWS::Serverless::Function\n    Properties:\n      \
         CodeUri: functions/echo\n      Events:\n{}",
        events.collect::<String>()
    )
}

/// Starts a template whose function returns its event, or the response in the body.
async fn echo(template: &str) -> System {
    let functions = Functions::default().with("echo", |_| {
        Ok(Handler::new(|payload, _| async move {
            let event: Value = serde_json::from_slice(&payload).unwrap();
            let response = event["body"].as_str().filter(|body| body.starts_with('{'));
            Ok(response.map_or(payload.clone(), |text| text.as_bytes().to_vec()))
        }))
    });
    let template = Template::parse(template).unwrap();
    let options = Options {
        functions,
        ..Options::default()
    };
    System::start(&template, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_precise_route_takes_a_request_whatever_their_order() {
    let mut routes = [
        "{}",
        "{ Method: any, Path: '/{path+}' }",
        "{ Method: GET, Path: '/files/{path+}' }",
        "{ Method: GET, Path: '/files/{id}' }",
        "{ Method: ANY, Path: '/files/{id}' }",
        "{ Method: GET, Path: '/files/list' }",
        "{ Method: POST, Path: '/files/list/{name}' }",
        "{ Method: GET, Path: '/{kind}/list/{name}' }",
        "{ Method: x-amazon-apigateway-any-method, Path: '/files' }",
    ];
    for _ in 0..2 {
        let system = echo(&routed(&routes)).await;
        let api = Client::new(system.http);
        for (method, path, route, parameters) in [
            // A text precedes a variable, which precedes a greedy one.
            (Method::GET, "/files/list", "GET /files/list", Value::Null),
            (
                Method::GET,
                "/files/a",
                "GET /files/{id}",
                json!({ "id": "a" }),
            ),
            (
                Method::GET,
                "/files/a/b%20c",
                "GET /files/{path+}",
                json!({ "path": "a/b c" }),
            ),
            // A method precedes ANY on the same path.
            (
                Method::PUT,
                "/files/a",
                "ANY /files/{id}",
                json!({ "id": "a" }),
            ),
            (Method::PUT, "/files", "ANY /files", Value::Null),
            // A path without a route for the method is passed over.
            (
                Method::PUT,
                "/files/list",
                "ANY /files/{id}",
                json!({ "id": "list" }),
            ),
            (
                Method::PUT,
                "/files/a/b",
                "ANY /{path+}",
                json!({ "path": "files/a/b" }),
            ),
            // A full match precedes a more precise greedy one.
            (
                Method::GET,
                "/files/list/a",
                "GET /{kind}/list/{name}",
                json!({ "kind": "files", "name": "a" }),
            ),
            (
                Method::POST,
                "/files/list/a",
                "POST /files/list/{name}",
                json!({ "name": "a" }),
            ),
            (Method::GET, "/", "$default", Value::Null),
        ] {
            let answer = api.send(method.clone(), path, &[], Bytes::new()).await;
            let event = answer.unwrap().body;
            assert_eq!(event["routeKey"], route, "{method} {path}");
            assert_eq!(event["pathParameters"], parameters, "{method} {path}");
        }
        system.stop().await;
        routes.reverse();
    }
}

#[test]
fn routes_that_no_api_has_are_errors() {
    let get = |path: &str| format!("{{ Method: GET, Path: '{path}' }}");
    for (first, second, problem) in [
        (
            "/files/{id}",
            "/files/{name}",
            "GET /files/{name} and GET /files/{id} are the same",
        ),
        (
            "/files/{a+}",
            "/files/{b+}",
            "GET /files/{b+} and GET /files/{a+} are the same",
        ),
        ("/files", "/{path+}/a", "unlike in /{path+}/a"),
        ("/files", "$default", "the route $default has no method"),
    ] {
        let template = routed(&[&get(first), &get(second)]);
        let error = Template::parse(&template).unwrap_err().to_string();
        assert!(error.starts_with("template.yaml, line 8: "), "{error}");
        assert!(error.contains(problem), "{error}");
    }
    for (properties, problem) in [
        ("{ Method: GET }", "both a Path and a Method"),
        (
            "{ Method: FETCH, Path: / }",
            "`FETCH` is not an HTTP method",
        ),
        (
            "{ PayloadFormatVersion: '1.0' }",
            "PayloadFormatVersion \"2.0\" only",
        ),
    ] {
        let error = Template::parse(&routed(&[properties]))
            .unwrap_err()
            .to_string();
        assert!(error.contains(problem), "{error}");
    }
    // Another method or a greedy variable is another route.
    let routes = [
        get("/files/{id}"),
        get("/files/{path+}"),
        "{ Method: PUT, Path: '/files/{name}' }".to_owned(),
    ];
    Template::parse(&routed(&routes.each_ref().map(String::as_str))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_a_response_have_the_fields_of_payload_format_2() {
    let system = echo(&routed(&["{ PayloadFormatVersion: '2.0' }"])).await;
    let api = Client::new(system.http);
    let send = async |headers: &[(&str, &str)], body: &'static [u8]| {
        let path = "/a%20b?one=1&two=2&one=%C3%A4";
        let body = Bytes::from_static(body);
        api.send(Method::POST, path, headers, body).await.unwrap()
    };

    // Each cookie is an item, and their header is left out. Other repeated headers are joined.
    let headers = [
        ("cookie", "a=1; b=2"),
        ("x-list", "1"),
        ("cookie", "c=3"),
        ("x-list", "2"),
        ("user-agent", "probe"),
        ("content-type", "Text/Plain; charset=utf-8"),
    ];
    let event = send(&headers, b"hello").await.body;
    assert_eq!(event["cookies"], json!(["a=1", "b=2", "c=3"]));
    assert_eq!(event["headers"]["cookie"], Value::Null, "{event}");
    assert_eq!(event["headers"]["x-list"], "1,2");
    assert_eq!(event["rawQueryString"], "one=1&two=2&one=%C3%A4");
    let query = json!({ "one": "1,ä", "two": "2" });
    assert_eq!(event["queryStringParameters"], query);
    assert_eq!(
        (&event["body"], &event["isBase64Encoded"]),
        (&json!("hello"), &json!(false))
    );
    let context = &event["requestContext"];
    assert_eq!(context["http"]["userAgent"], "probe");
    assert_eq!(context["domainName"], "127.0.0.1");
    let time = context["time"].as_str().unwrap();
    let is_time = regex_lite::Regex::new(r"^\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000$");
    assert!(is_time.unwrap().is_match(time), "{time}");
    // A body of another type, such as a form, is encoded.
    for kind in ["application/x-www-form-urlencoded", "image/png"] {
        let event = send(&[("content-type", kind)], b"a=1").await.body;
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("YT0x"), &json!(true))
        );
    }
    // An event leaves out what the request does not have.
    let event = api.get("/").await.unwrap().body;
    for name in ["cookies", "queryStringParameters", "pathParameters", "body"] {
        assert!(event.get(name).is_none(), "{event}");
    }

    // Each cookie of a response becomes a header, and an encoded body is decoded.
    let json = [("content-type", "application/json")];
    let response =
        br#"{"statusCode":201,"headers":{"x-list":"1,2"},"cookies":["a=1; Secure","b=2"],
        "body":"aGVsbG8=","isBase64Encoded":true,"multiValueHeaders":{"x-other":["1"]}}"#;
    let answer = send(&json, response).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text.as_str()),
        (201, "hello")
    );
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1; Secure", "b=2"]);
    assert_eq!(answer.headers["x-list"], "1,2");
    assert!(!answer.headers.contains_key("x-other"));
    // A response without a status is the body.
    let answer = send(&json, br#"{"hello":"you"}"#).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text.as_str()),
        (200, r#"{"hello":"you"}"#)
    );
    assert_eq!(answer.headers["content-type"], "application/json");
    system.stop().await;
}

#[test]
fn the_sections_of_globals_are_optional() {
    for globals in [
        "{}",
        "{ HttpApi: { FailOnWarnings: true, Tags: { team: shop } } }",
        "{ Api: { Cors: \"'*'\" }, SimpleTable: {}, StateMachine: { PropagateTags: true } }",
        "{ Function: { Timeout: 30 } }",
    ] {
        let template = Template::parse(&format!("Globals: {globals}{TEMPLATE}"));
        let template = template.unwrap_or_else(|error| panic!("{globals}: {error}"));
        let timeout_s = if globals.contains("Timeout") { 30 } else { 3 };
        assert_eq!(template.functions[0].timeout_s, timeout_s, "{globals}");
    }
    let error = Template::parse(&format!("Globals: {{ Functions: {{}} }}{TEMPLATE}"));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("Functions of Globals is not supported"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stack_has_the_name_of_the_project() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("2 my_shop");
    std::fs::create_dir(&project).unwrap();
    let file = project.join("template.yaml");
    std::fs::write(&file, TEMPLATE).unwrap();
    assert_eq!(Template::load(&file).unwrap().stack, "my-shop");
    let config = "version = 0.1\n\n[default.global.parameters]\nstack_name = \"shop2-dev\"\n";
    std::fs::write(project.join("samconfig.toml"), config).unwrap();
    let template = Template::load(&file).unwrap();
    assert_eq!(template.stack, "shop2");
    let options = Options {
        functions: functions(),
        ..Options::default()
    };
    let system = System::start(&template, &options).await.unwrap();
    let aws = Client::new(system.endpoint);
    let listed = aws.get("/2015-03-31/functions/").await.unwrap().body;
    let name = "shop2-HelloFunction";
    assert_eq!(listed["Functions"][0]["FunctionName"], name, "{listed}");
    let path = format!("/2015-03-31/functions/{name}/invocations");
    let payload = json!({ "pathParameters": { "name": "you" } });
    let answer = aws.post(&path, &[], &payload).await.unwrap();
    assert_eq!(answer.body["statusCode"], 200, "{}", answer.text);
    system.stop().await;
}

#[tokio::test]
async fn a_function_that_was_not_given_is_an_error_with_its_line() {
    let template = Template::parse(TEMPLATE).unwrap();
    let error = System::start(&template, &Options::default()).await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "template.yaml, line 4: unknown crate hello");
}
