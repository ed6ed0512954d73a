//! The HTTP API: routes requests to functions in API Gateway's own form, payload format 2.0.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_aws::lambda::api::Problem;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    responses::{Answered, ApiErrors, answer_to, api_gateway, no_route, read, response},
    throttle::Buckets,
    tokens::{Granted, Refusal, Tokens},
};
use crate::{
    host::{Hosts, InvokeError},
    platform::Platform,
    template::{Authorizer, Throttling, Trigger},
};

#[derive(Debug)]
pub struct Gateway {
    routes: Vec<Route>,
    buckets: Buckets,
    tokens: Option<Tokens>,
    errors: ApiErrors,
    functions: Arc<Hosts>,
    platform: Arc<dyn Platform>,
}

#[derive(Debug)]
struct Route {
    method: String,
    path: String,
    key: String,
    /// The scopes of which a token needs one, if any are listed; `None` if no token is needed.
    scopes: Option<Vec<String>>,
    function: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionAnswer {
    status_code: u16,
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

impl Gateway {
    /// Creates the API of these functions with its authorizer and its request limits.
    pub fn new(
        functions: Arc<Hosts>,
        authorizer: Option<Authorizer>,
        throttling: &Throttling,
        platform: Arc<dyn Platform>,
    ) -> Self {
        let routes = functions
            .values()
            .flat_map(|hosted| {
                hosted
                    .spec
                    .triggers
                    .iter()
                    .filter_map(|trigger| match trigger {
                        Trigger::Http(route) => Some(Route {
                            method: route.method.clone(),
                            path: route.path.clone(),
                            key: route.key(),
                            scopes: route.scopes.clone(),
                            function: hosted.spec.id.clone(),
                        }),
                        Trigger::Rule(_)
                        | Trigger::Stream(_)
                        | Trigger::Schedule(_)
                        | Trigger::Queue(_) => None,
                    })
            })
            .collect();
        Self {
            routes,
            buckets: Buckets::new(throttling),
            tokens: authorizer.map(|authorizer| Tokens::new(authorizer, platform.clone())),
            errors: ApiErrors::default(),
            functions,
            platform,
        }
    }

    /// Sets the form of the errors of the API itself.
    #[must_use]
    pub fn with_errors(self, errors: ApiErrors) -> Self {
        Self { errors, ..self }
    }

    pub async fn answer(&self, request: Request) -> Response {
        let request_id = self.platform.new_id().to_string();
        let correlation = request.headers().get("x-correlation-id").cloned();
        let answer = handle(self, request, &request_id).await;
        let answer = answer.map(response);
        match self.errors {
            ApiErrors::Problems => answer_to(answer, correlation, request_id),
            ApiErrors::ApiGateway => api_gateway(answer, &request_id),
        }
    }

    pub fn router(self) -> Router {
        Router::new().fallback(answer).with_state(Arc::new(self))
    }

    /// Returns the route of a request with its path parameters, or the methods of the path.
    fn find(&self, method: &str, path: &str) -> Result<(&Route, Map<String, Value>), Vec<&str>> {
        let mut takes = vec![];
        for route in &self.routes {
            if let Some(parameters) = parameters(&route.path, path) {
                if route.method == method {
                    return Ok((route, parameters));
                }
                takes.push(route.method.as_str());
            }
        }
        Err(takes)
    }
}

async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    gateway.answer(request).await
}

async fn handle(
    gateway: &Gateway,
    request: Request,
    request_id: &str,
) -> Result<Answered, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let (route, parameters) = gateway
        .find(parts.method.as_str(), path)
        .map_err(|takes| no_route(path, &takes))?;
    let taken = gateway.buckets.take(&route.key, gateway.platform.now());
    taken.map_err(|wait| too_many(&route.key, wait))?;
    let granted = match (&gateway.tokens, &route.scopes) {
        (_, None) => None,
        (Some(tokens), Some(scopes)) => Some(tokens.check(&parts.headers, scopes).await?),
        (None, Some(_)) => return Err(Refusal::Missing.into()),
    };
    let body = read(body).await?;
    let now_ms = gateway.platform.now().as_millis();
    let mut payload = payload(&parts, route, &parameters, &body, request_id, now_ms);
    if let (Some(granted), Some(context)) = (granted, payload.get_mut("requestContext")) {
        let Granted { claims, scopes } = granted;
        context["authorizer"] = json!({ "jwt": { "claims": claims, "scopes": scopes } });
    }
    let failed =
        |error: &dyn std::fmt::Display| Problem::internal(&format!("{}: {error}", route.function));
    let Some(hosted) = gateway.functions.get(&route.function) else {
        return Err(failed(&"function not found"));
    };
    let answer = hosted
        .invoke(payload.to_string().into_bytes(), request_id)
        .await
        .map_err(|error| match error {
            InvokeError::Throttled if gateway.errors == ApiErrors::Problems => {
                Problem::unavailable(&"the function is busy")
            }
            // API Gateway returns 500 if Lambda rejects an invocation.
            error => failed(&error),
        })?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(&error))?;
    if gateway.errors == ApiErrors::ApiGateway && answer.get("statusCode").is_none() {
        return Ok(plain(answer));
    }
    let answer: FunctionAnswer = serde_json::from_value(answer).map_err(|error| failed(&error))?;
    let status = StatusCode::from_u16(answer.status_code).map_err(|error| failed(&error))?;
    let body = answer.body.unwrap_or_default();
    let body = if answer.is_base64_encoded {
        STANDARD.decode(body).map_err(|error| failed(&error))?
    } else {
        body.into_bytes()
    };
    let headers = answer
        .headers
        .into_iter()
        .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?)))
        .collect();
    Ok((status, headers, body))
}

/// Returns the response that API Gateway makes of a function's JSON without a status.
fn plain(answer: Value) -> Answered {
    let body = match answer {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
    (StatusCode::OK, headers, body.into_bytes())
}

fn payload(
    parts: &Parts,
    route: &Route,
    parameters: &Map<String, Value>,
    body: &[u8],
    request_id: &str,
    now_ms: i64,
) -> Value {
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    // Values that occur several times are joined by commas, as in API Gateway.
    let join = |map: &mut Map<String, Value>, name: String, value: &str| {
        let joined = match map.get(&name).and_then(Value::as_str) {
            Some(earlier) => format!("{earlier},{value}"),
            None => value.to_owned(),
        };
        map.insert(name, joined.into());
    };
    let mut headers = Map::new();
    for (name, value) in &parts.headers {
        join(
            &mut headers,
            name.to_string(),
            &String::from_utf8_lossy(value.as_bytes()),
        );
    }
    let mut parsed = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        join(&mut parsed, name.into_owned(), &value);
    }
    let text = std::str::from_utf8(body).ok();
    let body = match (body.is_empty(), text) {
        (true, _) => Value::Null,
        (false, Some(text)) => text.into(),
        (false, None) => STANDARD.encode(body).into(),
    };
    let route_key = &route.key;
    json!({
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "queryStringParameters": parsed,
        "pathParameters": parameters,
        "requestContext": {
            "apiId": "local",
            "routeKey": route_key,
            "stage": "$default",
            "requestId": request_id,
            "timeEpoch": now_ms,
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "",
            },
        },
        "body": body,
        "isBase64Encoded": text.is_none(),
    })
}

/// Returns the path parameters if the path fits a template such as `/orders/{orderId}`.
fn parameters(template: &str, path: &str) -> Option<Map<String, Value>> {
    let mut parameters = Map::new();
    let mut actual = path.split('/');
    for part in template.split('/') {
        let value = actual.next()?;
        let name = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'));
        match name {
            Some(_) if value.is_empty() => return None,
            Some(name) => {
                let decoded = percent_decode_str(value).decode_utf8_lossy();
                parameters.insert(name.to_owned(), decoded.into_owned().into());
            }
            None if part == value => {}
            None => return None,
        }
    }
    actual.next().is_none().then_some(parameters)
}

fn too_many(route: &str, wait: Duration) -> Problem {
    let problem = Problem::new(429, "too-many-requests", "Too many requests").detail(format!(
        "Too many requests to {route}. Nothing was done. Retry after the time in `Retry-After`."
    ));
    problem.retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_a_template_part_by_part_and_is_decoded() {
        let found = parameters("/orders/{orderId}/events", "/orders/a%2Fb/events").unwrap();
        assert_eq!(found["orderId"], "a/b");
        for other in [
            "/orders/a",
            "/orders//events",
            "/orders/a/events/x",
            "/order/a/events",
        ] {
            assert!(
                parameters("/orders/{orderId}/events", other).is_none(),
                "{other}"
            );
        }
    }
}
