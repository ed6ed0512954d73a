//! Lambda's Runtime API, over which a process receives its invocations and returns its answers.
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::{
    error::Error as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cairn::Timestamp;
use cairn_aws::lambda::Invocation;
use http_body_util::LengthLimitError;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot, watch};

/// The largest answer of a function in bytes, with the margin of Lambda.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_ANSWER: usize = 6 * 1024 * 1024 + 100;

/// The answer of a function, or the error that its process reports.
pub(super) type Outcome = Result<Vec<u8>, Value>;

/// The Runtime API of one environment, which has one invocation at a time. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct RuntimeApi(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: Mutex<Option<Current>>,
    offered: Notify,
    /// The progress of the start.
    start: watch::Sender<Start>,
}

/// The start of a process.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    UnderWay,
    /// The process has asked for its first invocation.
    Done,
    /// The process has reported this error.
    Failed(Value),
}

impl Start {
    pub(super) fn error(&self) -> Option<&Value> {
        match self {
            Self::Failed(error) => Some(error),
            Self::UnderWay | Self::Done => None,
        }
    }
}

#[derive(Debug)]
struct Current {
    id: String,
    /// Empty once the process has received it.
    request: Option<Response>,
    outcome: oneshot::Sender<Outcome>,
}

impl RuntimeApi {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            current: Mutex::default(),
            offered: Notify::new(),
            start: watch::Sender::new(Start::UnderWay),
        }))
    }

    /// Returns the routes of the API at an address.
    pub(super) fn router(&self, address: SocketAddr) -> Router {
        const INVOCATION: &str = "/2018-06-01/runtime/invocation";
        Router::new()
            .route(&format!("{INVOCATION}/next"), get(next))
            .route(&format!("{INVOCATION}/{{id}}/response"), post(response))
            .route(&format!("{INVOCATION}/{{id}}/error"), post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(self.clone())
            // The limit of the reports of errors.
            .layer(DefaultBodyLimit::max(MAX_ANSWER))
            .layer(from_fn(move |request: Request, next: Next| async move {
                if is_of_page(request.headers(), address) {
                    return refused(StatusCode::FORBIDDEN, "AccessDeniedException");
                }
                next.run(request).await
            }))
    }

    pub(super) fn start(&self) -> watch::Receiver<Start> {
        self.0.start.subscribe()
    }

    /// Offers an invocation to the process, and returns its future outcome.
    pub(super) fn offer(
        &self,
        payload: Vec<u8>,
        invocation: &Invocation,
    ) -> oneshot::Receiver<Outcome> {
        let (outcome, receiver) = oneshot::channel();
        *self.current() = Some(Current {
            id: invocation.request_id.clone(),
            request: Some(request(payload, invocation)),
            outcome,
        });
        self.0.offered.notify_one();
        receiver
    }

    fn take_request(&self) -> Option<Response> {
        self.current().as_mut()?.request.take()
    }

    /// Ends the current invocation. An outcome of another invocation is refused.
    fn finish(&self, id: &str, outcome: Outcome) -> Response {
        let current = self.current().take_if(|current| current.id == id);
        let Some(current) = current else {
            return refused(StatusCode::BAD_REQUEST, "InvalidRequestID");
        };
        // Without a receiver, the invocation has timed out.
        let _ = current.outcome.send(outcome);
        accepted()
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        let current = self.0.current.lock();
        current.unwrap_or_else(PoisonError::into_inner)
    }
}

/// True for a request that a web page may have sent: with another host, which DNS rebinding allows,
/// or with the headers of a browser.
fn is_of_page(headers: &HeaderMap, address: SocketAddr) -> bool {
    let is_ours = |host: &HeaderValue| host.as_bytes() == address.to_string().as_bytes();
    !headers.get(header::HOST).is_some_and(is_ours)
        || headers.contains_key(header::ORIGIN)
        || headers.contains_key("sec-fetch-site")
}

/// Answers with the next invocation, once there is one.
async fn next(State(api): State<RuntimeApi>) -> Response {
    api.0.start.send_if_modified(|start| {
        let is_first = *start == Start::UnderWay;
        if is_first {
            *start = Start::Done;
        }
        is_first
    });
    loop {
        if let Some(request) = api.take_request() {
            return request;
        }
        api.0.offered.notified().await;
    }
}

async fn response(State(api): State<RuntimeApi>, Path(id): Path<String>, body: Body) -> Response {
    let error = match to_bytes(body, MAX_ANSWER).await {
        Ok(answer) => return api.finish(&id, Ok(answer.into())),
        Err(error) => error,
    };
    let mut causes = std::iter::successors(error.source(), |cause| (**cause).source());
    if !causes.any(<dyn std::error::Error>::is::<LengthLimitError>) {
        // The end of the process, which broke the connection, ends the invocation.
        return refused(StatusCode::BAD_REQUEST, "InvalidRequest");
    }
    let kind = "Function.ResponseSizeTooLarge";
    let message = format!(
        "Response payload size exceeded maximum allowed payload size ({MAX_ANSWER} bytes)."
    );
    let error = json!({ "errorType": kind, "errorMessage": message });
    // The clients of AWS exit after this refusal, so no other invocation may use the process.
    api.0.start.send_replace(Start::Failed(error.clone()));
    api.finish(&id, Err(error));
    refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
}

async fn error(State(api): State<RuntimeApi>, Path(id): Path<String>, body: Bytes) -> Response {
    api.finish(&id, Err(reported(&body)))
}

async fn init_error(State(api): State<RuntimeApi>, body: Bytes) -> Response {
    api.0.start.send_replace(Start::Failed(reported(&body)));
    accepted()
}

/// Returns the error of a body; a body that is not JSON becomes its message.
fn reported(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let message = String::from_utf8_lossy(body);
        json!({ "errorType": "Runtime.Unknown", "errorMessage": message })
    })
}

fn request(payload: Vec<u8>, invocation: &Invocation) -> Response {
    let deadline = Timestamp::now().after(invocation.remaining).as_millis();
    let headers = [
        (
            "lambda-runtime-aws-request-id",
            invocation.request_id.clone(),
        ),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            invocation.function.clone(),
        ),
        (
            "lambda-runtime-trace-id",
            invocation.trace.clone().unwrap_or_default(),
        ),
    ];
    let mut response = payload.into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    for (name, value) in headers {
        // A trace that is no header is left out.
        if let Ok(value) = HeaderValue::try_from(value) {
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn accepted() -> Response {
    let body = axum::Json(json!({ "status": "OK" }));
    (StatusCode::ACCEPTED, body).into_response()
}

fn refused(status: StatusCode, kind: &str) -> Response {
    let body = axum::Json(json!({ "errorType": kind, "errorMessage": kind }));
    (status, body).into_response()
}
