//! The AWS endpoint on a port, for the AWS CLI and for functions in containers.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::aws::Aws;

/// The most bytes that any of the services takes in one call, with room to spare.
const MAX_BODY_BYTES: usize = 20 * 1024 * 1024;

/// The endpoint: every call is a POST to `/` with the header `X-Amz-Target`.
pub fn router(aws: Arc<Aws>) -> Router {
    Router::new()
        .fallback(answer)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(aws)
}

async fn answer(State(aws): State<Arc<Aws>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let target = header("x-amz-target").unwrap_or_default();
    let media_type = header("content-type")
        .unwrap_or("application/x-amz-json-1.0")
        .to_owned();
    let answer = aws.call("endpoint", target, &body);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let request_id = uuid::Uuid::new_v4().to_string();
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (
            header::HeaderName::from_static("x-amzn-requestid"),
            request_id,
        ),
    ];
    (status, headers, answer.body).into_response()
}
