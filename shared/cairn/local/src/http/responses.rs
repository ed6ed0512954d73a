//! Responses of the local server itself, in the form that functions use.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use cairn_aws::lambda::{api::Problem, correlation};
use http_body_util::BodyExt;
use serde_json::json;

/// The form of the errors of the HTTP API itself, such as that of an unknown route.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiErrors {
    /// The problem documents of the functions of the kit.
    #[default]
    Problems,
    /// API Gateway's own responses: `{"message":"Not Found"}`.
    ApiGateway,
}

/// The largest body that API Gateway accepts, in bytes.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html>
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// Builds the response. `correlation` is the id of the request, if it has one.
pub fn answer_to(
    answer: Result<Response, Problem>,
    correlation: Option<HeaderValue>,
    request_id: String,
) -> Response {
    let mut response = answer.unwrap_or_else(|problem| response(refused(problem)));
    // Without an id from a function, the response carries the request's id.
    let sent = correlation.filter(|sent| sent.to_str().is_ok_and(correlation::is_from_client));
    let new = || HeaderValue::try_from(correlation::new(request_id)).ok();
    if let Some(id) = sent.or_else(new) {
        response
            .headers_mut()
            .entry("x-correlation-id")
            .or_insert(id);
    }
    response
}

/// Builds the response of API Gateway, which has the id of the request in every response and neither
/// the detail nor the `Retry-After` of a problem. A wrong method is an unknown route.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html>
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway-errors.html>
pub(super) fn api_gateway(answer: Result<Response, Problem>, request_id: &str) -> Response {
    let mut response = answer.unwrap_or_else(|problem| {
        let (status, of_problem, _) = refused(problem);
        let (status, message) = match status {
            StatusCode::METHOD_NOT_ALLOWED => (StatusCode::NOT_FOUND, "Not Found"),
            StatusCode::PAYLOAD_TOO_LARGE => (status, "Request Entity Too Large"),
            status => (status, status.canonical_reason().unwrap_or_default()),
        };
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        if let Some(scheme) = of_problem.get(header::WWW_AUTHENTICATE) {
            headers.insert(header::WWW_AUTHENTICATE, scheme.clone());
        }
        let body = json!({ "message": message }).to_string();
        response((status, headers, body.into_bytes()))
    });
    if let Ok(id) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert("apigw-requestid", id);
    }
    response
}

pub(super) type Answered = (StatusCode, HeaderMap, Vec<u8>);

pub(super) fn response((status, headers, body): Answered) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A response of the gateway itself, in the form that the functions use.
fn refused(problem: Problem) -> Answered {
    let (status, headers, body) = problem.into_response().into_parts();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers, body.into_bytes())
}

/// The problem of a request that did not arrive in time.
pub(crate) fn late() -> Problem {
    Problem::new(408, "request-timeout", "The request did not arrive in time")
        .detail("Send the whole request within 30 seconds.")
}

pub fn no_route(path: &str, methods: &[&str]) -> Problem {
    if methods.is_empty() {
        return Problem::not_found(format!("no route {path}"));
    }
    let methods = methods.join(", ");
    let problem = Problem::new(405, "method-not-allowed", "Method not allowed")
        .detail(format!("{path} supports {methods}."));
    match HeaderValue::try_from(methods) {
        Ok(methods) => problem.header(header::ALLOW, methods),
        Err(_) => problem,
    }
}

/// Reads the body. An oversized body is drained up to a limit: a client that is still sending when
/// the connection closes may never see the answer.
pub async fn read(mut body: Body) -> Result<Vec<u8>, Problem> {
    let (mut bytes, mut length) = (vec![], 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreadable(&error))?;
        let data = frame.into_data().unwrap_or_default();
        length += data.len();
        if length <= MAX_BODY_BYTES {
            bytes.extend_from_slice(&data);
        } else if length > 10 * MAX_BODY_BYTES {
            break;
        }
    }
    if length > MAX_BODY_BYTES {
        return Err(Problem::too_large());
    }
    Ok(bytes)
}

/// A body with invalid framing, or one that timed out.
fn unreadable(error: &axum::Error) -> Problem {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            return late();
        }
        cause = error.source();
    }
    Problem::bad_request(format!("the body cannot be read: {error}"))
}
