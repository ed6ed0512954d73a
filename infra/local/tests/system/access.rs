//! Foreign requests are refused at every route of both ports.

use axum::http::{Method, StatusCode};
use cairn_local::{
    Options, System,
    client::{Answer, Client},
    faults::FaultProfile,
    template::Trigger,
};
use orders_local::{console, options_with_page};

use crate::fixture::template;

const FUNCTIONS: &str = "/2015-03-31/functions";
const SEND_EMAIL: &str = "/v2/email/outbound-emails";
const METER: &str = "/_cairn/meter";

const JSON: (&str, &str) = ("content-type", "application/json");

async fn system(allowed: &[&str]) -> System {
    let options = Options {
        allow_hosts: allowed.iter().map(|host| host.parse().unwrap()).collect(),
        ..options_with_page(&FaultProfile::default(), None)
    };
    System::start(&template(), &options).await.unwrap()
}

/// All routes of the HTTP API and of the page, and one unknown route.
fn api_routes(system: &System) -> Vec<(Method, String)> {
    let functions = system.composition.hosts.values();
    let triggers = functions.flat_map(|hosted| &hosted.spec.triggers);
    let of_functions = triggers.filter_map(|trigger| match trigger {
        Trigger::Http(route) => Some((route.method.clone(), route.path.clone())),
        Trigger::Rule(_) | Trigger::Stream(_) | Trigger::Schedule(_) | Trigger::Queue(_) => None,
    });
    let of_page = console::ROUTES.iter().flat_map(|(path, methods)| {
        let methods = methods.iter();
        methods.map(|method| ((*method).to_owned(), (*path).to_owned()))
    });
    let nowhere = [("GET".to_owned(), "/nowhere".to_owned())];
    let routes = of_functions.chain(of_page).chain(nowhere);
    let routes: Vec<_> = routes
        .map(|(method, path)| {
            let parts = path.split('/').map(|part| {
                let is_parameter = part.starts_with('{');
                if is_parameter { "c-42" } else { part }
            });
            (method.parse().unwrap(), parts.collect::<Vec<_>>().join("/"))
        })
        .collect();
    assert!(routes.len() > console::ROUTES.len() + 10, "{routes:?}");
    routes
}

/// All routes of the AWS endpoint, and one unknown route.
fn endpoint_routes(system: &System) -> Vec<(Method, String)> {
    let invocations = system.composition.hosts.keys();
    let invocations = invocations.map(|id| {
        let path = format!("{FUNCTIONS}/{id}/invocations");
        (Method::POST, path)
    });
    let others = [
        (Method::POST, "/"),
        (Method::POST, SEND_EMAIL),
        (Method::GET, FUNCTIONS),
        (Method::GET, METER),
        (Method::GET, "/nowhere"),
    ];
    let others = others.map(|(method, path)| (method, path.to_owned()));
    invocations.chain(others).collect()
}

fn foreign(port: u16) -> Vec<(&'static str, String)> {
    let hosts = [
        format!("evil.example:{port}"),
        "evil.example".to_owned(),
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("127.1:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::2]:{port}"),
        format!("127.0.0.1,evil.example:{port}"),
    ];
    let origins = [
        "http://evil.example".to_owned(),
        "null".to_owned(),
        "http://127.0.0.1".to_owned(),
        "http://127.0.0.1:1".to_owned(),
        format!("http://localhost:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}.evil.example"),
    ];
    let sites = ["cross-site", "same-site", "other"];
    let hosts = hosts.into_iter().map(|host| ("host", host));
    let origins = origins.into_iter().map(|origin| ("origin", origin));
    let sites = sites.map(|site| ("sec-fetch-site", site.to_owned()));
    hosts.chain(origins).chain(sites).collect()
}

async fn send(
    client: &Client,
    (method, path): &(Method, String),
    headers: &[(&str, &str)],
) -> Answer {
    let body = r#"{"customer":"c-42"}"#.into();
    let answer = client.send(method.clone(), path, headers, body).await;
    answer.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_both_ports_refuses_what_comes_from_elsewhere() {
    let system = system(&[]).await;
    let (api, aws) = (Client::new(system.http), Client::new(system.endpoint));
    for route in api_routes(&system) {
        for (name, value) in foreign(system.http.port()) {
            let answer = send(&api, &route, &[JSON, (name, &value)]).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{route:?} {name} {value}"
            );
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            assert!(answer.headers.contains_key("x-correlation-id"));
            assert_eq!(answer.body["status"], 403);
        }
    }
    for route in endpoint_routes(&system) {
        for (name, value) in foreign(system.endpoint.port()) {
            let simple = ("content-type", "text/plain");
            let answer = send(&aws, &route, &[simple, (name, &value)]).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{route:?} {name} {value}"
            );
            assert_eq!(answer.body["__type"], "AccessDeniedException");
            assert!(answer.headers.contains_key("x-amzn-requestid"));
        }
    }
    // Scheduled functions run without requests.
    let is_timed = |trigger: &Trigger| matches!(trigger, Trigger::Schedule(_));
    for (id, hosted) in system.composition.hosts.iter() {
        if !hosted.spec.triggers.iter().any(is_timed) {
            assert_eq!(hosted.invocations(), 0, "{id} ran");
        }
    }
    let calls = system.composition.aws.meter.counts();
    assert!(calls.keys().all(|(caller, _)| caller != "endpoint"));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_this_machine_or_of_an_allowed_host_is_answered() {
    let system = system(&["host.docker.internal", "Tunnel.example:8080"]).await;
    for (at, path) in [(system.http, "/stock/TEA-01"), (system.endpoint, METER)] {
        let (client, port) = (Client::new(at), at.port());
        let status = async |headers: &[(&str, &str)]| {
            let route = (Method::GET, path.to_owned());
            send(&client, &route, headers).await.status
        };
        let passes = status(&[]).await;
        assert_ne!(passes, StatusCode::FORBIDDEN);
        for host in ["127.0.0.1", "localhost", "LocalHost", "localhost.", "[::1]"] {
            let host = format!("{host}:{port}");
            let origin = format!("http://{host}");
            let own = [("host", host.as_str()), ("origin", origin.as_str())];
            assert_eq!(status(&own).await, passes, "{host}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(status(&[("sec-fetch-site", site)]).await, passes, "{site}");
        }
        let docker = format!("host.docker.internal:{port}");
        assert_eq!(status(&[("host", &docker)]).await, passes);
        assert_eq!(status(&[("host", "tunnel.example:8080")]).await, passes);
        for other in ["host.docker.internal:1", "host.docker.internal"] {
            assert_eq!(status(&[("host", other)]).await, StatusCode::FORBIDDEN);
        }
        for malformed in ["", "a b", "127.0.0.1:x", "me@127.0.0.1:3000"] {
            let answer = status(&[("host", malformed)]).await;
            assert_eq!(answer, StatusCode::BAD_REQUEST, "{malformed}");
        }
        let own = at.to_string();
        let twice = [("host", own.as_str()), ("host", own.as_str())];
        assert_eq!(status(&twice).await, StatusCode::BAD_REQUEST);
    }
    system.stop().await;
}
