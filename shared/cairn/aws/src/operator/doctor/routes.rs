//! The check of the routes of HTTP APIs.

use serde_json::Value;

use super::{Deployment, Examined};
use crate::context::http_client::HttpClient;

/// A route of an HTTP API, as the template declares it.
#[derive(Debug, PartialEq, Eq)]
struct ApiRoute<'d> {
    /// The logical id of the API.
    api: &'d str,
    method: String,
    path: String,
    /// The status of a response to a request without a token, if the route requires one.
    refusal: Option<u16>,
}

const HTTP_API: &str = "AWS::ApiGatewayV2::Api";
/// The method and the path of a route that takes what no other route takes.
const ANY: &str = "ANY";
const DEFAULT: &str = "$default";

/// Returns the routes of the HTTP APIs: those in the definition of an API, and those that are
/// resources. The result has the APIs and the routes that cannot be checked.
fn declared<'d>(deployment: &'d Deployment, result: &mut Examined) -> Vec<ApiRoute<'d>> {
    let mut routes = vec![];
    for (api, properties) in deployment.resources(HTTP_API) {
        let paths = properties.pointer("/Body/paths").and_then(Value::as_object);
        for (path, methods) in paths.into_iter().flatten() {
            let methods = deployment.chosen(methods).and_then(Value::as_object);
            for (method, operation) in methods.into_iter().flatten() {
                let security = deployment
                    .chosen(operation)
                    .and_then(|it| it.get("security"));
                let security = security.and_then(|node| deployment.chosen(node));
                let security = security.and_then(Value::as_array);
                let is_any = method == "x-amazon-apigateway-any-method";
                routes.push(ApiRoute {
                    api,
                    method: if is_any {
                        ANY.to_owned()
                    } else {
                        method.to_uppercase()
                    },
                    path: path.clone(),
                    refusal: security.filter(|it| !it.is_empty()).map(|_| 401),
                });
            }
        }
    }
    for (id, properties) in deployment.resources("AWS::ApiGatewayV2::Route") {
        match route_of(deployment, properties) {
            Ok(route) => routes.push(route),
            Err(reason) => result.not_checked.push(format!("{id}: {reason}")),
        }
    }
    for (api, properties) in deployment.resources(HTTP_API) {
        if properties
            .get("ProtocolType")
            .is_some_and(|it| it == "WEBSOCKET")
        {
            routes.retain(|route| route.api != api);
            let reason = "the routes of a WebSocket API cannot be checked";
            result.not_checked.push(format!("{api}: {reason}"));
        } else if !routes.iter().any(|route| route.api == api) {
            let reason = "the template that CloudFormation returns has no routes of this API";
            result.not_checked.push(format!("{api}: {reason}"));
        }
    }
    for (api, _) in deployment.resources("AWS::ApiGateway::RestApi") {
        let reason = "the routes of a REST API cannot be checked";
        result.not_checked.push(format!("{api}: {reason}"));
    }
    routes
}

/// Returns the route that is a resource with these properties, or the reason for which it cannot be
/// checked.
fn route_of<'d>(
    deployment: &'d Deployment,
    properties: &Value,
) -> Result<ApiRoute<'d>, &'static str> {
    let text = |name| {
        let node = properties.get(name);
        node.map(|node| deployment.text(node))
    };
    let api = text("ApiId").flatten().ok_or("its API is unknown")?;
    let mut apis = deployment.resources(HTTP_API).map(|(id, _)| id);
    let api = apis.find(|id| deployment.value(id) == Some(&api));
    let key = text("RouteKey")
        .flatten()
        .ok_or("its RouteKey is unknown")?;
    let (method, path) = key.split_once(' ').unwrap_or((ANY, &key));
    Ok(ApiRoute {
        api: api.ok_or("its API is in another stack")?,
        method: method.to_owned(),
        path: path.to_owned(),
        refusal: match text("AuthorizationType") {
            None => None,
            Some(Some(kind)) if kind == "NONE" => None,
            Some(Some(kind)) if kind == "JWT" => Some(401),
            Some(Some(kind)) if kind == "AWS_IAM" => Some(403),
            Some(_) => return Err("the response without a token depends on its authorizer"),
        },
    })
}

/// Returns the first part of the paths of an API: empty, or the stage if none is `$default`.
fn stage(deployment: &Deployment, api: &str) -> String {
    let stages = deployment.resources("AWS::ApiGatewayV2::Stage");
    let names = stages.filter_map(|(_, properties)| {
        let text = |name| deployment.text(properties.get(name)?);
        let name = text("StageName")?;
        (text("ApiId").as_deref() == deployment.value(api)).then_some(name)
    });
    let names: Vec<_> = names.collect();
    match names.first() {
        Some(name) if !names.iter().any(|name| name == DEFAULT) => format!("/{name}"),
        _ => String::new(),
    }
}

/// Requests each route of the HTTP APIs without a token.
pub(super) async fn examine(deployment: &Deployment, result: &mut Examined) {
    let http = HttpClient::network();
    let routes = declared(deployment, result);
    for (api, _) in deployment.resources(HTTP_API) {
        let own: Vec<_> = routes.iter().filter(|route| route.api == api).collect();
        let Some(url) = deployment.output(api, "ApiEndpoint") else {
            if !own.is_empty() {
                let reason = "no output of the stack is its ApiEndpoint";
                result.not_checked.push(format!("{api}: {reason}"));
            }
            continue;
        };
        let stage = stage(deployment, api);
        for route in &own {
            let ApiRoute { method, path, .. } = route;
            let of_path = own.iter().filter(|other| other.path == *path);
            let mut methods = ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter();
            let method = match method.as_str() {
                // A method that no other route of the path takes.
                ANY => methods.find(|method| of_path.clone().all(|other| other.method != *method)),
                method => Some(method),
            };
            let method = method.unwrap_or("GET");
            let is_default = path.trim_start_matches('/') == DEFAULT;
            let probed = if is_default { "/doctor" } else { path };
            match probe(&http, url, method, &format!("{stage}{probed}")).await {
                Ok((status, body)) => {
                    result.examined += 1;
                    if let Some(problem) = difference(route.refusal, status, &body) {
                        let problem = format!("{} {path} {problem}", route.method);
                        result.wrong.push(problem);
                    }
                }
                Err(error) => {
                    let problem = format!("{} {path}: {error}", route.method);
                    result.not_checked.push(problem);
                }
            }
        }
    }
}

/// Sends a request without a token, whose path parameters name nothing and whose body is not JSON:
/// a function that it reaches changes nothing.
async fn probe(
    http: &HttpClient,
    url: &str,
    method: &str,
    path: &str,
) -> Result<(u16, Vec<u8>), String> {
    let path: String = path
        .split_inclusive(['{', '}'])
        .map(|part| match part.strip_suffix('}') {
            Some(_) => "doctor",
            None => part.strip_suffix('{').unwrap_or(part),
        })
        .collect();
    // An emulator serves each API at a name below `localhost`, which is this computer in any case.
    // <https://www.rfc-editor.org/rfc/rfc6761#section-6.3>
    let (scheme, authority) = url.split_once("://").unwrap_or(("https", url));
    let authority = authority.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let (server, named) = if host.ends_with(".localhost") {
        (
            format!("127.0.0.1:{port}"),
            vec![("host", authority.to_owned())],
        )
    } else {
        (authority.to_owned(), vec![])
    };
    let body = if method == "GET" { "" } else { "{" };
    let url = format!("{scheme}://{server}{path}");
    let answer = http.send(method, &url, &named, body.to_owned()).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.status, answer.body))
}

/// Returns the difference between a response to a request without a token and the expected one.
fn difference(refusal: Option<u16>, status: u16, body: &[u8]) -> Option<String> {
    /// The response of API Gateway to a request without a route.
    const NO_ROUTE: &[u8] = br#"{"message":"Not Found"}"#;
    match (refusal, status) {
        (_, 404) if body == NO_ROUTE => Some("does not exist in API Gateway".to_owned()),
        (None, 401 | 403) => Some("requires a token, and the template requires none".to_owned()),
        (None, 500..) => Some(format!("has the status {status}")),
        (Some(expected), _) if status != expected => Some(format!(
            "has the status {status} without a token, not {expected}"
        )),
        (_, _) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        thread,
    };

    use serde_json::json;

    use super::*;

    fn deployment(url: &str) -> Deployment {
        let route = |api: &str, key: &str, authorization: &str| {
            json!({ "Type": "AWS::ApiGatewayV2::Route", "Properties": {
                "ApiId": { "Ref": api }, "RouteKey": key, "AuthorizationType": authorization,
            } })
        };
        let template = json!({
            "Resources": {
                "Api": { "Type": HTTP_API, "Properties": { "ProtocolType": "HTTP" } },
                "Stage": { "Type": "AWS::ApiGatewayV2::Stage", "Properties": {
                    "ApiId": { "Ref": "Api" }, "StageName": "prod",
                } },
                "Open": { "Type": "AWS::ApiGatewayV2::Route", "Properties": {
                    "ApiId": { "Ref": "Api" }, "RouteKey": "GET /open/{id}",
                } },
                "Closed": route("Api", "ANY /open/{id}", "JWT"),
                "Signed": route("Api", "POST /signed", "AWS_IAM"),
                "Missing": route("Api", "GET /missing/{path+}", "NONE"),
                "Default": route("Api", "$default", "NONE"),
                "Custom": route("Api", "GET /custom", "CUSTOM"),
                "Foreign": route("Other", "GET /", "NONE"),
                "Socket": { "Type": HTTP_API, "Properties": { "ProtocolType": "WEBSOCKET" } },
                "Connect": route("Socket", "$connect", "NONE"),
                "Empty": { "Type": HTTP_API },
                "Rest": { "Type": "AWS::ApiGateway::RestApi" },
            },
            "Outputs": { "Url": { "Value": { "Fn::GetAtt": ["Api", "ApiEndpoint"] } } },
        });
        let values = [
            ("Api", "a1"),
            ("Socket", "s1"),
            ("Other", "o1"),
            ("Empty", "e1"),
        ];
        Deployment::of(template, &values, &[("Url", url)])
    }

    /// Serves these responses on a port of this computer, and returns its URL.
    fn serve(responses: &'static [(&str, &str, &str)]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut head = BufReader::new(&socket).lines().map_while(Result::ok);
                let request = head.next().unwrap();
                head.find(String::is_empty);
                let found = responses
                    .iter()
                    .find(|(start, ..)| request.starts_with(start));
                let (_, status, body) = found.unwrap();
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                socket.write_all(text.as_bytes()).unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn routes_that_are_resources_are_checked_and_those_that_cannot_be_are_named() {
        let url = serve(&[
            ("GET /prod/open/doctor ", "200 OK", "{}"),
            ("POST /prod/open/doctor ", "401 Unauthorized", "{}"),
            ("POST /prod/signed ", "200 OK", "{}"),
            (
                "GET /prod/missing/doctor ",
                "404 Not Found",
                r#"{"message":"Not Found"}"#,
            ),
            ("GET /prod/doctor ", "404 Not Found", "{}"),
        ]);
        let mut result = Examined::default();
        examine(&deployment(&url), &mut result).await;
        assert_eq!(result.examined, 5, "{result:?}");
        let wrong = [
            "GET /missing/{path+} does not exist in API Gateway",
            "POST /signed has the status 200 without a token, not 403",
        ];
        assert_eq!(result.wrong, wrong);
        let not_checked = [
            "Custom: the response without a token depends on its authorizer",
            "Foreign: its API is in another stack",
            "Empty: the template that CloudFormation returns has no routes of this API",
            "Socket: the routes of a WebSocket API cannot be checked",
            "Rest: the routes of a REST API cannot be checked",
        ];
        assert_eq!(result.not_checked, not_checked);
    }

    #[test]
    fn a_closed_route_refuses_a_request_without_a_token_and_an_open_one_reaches_its_function() {
        let gateway = br#"{"message":"Not Found"}"#;
        let function = br#"{"type":"about:blank","status":404}"#;
        for (refusal, status, body, is_right) in [
            (Some(401), 401, &b"{}"[..], true),
            (Some(401), 200, &b"{}"[..], false),
            (Some(401), 404, &gateway[..], false),
            (Some(401), 404, &function[..], false),
            (Some(403), 403, &b"{}"[..], true),
            (Some(403), 401, &b"{}"[..], false),
            (None, 200, &b"{}"[..], true),
            (None, 404, &function[..], true),
            (None, 404, &gateway[..], false),
            (None, 401, &b"{}"[..], false),
            (None, 503, &b"{}"[..], false),
        ] {
            let problem = difference(refusal, status, body);
            assert_eq!(
                problem.is_none(),
                is_right,
                "{refusal:?} {status}: {problem:?}"
            );
        }
    }
}
