//! A template runs with given functions, on both ports, with the routes of an extension.

use std::sync::Arc;

use axum::{Router, body::Bytes, http::Method, routing::get};
use cairn_aws::lambda::Handler;
use cairn_local::{
    Functions, Options, System, Template,
    client::Client,
    extension::{Extended, Extension, Started},
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

#[tokio::test]
async fn a_function_that_was_not_given_is_an_error_with_its_line() {
    let template = Template::parse(TEMPLATE).unwrap();
    let error = System::start(&template, &Options::default()).await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "template.yaml, line 4: unknown crate hello");
}
