//! The HTTP API: routes requests to functions in API Gateway's own form, payload format 2.0.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, USER_AGENT},
        request::Parts,
        uri::Authority,
    },
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cairn::Timestamp;
use cairn_aws::lambda::api::Problem;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    responses::{Answered, ApiErrors, answer_to, api_gateway, no_route, read, response},
    throttle::Buckets,
    tokens::{Granted, Refusal, Tokens},
};
use crate::{
    host::{Hosts, InvokeError},
    names::ACCOUNT,
    platform::Platform,
    template::{Authorizer, Route, Throttling, Trigger},
};

#[derive(Debug)]
pub struct Gateway {
    /// The routes and their functions, by the rank of the route.
    routes: Vec<(Route, String)>,
    buckets: Buckets,
    tokens: Option<Tokens>,
    errors: ApiErrors,
    functions: Arc<Hosts>,
    platform: Arc<dyn Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionAnswer {
    status_code: u16,
    headers: Option<HashMap<String, String>>,
    cookies: Option<Vec<String>>,
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
        let mut routes = vec![];
        for hosted in functions.values() {
            for trigger in &hosted.spec.triggers {
                if let Trigger::Http(route) = trigger {
                    routes.push((route.clone(), hosted.spec.id.clone()));
                }
            }
        }
        routes.sort_by_cached_key(|(route, _)| route.rank());
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

    /// Returns the route of a request with its function and its path parameters, or the methods of
    /// the path.
    fn find(&self, method: &str, path: &str) -> Result<Found<'_>, Vec<&str>> {
        let mut others = vec![];
        for (route, function) in &self.routes {
            if let Some(parameters) = route.parameters(path) {
                if route.takes(method) {
                    return Ok((route, function, parameters));
                }
                if !others.contains(&route.method.as_str()) {
                    others.push(route.method.as_str());
                }
            }
        }
        Err(others)
    }
}

type Found<'g> = (&'g Route, &'g str, Map<String, Value>);

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
    let (route, function, parameters) = gateway
        .find(parts.method.as_str(), path)
        .map_err(|others| no_route(path, &others))?;
    let key = route.key();
    let now = gateway.platform.now();
    let taken = gateway.buckets.take(&key, now);
    taken.map_err(|wait| too_many(&key, wait))?;
    let granted = match (&gateway.tokens, &route.scopes) {
        (_, None) => None,
        (Some(tokens), Some(scopes)) => Some(tokens.check(&parts.headers, scopes).await?),
        (None, Some(_)) => return Err(Refusal::Missing.into()),
    };
    let body = read(body).await?;
    let mut payload = payload(&parts, &key, parameters, &body, request_id, now);
    if let (Some(granted), Some(context)) = (granted, payload.get_mut("requestContext")) {
        let Granted { claims, scopes } = granted;
        context["authorizer"] = json!({ "jwt": { "claims": claims, "scopes": scopes } });
    }
    let failed = |error: &dyn std::fmt::Display| Problem::internal(&format!("{function}: {error}"));
    let Some(hosted) = gateway.functions.get(function) else {
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
    if answer.get("statusCode").is_none() {
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
    let headers = answer.headers.unwrap_or_default().into_iter();
    let mut headers: HeaderMap = headers
        .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?)))
        .collect();
    for cookie in answer.cookies.unwrap_or_default() {
        let cookie = cookie.parse().map_err(|error| failed(&error))?;
        headers.append(SET_COOKIE, cookie);
    }
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
    key: &str,
    parameters: Map<String, Value>,
    body: &[u8],
    request_id: &str,
    now: Timestamp,
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
    let (mut headers, mut cookies) = (Map::new(), vec![]);
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        if name == COOKIE {
            cookies.extend(value.split(';').map(|cookie| Value::from(cookie.trim())));
        } else {
            join(&mut headers, name.to_string(), &value);
        }
    }
    let mut parsed = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        join(&mut parsed, name.into_owned(), &value);
    }
    let header = |name| {
        let value = parts.headers.get(name)?;
        value.to_str().ok()
    };
    let host = header(HOST).and_then(|host| host.parse::<Authority>().ok());
    let domain = host.as_ref().map_or("", Authority::host);
    let text = std::str::from_utf8(body).ok();
    let text = text.filter(|_| body.is_empty() || is_text(header(CONTENT_TYPE)));
    let mut payload = json!({
        "version": "2.0",
        "routeKey": key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": domain,
            "domainPrefix": domain.split('.').next(),
            "routeKey": key,
            "stage": "$default",
            "requestId": request_id,
            "time": log_time(now),
            "timeEpoch": now.as_millis(),
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": header(USER_AGENT).unwrap_or_default(),
            },
        },
        "isBase64Encoded": text.is_none(),
    });
    // API Gateway leaves out what a request does not have.
    for (name, is_present, value) in [
        ("cookies", !cookies.is_empty(), cookies.into()),
        ("queryStringParameters", !parsed.is_empty(), parsed.into()),
        ("pathParameters", !parameters.is_empty(), parameters.into()),
        (
            "body",
            !body.is_empty(),
            text.map_or_else(|| STANDARD.encode(body), str::to_owned)
                .into(),
        ),
    ] {
        if is_present && let Value::Object(payload) = &mut payload {
            payload.insert(name.to_owned(), value);
        }
    }
    payload
}

/// True for the types whose bodies API Gateway sends as text. It encodes all others, such as a form, in
/// Base64.
fn is_text(content_type: Option<&str>) -> bool {
    let media = content_type.and_then(|value| value.split(';').next());
    let media = media.unwrap_or_default().trim().to_lowercase();
    let (kind, name) = media.split_once('/').unwrap_or_default();
    kind == "text" || kind == "application" && ["json", "javascript", "xml"].contains(&name)
}

/// Formats a time in the Common Log Format.
fn log_time(at: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = at.to_string();
    let part = |place| text.get(place).unwrap_or_default();
    let month = part(5..7)
        .parse()
        .ok()
        .and_then(|month: usize| MONTHS.get(month - 1));
    let month = month.copied().unwrap_or_default();
    format!(
        "{}/{month}/{}:{} +0000",
        part(8..10),
        part(0..4),
        part(11..19)
    )
}

fn too_many(route: &str, wait: Duration) -> Problem {
    let problem = Problem::new(429, "too-many-requests", "Too many requests").detail(format!(
        "Too many requests to {route}. Nothing was done. Retry after the time in `Retry-After`."
    ));
    problem.retry_after(wait)
}
