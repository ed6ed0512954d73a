//! The routes of the AWS endpoint: each request in the protocol of its service.

use std::{collections::BTreeMap, error::Error as _, io, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::json;

use super::{
    cloudformation::Stack,
    lambda,
    protocol::{Protocol, Wanted, XML, access_key, answer},
};
use crate::{
    aws::{
        Answer, Aws, Call,
        call::{SEND_EMAIL, UNKNOWN_OPERATION},
        queues::query_code,
    },
    host::{
        Hosts,
        sdk::{Refusal, stale, throttled, undergo},
    },
    names::{ACCOUNT, QUEUE_ORIGIN, function_of_key},
    platform::{FaultDecision, Platform},
};

/// The largest request body of any service, with a margin.
const MAX_BODY_BYTES: usize = 20 * 1024 * 1024;

/// The caller of requests that no function signed.
const ENDPOINT: &str = "endpoint";

/// The path of the meter's counts. AWS has no equivalent.
const METER: &str = "/_cairn/meter";

#[derive(Clone)]
struct Services {
    aws: Arc<Aws>,
    hosts: Arc<Hosts>,
    stack: Arc<Stack>,
    platform: Arc<dyn Platform>,
}

/// Returns the routes. The platform decides the faults of the calls of processes.
pub(crate) fn router(
    aws: Arc<Aws>,
    hosts: Arc<Hosts>,
    stack: Arc<Stack>,
    platform: Arc<dyn Platform>,
) -> Router {
    Router::new().fallback(take).with_state(Services {
        aws,
        hosts,
        stack,
        platform,
    })
}

async fn take(State(services): State<Services>, request: Request) -> Response {
    let request_id = uuid::Uuid::new_v4().to_string();
    let (parts, body) = request.into_parts();
    let (method, uri, headers) = (&parts.method, &parts.uri, &parts.headers);
    let body = match to_bytes(body, MAX_BODY_BYTES).await {
        Ok(body) => body,
        Err(error) => {
            let mut causes = std::iter::successors(error.source(), |cause| (**cause).source());
            let (status, code, message) =
                if causes.any(<dyn std::error::Error>::is::<LengthLimitError>) {
                    let message = format!("a request has at most {MAX_BODY_BYTES} bytes");
                    (413, "RequestEntityTooLargeException", message)
                } else {
                    let message = format!("the body cannot be read: {error}");
                    (400, "MalformedHttpRequestException", message)
                };
            let wanted = Wanted::new(method, uri, headers, b"");
            return wanted.protocol.error(status, code, &message, &request_id);
        }
    };
    if method == Method::GET && uri.path() == METER {
        return counted(&services.aws, &services.hosts).into_response();
    }
    let wanted = Wanted::new(method, uri, headers, &body);
    let key = access_key(headers, uri.query());
    let received = Received {
        request: (method, uri, headers),
        body: &body,
        wanted: &wanted,
        request_id: &request_id,
    };
    let Some(function) = key.as_deref().and_then(function_of_key) else {
        let decision = FaultDecision::default();
        return services.answer(ENDPOINT, &received, decision).await;
    };
    let call = received.call();
    let decision = services.platform.call(function, call.operation());
    let refused = |(status, code, message): Refusal| {
        let protocol = &wanted.protocol;
        protocol.error(status, code, message, &request_id)
    };
    let called = services.answer_function(function, &received, decision);
    undergo(decision, throttled(&call), refused, no_answer, called).await
}

/// A response that breaks off, so that the client receives no answer.
fn no_answer() -> Response {
    let broken = stream::once(async { Err::<Bytes, _>(io::Error::other("no answer")) });
    Body::from_stream(broken).into_response()
}

/// A request as the services read it.
struct Received<'a> {
    request: (&'a Method, &'a Uri, &'a HeaderMap),
    body: &'a Bytes,
    wanted: &'a Wanted,
    request_id: &'a str,
}

impl Received<'_> {
    /// The call, as far as its operation is in the path or in a header.
    fn call(&self) -> Call<'_> {
        let (_, uri, headers) = self.request;
        let (target, path, body) = (target(headers), uri.path().trim_end_matches('/'), self.body);
        Call { target, path, body }
    }
}

impl Services {
    /// Answers a call that a function signed, if its role allows it.
    async fn answer_function(
        &self,
        function: &str,
        received: &Received<'_>,
        decision: FaultDecision,
    ) -> Response {
        let Received {
            request,
            body,
            wanted,
            request_id,
        } = received;
        if let Err(refusal) = check(&self.aws, function, *request, body) {
            let (status, message) = (refusal.status, refusal.message());
            let code = "AccessDeniedException";
            return wanted.protocol.error(status, code, &message, request_id);
        }
        self.answer(function, received, decision).await
    }

    async fn answer(
        &self,
        caller: &str,
        received: &Received<'_>,
        decision: FaultDecision,
    ) -> Response {
        let (aws, hosts) = (&self.aws, &self.hosts);
        let Received {
            request,
            body,
            wanted,
            request_id,
        } = *received;
        let (method, uri, headers) = request;
        if let Some(answer) = lambda::answer((aws, hosts, caller), request, body, request_id).await
        {
            return answer;
        }
        if let Protocol::Json(media_type) = &wanted.protocol {
            let mut answer = called(aws, caller, headers, body).await;
            let problem = Problem::parse(&answer);
            if problem.is_some_and(|problem| problem.kind == UNKNOWN_OPERATION) {
                return wanted.unavailable(request_id);
            }
            if let Some(page) = stale(decision, &received.call(), answer.body.as_bytes()) {
                answer.body = page;
            }
            return respond(&answer, media_type, request_id);
        }
        let known = (method, uri.path(), wanted.operation.as_str());
        match known {
            (&Method::POST, SEND_EMAIL, _) => {
                let (target, path) = ("", SEND_EMAIL);
                let mail = aws.call(caller, &Call { target, path, body });
                respond(&mail, "application/json", request_id)
            }
            (_, _, "GetCallerIdentity") if wanted.protocol == Protocol::Query => {
                answer(200, XML, request_id, identity(request_id))
            }
            (_, _, operation) if wanted.protocol == Protocol::Query => self
                .stack
                .answer(operation, body, request_id)
                .unwrap_or_else(|| wanted.unavailable(request_id)),
            _ => wanted.unavailable(request_id),
        }
    }
}

/// Refuses a call that the role of a function does not allow. The call is the one that
/// [`Services::answer`] executes for the request. The operator's calls without a target are open to functions
/// too: they read no data.
fn check(
    aws: &Aws,
    function: &str,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    body: &[u8],
) -> Result<(), Answer> {
    let (target, path) = (target(headers), uri.path().trim_end_matches('/'));
    let path = format!("{path}?{}", uri.query().unwrap_or_default());
    let call = Call {
        target: "",
        path: &path,
        body,
    };
    if *method == Method::POST && call.function().is_some() {
        return aws.roles.check(function, &call);
    }
    match (target, uri.path()) {
        ("", path @ SEND_EMAIL) => aws.roles.check(function, &Call { target, path, body }),
        ("", _) => Ok(()),
        (target, _) => aws.roles.check(function, &Call::new(target, body)),
    }
}

/// The service and the operation in the header of a JSON protocol; empty in others.
fn target(headers: &HeaderMap) -> &str {
    let target = headers.get("x-amz-target");
    target
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default()
}

/// Answers a call in one of the JSON protocols that name the operation in a header.
async fn called(aws: &Aws, caller: &str, headers: &HeaderMap, body: &Bytes) -> Answer {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let call = Call::new(target(headers), body);
    match (call.target, std::str::from_utf8(body)) {
        ("AmazonSQS.ReceiveMessage", Ok(text)) => {
            aws.meter.count(caller, call.operation());
            aws.queues.receive_message(text).await
        }
        // Clients send later calls to the host in a queue's URL.
        ("AmazonSQS.GetQueueUrl" | "AmazonSQS.ListQueues", _) => {
            let Answer { status, body } = aws.call(caller, &call);
            let body = match header("host") {
                Some(host) => body.replace(QUEUE_ORIGIN, &format!("http://{host}")),
                None => body,
            };
            Answer { status, body }
        }
        _ => aws.call(caller, &call),
    }
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "__type")]
    kind: String,
}

impl Problem {
    fn parse(answer: &Answer) -> Option<Self> {
        let problem = (answer.status >= 400).then(|| serde_json::from_str(&answer.body));
        problem?.ok()
    }
}

fn respond(given: &Answer, media_type: &str, request_id: &str) -> Response {
    let mut response = answer(given.status, media_type, request_id, given.body.clone());
    let fault = if given.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    if let Some(Problem { kind }) = Problem::parse(given)
        && let Some(code) = query_code(&kind)
        && let Ok(code) = HeaderValue::from_str(&format!("{code};{fault}"))
    {
        let name = HeaderName::from_static("x-amzn-query-error");
        response.headers_mut().insert(name, code);
    }
    response
}

/// The caller as STS names it: always the account's root, because the endpoint checks no signatures.
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
fn identity(request_id: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <GetCallerIdentityResult><Arn>arn:aws:iam::{ACCOUNT}:root</Arn>\
         <UserId>{ACCOUNT}</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\
         </GetCallerIdentityResponse>"
    )
}

/// The invocations, calls and capacity units of each function.
fn counted(aws: &Aws, hosts: &Hosts) -> String {
    let (calls, units) = (aws.meter.counts(), aws.meter.units());
    let functions: serde_json::Map<_, _> = hosts
        .iter()
        .map(|(id, hosted)| {
            let calls = calls.iter().filter(|((caller, _), _)| caller == id);
            let calls: BTreeMap<_, _> = calls
                .map(|((_, operation), count)| (operation, count))
                .collect();
            let units = units.get(id).copied().unwrap_or_default();
            let counted = json!({
                "invocations": hosted.invocations(),
                "calls": calls,
                "readUnits": units.read,
                "writeUnits": units.write,
            });
            (id.clone(), counted)
        })
        .collect();
    json!({ "functions": functions }).to_string()
}
