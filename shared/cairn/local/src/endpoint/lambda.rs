//! Lambda's API on the port: invocations and function configurations.
//! <https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html>

use std::time::Instant;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    cloudformation::{mapping_id, queue_settings, settings},
    protocol::{self, Protocol},
};
use crate::{
    aws::{Aws, Call, too_large_for_event},
    host::{Hosted, Hosts, InvokeError, Log},
    names::{LATEST, is_qualifier, unknown_function},
    template::Trigger,
};

const FUNCTIONS: &str = "/2015-03-31/functions";
const MAPPINGS: &str = "/2015-03-31/event-source-mappings/";
/// The largest payload of a synchronous invocation in bytes.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_REQUEST: usize = 6 * 1024 * 1024;
/// The largest answer in bytes: 100 more than the largest request.
const MAX_RESPONSE: usize = MAX_REQUEST + 100;

struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            code,
            message,
        }
    }
}

/// Answers a request to a path of Lambda; `None` if the operation is not available.
pub(super) async fn answer(
    (aws, hosts, caller): (&Aws, &Hosts, &str),
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    body: &Bytes,
    request_id: &str,
) -> Option<Response> {
    let api = Api {
        aws,
        hosts,
        caller,
        headers,
        query: uri.query().unwrap_or_default(),
        request_id,
    };
    if let (&Method::GET, Some(id)) = (method, uri.path().strip_prefix(MAPPINGS)) {
        return Some(api.mapping(id));
    }
    let path = uri.path().trim_end_matches('/');
    let parts: Vec<_> = match path.strip_prefix(FUNCTIONS)?.strip_prefix('/') {
        None if path == FUNCTIONS => vec![],
        rest => rest?.split('/').collect(),
    };
    let answer = match (method, parts.as_slice()) {
        (&Method::GET, []) => {
            let functions: Vec<_> = hosts.values().map(configuration).collect();
            Ok(Some(api.answer(&json!({ "Functions": functions }))))
        }
        (&Method::GET, [function]) => api.hosted(function).map(|hosted| {
            let concurrency = hosted.spec.reserved;
            let concurrency = concurrency.map(|n| json!({ "ReservedConcurrentExecutions": n }));
            Some(api.answer(&json!({
                "Configuration": configuration(hosted),
                "Concurrency": concurrency,
            })))
        }),
        (&Method::GET, [function, "configuration"]) => api
            .hosted(function)
            .map(|hosted| Some(api.answer(&configuration(hosted)))),
        (&Method::POST, [function, "invocations"]) => {
            api.invoke(path, function, body).await.map(Some)
        }
        _ => Ok(None),
    };
    match answer {
        Ok(answer) => answer,
        Err(Refusal {
            status,
            code,
            message,
        }) => Some(Protocol::RestJson.error(status, code, &message, request_id)),
    }
}

struct Api<'a> {
    aws: &'a Aws,
    hosts: &'a Hosts,
    caller: &'a str,
    headers: &'a HeaderMap,
    query: &'a str,
    request_id: &'a str,
}

impl<'a> Api<'a> {
    fn answer(&self, body: &Value) -> Response {
        protocol::answer(200, "application/json", self.request_id, body.to_string())
    }

    /// Returns the function and version that the path and the query name.
    fn hosted(&self, named: &str) -> Result<&'a Hosted, Refusal> {
        let decoded = percent_decode_str(named).decode_utf8_lossy();
        let name = decoded.rsplit("function:").next().unwrap_or_default();
        let in_name = name
            .split_once(':')
            .map(|(_, qualifier)| qualifier.to_owned());
        let mut query = form_urlencoded::parse(self.query.as_bytes());
        let asked = query.find(|(name, _)| name == "Qualifier");
        let asked = asked.map(|(_, qualifier)| qualifier.into_owned());
        if let (Some(in_name), Some(asked)) = (&in_name, &asked)
            && in_name != asked
        {
            let message = "The derived qualifier from the function name does not match the specified qualifier.";
            return Err(Refusal::new(400, "InvalidParameterValueException", message));
        }
        let qualified = match (&in_name, &asked) {
            (None, Some(asked)) => format!("{decoded}:{asked}"),
            _ => decoded.clone().into_owned(),
        };
        let is_known = asked.as_deref().is_none_or(is_qualifier);
        let function = self.aws.function(named).filter(|_| is_known);
        let hosted = function.and_then(|function| self.hosts.get(function));
        hosted.ok_or_else(|| {
            Refusal::new(
                404,
                "ResourceNotFoundException",
                unknown_function(&qualified),
            )
        })
    }

    /// <https://docs.aws.amazon.com/lambda/latest/api/API_GetEventSourceMapping.html>
    fn mapping(&self, id: &str) -> Response {
        let mut mappings = self.hosts.values().flat_map(|hosted| {
            let triggers = hosted.spec.triggers.iter();
            triggers.filter_map(move |trigger| {
                let (name, is_enabled, settings) = match trigger {
                    Trigger::Stream(mapping) => {
                        (&mapping.name, mapping.is_enabled, settings(mapping))
                    }
                    Trigger::Queue(mapping) => {
                        (&mapping.name, mapping.is_enabled, queue_settings(mapping))
                    }
                    Trigger::Http(_) | Trigger::Rule(_) | Trigger::Schedule(_) => return None,
                };
                let is_asked = mapping_id(&hosted.spec.id, name) == id;
                is_asked.then_some((&hosted.spec, is_enabled, settings))
            })
        });
        let Some((function, is_enabled, mut found)) = mappings.next() else {
            let (code, message) = (
                "ResourceNotFoundException",
                "The resource you requested does not exist.",
            );
            return Protocol::RestJson.error(404, code, message, self.request_id);
        };
        let state = if is_enabled { "Enabled" } else { "Disabled" };
        let function = function.alias_arn();
        for (name, value) in [("UUID", id), ("State", state), ("FunctionArn", &*function)] {
            found.insert(name.to_owned(), value.into());
        }
        self.answer(&found.into())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
    async fn invoke(&self, path: &str, named: &str, body: &[u8]) -> Result<Response, Refusal> {
        let kind = self.header("x-amz-invocation-type");
        let kind = kind.unwrap_or("RequestResponse");
        if !matches!(kind, "RequestResponse" | "Event" | "DryRun") {
            let allowed = "[Event, RequestResponse, DryRun]";
            return Err(no_member("invocationType", kind, allowed));
        }
        let log = self.header("x-amz-log-type").unwrap_or("None");
        if !matches!(log, "None" | "Tail") {
            return Err(no_member("logType", log, "[None, Tail]"));
        }
        let hosted = self.hosted(named)?;
        if body.len() > MAX_REQUEST {
            let message = format!(
                "Request must be smaller than {MAX_REQUEST} bytes for the InvokeFunction operation"
            );
            return Err(Refusal::new(413, "RequestEntityTooLargeException", message));
        }
        let body = if body.is_empty() { b"{}" } else { body };
        serde_json::from_slice::<IgnoredAny>(body).map_err(|error| {
            let message = format!("Could not parse request body into json: {error}");
            Refusal::new(400, "InvalidRequestContentException", message)
        })?;
        match kind {
            "DryRun" => Ok(StatusCode::NO_CONTENT.into_response()),
            "Event" => self.enqueue(path, body),
            _ => self.invoke_now(hosted, body, log == "Tail").await,
        }
    }

    fn enqueue(&self, path: &str, body: &[u8]) -> Result<Response, Refusal> {
        if let Some(problem) = too_large_for_event(body.len()) {
            return Err(Refusal::new(413, "RequestEntityTooLargeException", problem));
        }
        let target = "";
        let answer = self.aws.call(self.caller, &Call { target, path, body });
        if answer.status == 202 {
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        Err(Refusal::new(answer.status, "ServiceException", answer.body))
    }

    /// Invokes a function and waits for its answer. A failure is an answer with a header.
    async fn invoke_now(
        &self,
        hosted: &Hosted,
        body: &[u8],
        tails: bool,
    ) -> Result<Response, Refusal> {
        let (payload, id) = (body.to_vec(), self.request_id);
        let (answer, log) = if tails {
            let (log, begun) = (Log::default(), Instant::now());
            let answer = hosted.invoke_logged(payload, id, &log).await;
            (answer, Some(tail(&log, id, begun)))
        } else {
            (hosted.invoke(payload, id).await, None)
        };
        let (failed, answer) = match answer {
            Ok(answer) if answer.len() > MAX_RESPONSE => {
                let error = json!({
                    "errorType": "Function.ResponseSizeTooLarge",
                    "errorMessage": format!(
                        "Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
                    ),
                });
                (true, error.to_string().into_bytes())
            }
            Ok(answer) => (false, answer),
            Err(error @ InvokeError::Throttled) => {
                let code = "TooManyRequestsException";
                return Err(Refusal::new(429, code, error.to_string()));
            }
            Err(error) => (
                true,
                error.payload(self.request_id).to_string().into_bytes(),
            ),
        };
        let mut response = protocol::answer(200, "application/json", self.request_id, answer);
        let headers = response.headers_mut();
        let mut add = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        add("x-amz-executed-version", LATEST);
        if failed {
            add("x-amz-function-error", "Unhandled");
        }
        if let Some(log) = log {
            add("x-amz-log-result", &log);
        }
        Ok(response)
    }
}

fn no_member(member: &str, value: &str, allowed: &str) -> Refusal {
    let message = format!(
        "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: \
         Member must satisfy enum value set: {allowed}"
    );
    Refusal::new(400, "ValidationException", message)
}

/// The configuration of a function, limited to the fields of the template.
/// <https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html>
fn configuration(hosted: &Hosted) -> Value {
    let spec = &hosted.spec;
    json!({
        "FunctionName": spec.name(),
        "FunctionArn": spec.arn(),
        "Runtime": spec.code.runtime.as_deref().unwrap_or("provided.al2023"),
        "Handler": spec.code.handler.as_deref().unwrap_or("bootstrap"),
        "MemorySize": spec.code.memory_mb,
        "Timeout": spec.timeout_s,
        "Version": LATEST,
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Environment": { "Variables": spec.settings },
    })
}

/// Returns the end of the log in base64, between the lines that Lambda itself writes.
fn tail(log: &Log, request_id: &str, begun: Instant) -> String {
    let spent = begun.elapsed().as_secs_f64() * 1e3;
    let first = format!("START RequestId: {request_id} Version: {LATEST}\n");
    let last = format!(
        "END RequestId: {request_id}\nREPORT RequestId: {request_id}\tDuration: {spent:.2} ms\n"
    );
    BASE64_STANDARD.encode(log.tail(&first, &last))
}
