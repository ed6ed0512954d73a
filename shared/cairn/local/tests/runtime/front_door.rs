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
use serde_json::json;

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
