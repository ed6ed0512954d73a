//! The AWS endpoint on a port, for the AWS CLI and for functions in containers.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use serde_json::json;

use crate::{
    aws::{Aws, Call},
    hosting::{Hosted, Hosts, InvokeError, arn},
    template::STACK,
};

/// The most bytes that any of the services takes in one call, with room to spare.
const MAX_BODY_BYTES: usize = 20 * 1024 * 1024;

/// The path of all functions, by which Lambda lists them.
/// <https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctions.html>
const FUNCTIONS: &str = "/2015-03-31/functions";

/// The endpoint: every call is a POST, to `/` with the header `X-Amz-Target`, or to the path of a
/// function's invocations; but for the list of functions, which is a GET.
pub fn router(aws: Arc<Aws>, hosts: Arc<Hosts>) -> Router {
    Router::new()
        .fallback(answer)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state((aws, hosts))
}

async fn answer(
    State((aws, hosts)): State<(Arc<Aws>, Arc<Hosts>)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if method == Method::GET && uri.path().trim_end_matches('/') == FUNCTIONS {
        return list(&hosts).into_response();
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let call = Call {
        target: header("x-amz-target").unwrap_or_default(),
        path: uri.path(),
        body: &body,
    };
    let kind = header("x-amz-invocation-type").unwrap_or("RequestResponse");
    let function = call.function().and_then(|function| aws.function(function));
    if let Some(hosted) = function.and_then(|function| hosts.get(function)) {
        match kind {
            "RequestResponse" => return invoked(hosted, &body).await,
            "DryRun" => return StatusCode::NO_CONTENT.into_response(),
            _ => {}
        }
    }
    let media_type = header("content-type")
        .unwrap_or("application/x-amz-json-1.0")
        .to_owned();
    let answer = aws.call("endpoint", &call);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let request_id = uuid::Uuid::new_v4().to_string();
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (HeaderName::from_static("x-amzn-requestid"), request_id),
    ];
    (status, headers, answer.body).into_response()
}

/// Every function with what it is told.
fn list(hosts: &Hosts) -> String {
    let functions: Vec<_> = hosts
        .values()
        .map(|hosted| {
            let spec = &hosted.spec;
            json!({
                "FunctionName": format!("{STACK}-{}", spec.id),
                "FunctionArn": arn(&spec.id),
                "Timeout": spec.timeout_s,
                "Environment": { "Variables": spec.settings },
            })
        })
        .collect();
    json!({ "Functions": functions }).to_string()
}

/// Invokes a function and waits for what it says. That it fails is an answer too, with a header.
async fn invoked(hosted: &Hosted, payload: &[u8]) -> Response {
    let request_id = uuid::Uuid::new_v4().to_string();
    match hosted.invoke(payload.to_vec(), &request_id).await {
        Ok(answer) => answer.into_response(),
        Err(InvokeError::Throttled) => {
            let error = json!({ "Type": "User", "message": InvokeError::Throttled.to_string() });
            let kind = [(
                HeaderName::from_static("x-amzn-errortype"),
                "TooManyRequestsException",
            )];
            (StatusCode::TOO_MANY_REQUESTS, kind, error.to_string()).into_response()
        }
        Err(error) => {
            let error = json!({ "errorMessage": error.to_string() });
            let kind = [(HeaderName::from_static("x-amz-function-error"), "Unhandled")];
            (kind, error.to_string()).into_response()
        }
    }
}
