//! Functions behind an HTTP API: requests, responses, and problem documents (RFC 9457).

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    future::Future,
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use aws_lambda_events::{
    encodings::Body,
    event::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse},
    http::{HeaderMap, HeaderName, HeaderValue, header},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::Span;
use uuid::Uuid;

use crate::{
    dynamodb::{Answers, KeptAnswer, KeyError, TableError},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        caller::{Access, Caller},
        correlation,
        metrics::Metrics,
        time_budget,
    },
    trace,
};
use cairn::{
    commit::{Context, fingerprint},
    input::{self, BodyError, FieldError},
    metadata::Metadata,
    repository::HandleError,
    store::StoreError,
    timestamp::Timestamp,
};

/// The maximum size of a request body in bytes. It is below the 6 MB that Lambda accepts, and below
/// the size at which a commit gets too large.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// Creates a function that handles HTTP requests.
pub fn function<F>(
    app: &AppContext,
    handle: impl Fn(Request) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    Ok(with(app, Access::from_app(app)?, handle))
}

/// Creates a function that handles the HTTP requests of every caller, for example a page that asks
/// for a token itself. It ignores the authorization of the other routes.
pub fn open<F>(app: &AppContext, handle: impl Fn(Request) -> F + Send + Sync + 'static) -> Handler
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    with(app, Access::Public, handle)
}

fn with<F>(
    app: &AppContext,
    access: Access,
    handle: impl Fn(Request) -> F + Send + Sync + 'static,
) -> Handler
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    let parts = Arc::new((app.clone(), access, handle));
    Handler::new(move |payload, invocation| {
        let parts = parts.clone();
        async move {
            let (app, access, handle) = parts.as_ref();
            let request: ApiGatewayV2httpRequest = serde_json::from_slice(&payload)?;
            let correlation = correlation_id(&request.headers, app);
            let traceparent = traceparent(&request.headers, invocation.trace.as_deref(), app);
            let span = Span::current();
            span.record("correlation", &correlation);
            span.record("traceparent", &traceparent);
            let context = RequestContext {
                metadata: Metadata {
                    traceparent: Some(traceparent),
                    ..Metadata::new(&correlation)
                },
                now: app.now(),
                new_id: app.new_id(),
                time_budget: time_budget(&invocation),
            };
            let route = request.route_key.clone().unwrap_or_default();
            let answer = match Request::new(request, context, access) {
                Ok(request) => {
                    if let Caller::Operator(id) = &request.caller {
                        span.record("operator", id);
                    }
                    handle(request).await
                }
                Err(problem) => Err(problem),
            };
            let response = answer.unwrap_or_else(Problem::into_response);
            tracing::info!(route, status = response.status, "request completed");
            app.emit(Metrics::default());
            response.encode(&correlation)
        }
    })
}

struct RequestContext {
    metadata: Metadata,
    now: Timestamp,
    new_id: Uuid,
    time_budget: Duration,
}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// The metadata of the resulting events. The correlation id is the one of the request, or a
    /// new one. The actor is the caller.
    pub metadata: Metadata,
    /// The caller.
    pub caller: Caller,
    /// The valid `Idempotency-Key`, prefixed with the id of the caller, so that keys of different
    /// callers never collide.
    pub key: Option<String>,
    /// The time of the request.
    pub now: Timestamp,
    /// A new random id.
    pub new_id: Uuid,
    path: HashMap<String, String>,
    query: HashMap<String, String>,
    content_type: String,
    body: Vec<u8>,
    time_budget: Duration,
}

impl Request {
    fn new(
        request: ApiGatewayV2httpRequest,
        context: RequestContext,
        access: &Access,
    ) -> Result<Self, Problem> {
        let caller = access.caller(&request)?;
        let header = |name: &str| {
            let value = request.headers.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let key = match request.headers.get("idempotency-key") {
            None => None,
            Some(key) => {
                let key = idempotency_key(key)?;
                Some(caller.id().map_or(key.clone(), |id| format!("{id}/{key}")))
            }
        };
        let content_type = header("content-type").unwrap_or_default();
        // The values of a list arrive one by one, and are joined so that `parameter` can reject a
        // list.
        let mut query = HashMap::<String, String>::new();
        let values = request.query_string_parameters.iter();
        for (name, value) in values {
            match query.get_mut(name) {
                Some(list) => {
                    list.push(',');
                    list.push_str(value);
                }
                None => {
                    query.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        let body = body(request.body, request.is_base64_encoded)?;
        Ok(Self {
            metadata: Metadata {
                actor: caller.id().map(str::to_owned),
                ..context.metadata
            },
            caller,
            key,
            now: context.now,
            new_id: context.new_id,
            path: request.path_parameters,
            query,
            content_type,
            body,
            time_budget: context.time_budget,
        })
    }

    /// Returns a path parameter; empty if the route has none of this name.
    pub fn path(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// Returns a parsed query parameter. Parameters that no handler reads are ignored.
    ///
    /// # Errors
    /// Returns a 400 problem that names the parameter.
    pub fn query<T>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let parse = |text: &str| {
            text.parse().map_err(|error| {
                Problem::bad_request(format!("the parameter {name} is not valid: {error}"))
            })
        };
        self.parameter(name)?.map(parse).transpose()
    }

    /// Returns a query parameter that is a whole number in a range.
    ///
    /// # Errors
    /// Returns a 400 problem that names the parameter and the range.
    pub fn integer(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let parse = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.filter(|_| digits).ok_or_else(|| {
                Problem::bad_request(format!(
                    "the parameter {name} must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
        };
        self.parameter(name)?.map(parse).transpose()
    }

    /// Returns the only value of a query parameter. API Gateway joins the values of a repeated
    /// parameter with commas, and no parameter of this API has a value with a comma.
    fn parameter(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.query.get(name).map(String::as_str) {
            None => Ok(None),
            Some("") => Err(Problem::bad_request(format!(
                "the parameter {name} is empty: give it a value, or leave it out"
            ))),
            Some(list) if list.contains(',') => Err(Problem::bad_request(format!(
                "the parameter {name} is given more than once, or is a list: give it one value"
            ))),
            value => Ok(value),
        }
    }

    /// Returns the body as JSON.
    ///
    /// # Errors
    /// Returns a 415 problem if the media type is not JSON, 400 if the body is not valid JSON, and
    /// 422 if a member is repeated.
    pub fn json(&self) -> Result<Value, Problem> {
        let media_type = self.content_type.split(';').next().unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/json") {
            return Err(
                Problem::new(415, "unsupported-media-type", "Unsupported media type")
                    .detail("Set Content-Type to application/json."),
            );
        }
        input::read(&self.body).map_err(|error| match error {
            BodyError::NotJson(_) => Problem::bad_request(error.to_string()),
            BodyError::Repeated(errors) => Problem::invalid(errors),
        })
    }

    /// Returns the context of the command of this request.
    ///
    /// The id of the command is the operation and the idempotency key, so a retry is detected.
    /// Without a key, every request is a separate command. The digest covers the operation, the
    /// path parameters and the body.
    pub fn context(&self, operation: &str) -> Result<Context, Problem> {
        self.context_without(operation, &[])
    }

    /// Returns the context as [`context`](Self::context) does, but omits some members of the body
    /// from the digest. A digest of personal data would be stored permanently, and can be guessed.
    pub fn context_without(&self, operation: &str, personal: &[&str]) -> Result<Context, Problem> {
        let id = match &self.key {
            Some(key) => format!("{operation}:{key}"),
            None => format!("{operation}:{}", self.new_id),
        };
        let mut body = self.json()?;
        if let Value::Object(members) = &mut body {
            members.retain(|name, _| !personal.contains(&name.as_str()));
        }
        let path: BTreeMap<_, _> = self.path.iter().collect();
        let digest = fingerprint(&(operation, path, sorted(body)));
        Ok(Context {
            fingerprint: Some(digest.map_err(|error| Problem::internal(&error))?),
            metadata: self.metadata.clone(),
            ..Context::new(id, self.now, self.time_budget)
        })
    }

    /// Handles a request with an idempotency key once. A repeated request gets the first response.
    ///
    /// A commit records a command that changed something. The response to any other decision of
    /// `handle` is stored: an [unchanged](Response::unchanged) response, or a 409 problem. A
    /// request without a decision does not use the key: an invalid body, an unknown order or an
    /// unavailable store.
    ///
    /// # Errors
    /// Returns the problem of `handle`, or a 422 problem if the key was used with another body.
    pub async fn once(
        &self,
        answers: &Answers,
        context: &Context,
        handle: impl Future<Output = Result<Response, Problem>>,
    ) -> Result<Response, Problem> {
        if self.key.is_none() {
            return handle.await;
        }
        let path: BTreeMap<_, _> = self.path.iter().collect();
        let about: Vec<_> = path.into_values().map(String::as_str).collect();
        let request = format!("{}#{}", about.join("/"), context.id);
        let fingerprint = context.fingerprint.clone().unwrap_or_default();
        if let Some(kept) = answers.find(&request).await? {
            return Response::again(kept, &fingerprint);
        }
        let response = match handle.await {
            Ok(response) if response.is_unchanged => response,
            Err(problem) if problem.status == 409 => problem.into_response(),
            decided => return decided,
        };
        let answer = KeptAnswer {
            request,
            fingerprint: fingerprint.clone(),
            status: response.status,
            media_type: response.media_type.clone().into_owned(),
            body: response.body.clone(),
            at: self.now,
        };
        let kept = answers.keep(answer.clone()).await?;
        if kept == answer {
            Ok(response)
        } else {
            Response::again(kept, &fingerprint)
        }
    }
}

/// Sorts the members of all objects by name: the digest must not depend on the map type of the
/// `serde_json` build.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.into_iter().collect();
            let sorted = members
                .into_iter()
                .map(|(name, value)| (name, sorted(value)));
            Value::Object(sorted.collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    status: u16,
    media_type: Cow<'static, str>,
    headers: HeaderMap,
    body: String,
    is_unchanged: bool,
}

impl Response {
    /// Creates a JSON response.
    pub fn new(status: u16, body: impl Serialize) -> Result<Self, Problem> {
        Ok(Self {
            status,
            media_type: "application/json".into(),
            headers: HeaderMap::new(),
            body: serde_json::to_value(body)
                .map_err(|error| Problem::internal(&error))?
                .to_string(),
            is_unchanged: false,
        })
    }

    /// Creates a 200 response of another media type.
    pub fn text(media_type: &'static str, body: impl Into<String>) -> Self {
        Self {
            status: 200,
            media_type: media_type.into(),
            headers: HeaderMap::new(),
            body: body.into(),
            is_unchanged: false,
        }
    }

    /// Returns the stored response if the request is the same.
    fn again(kept: KeptAnswer, fingerprint: &str) -> Result<Self, Problem> {
        if kept.fingerprint != fingerprint {
            return Err(Problem::key_reused());
        }
        let response = Self {
            status: kept.status,
            media_type: kept.media_type.into(),
            headers: HeaderMap::new(),
            body: kept.body,
            is_unchanged: true,
        };
        Ok(response.replayed(true))
    }

    /// Marks a response to a command that changed nothing, so that no commit records it.
    #[must_use]
    pub fn unchanged(mut self, is_unchanged: bool) -> Self {
        self.is_unchanged = is_unchanged;
        self
    }

    /// Adds a header with a constant value.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        self.headers.insert(name, value);
        self
    }

    /// Adds the header `Location`.
    pub fn location(mut self, location: String) -> Result<Self, Problem> {
        let location =
            HeaderValue::try_from(location).map_err(|error| Problem::internal(&error))?;
        self.headers.insert(header::LOCATION, location);
        Ok(self)
    }

    /// Marks a response to a command that was executed before.
    #[must_use]
    pub fn replayed(mut self, replayed: bool) -> Self {
        if replayed {
            self.headers
                .insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        self
    }

    /// Returns the status, the headers and the body.
    pub fn into_parts(self) -> (u16, HeaderMap, String) {
        let mut headers = self.headers;
        if let Ok(media_type) = HeaderValue::try_from(self.media_type.as_ref()) {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        (self.status, headers, self.body)
    }

    fn encode(self, correlation: &str) -> Result<Vec<u8>, FunctionError> {
        let (status, mut headers, body) = self.into_parts();
        let correlation = HeaderValue::try_from(correlation)?;
        headers.insert("x-correlation-id", correlation);
        let mut response = ApiGatewayV2httpResponse::default();
        response.status_code = status.into();
        response.headers = headers;
        response.body = Some(Body::Text(body));
        Ok(serde_json::to_vec(&response)?)
    }
}

/// A problem document (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    status: u16,
    kind: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    /// Boxed, because every handler returns `Result<_, Problem>` and most problems have no headers.
    headers: Box<HeaderMap>,
}

impl Problem {
    /// Creates a problem. `kind` is the machine-readable end of its `type`.
    pub fn new(status: u16, kind: &'static str, title: &'static str) -> Self {
        Self {
            status,
            kind,
            title,
            detail: String::new(),
            errors: vec![],
            members: Map::new(),
            headers: Box::default(),
        }
    }

    /// Creates a 400 problem for a malformed request.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad-request", "Bad request").detail(detail)
    }

    /// Creates a 422 problem for invalid fields.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self::new(422, "invalid-fields", "Validation failed")
            .detail(
                "Nothing was stored. Correct the fields listed in `errors` and send the request again.",
            )
            .errors(errors)
    }

    /// Creates a 404 problem.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not-found", "Not found").detail(detail)
    }

    /// Creates a 401 problem for a missing or invalid token.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", "Unauthorized")
            .detail(detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Creates a 403 problem for a request that the caller may not make.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, "forbidden", "Forbidden").detail(detail)
    }

    /// Creates a 413 problem for a body of more than [`MAX_BODY_BYTES`].
    pub fn too_large() -> Self {
        Self::new(413, "too-large", "Payload too large")
            .detail(format!("The request body exceeds {MAX_BODY_BYTES} bytes."))
    }

    /// Creates a 422 problem for an idempotency key that was used with another body.
    pub fn key_reused() -> Self {
        Self::new(
            422,
            "idempotency-key-reused",
            "Idempotency-Key already used",
        )
        .detail("The key was used with a different request body. Use a new key.")
    }

    /// Creates a 503 problem for a transient failure, and logs it.
    pub fn unavailable(error: &dyn std::fmt::Display) -> Self {
        tracing::warn!(%error, "unavailable");
        Self::new(503, "unavailable", "Service temporarily unavailable")
            .detail(
                "Retry after the time in `Retry-After`. A POST with the same Idempotency-Key takes effect once.",
            )
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Creates a 500 problem for an unexpected error, and logs its cause.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "internal error");
        Self::new(500, "internal", "Internal error")
            .detail("Unexpected error. Report it with the X-Correlation-Id of this response.")
    }

    /// Sets the detail: the cause in this request, and the fix.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Sets the invalid fields of the body.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.members.insert(member.to_owned(), value);
        self
    }

    /// Adds `Retry-After` with a wait in whole seconds: rounded up, at least one.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = u64::try_from(wait.as_millis().div_ceil(1_000));
        let seconds = seconds.map_or(u64::MAX, |seconds| seconds.max(1));
        self.header(header::RETRY_AFTER, seconds.into())
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Converts the problem into a response.
    pub fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:cairn:problem:{}", self.kind),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        });
        if let Value::Object(body) = &mut body {
            if !self.errors.is_empty() {
                body.insert("errors".to_owned(), json!(self.errors));
            }
            body.extend(self.members);
        }
        Response {
            status: self.status,
            media_type: "application/problem+json".into(),
            headers: *self.headers,
            body: body.to_string(),
            is_unchanged: false,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Self::unavailable(&error)
        } else {
            Self::internal(&error)
        }
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        if error.is_transient() {
            Self::unavailable(&error)
        } else {
            Self::internal(&error)
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        if error.is_transient() {
            Self::unavailable(&error)
        } else {
            Self::internal(&error)
        }
    }
}

/// Converts the error of a command into a problem. `rejected` converts a rejection and the version
/// at which it was decided.
pub fn problem<R>(error: HandleError<R>, rejected: impl FnOnce(R, u64) -> Problem) -> Problem {
    match error {
        HandleError::Rejected { rejection, version } => rejected(rejection, version),
        HandleError::IdReused => Problem::key_reused(),
        HandleError::Contended => Problem::unavailable(&"the stream is contended"),
        HandleError::Store(error) => error.into(),
    }
}

fn correlation_id(headers: &HeaderMap, app: &AppContext) -> String {
    let own = headers
        .get("x-correlation-id")
        .and_then(|value| value.to_str().ok());
    own.filter(|own| correlation::is_from_client(own))
        .map_or_else(|| correlation::new(app.new_id()), str::to_owned)
}

/// Returns the trace context of a request: that of the caller, that of the invocation, or a new one
/// without a sample. The tracing header of API Gateway has no decision on sampling; Lambda makes it.
fn traceparent(headers: &HeaderMap, invocation: Option<&str>, app: &AppContext) -> String {
    let own = headers.get("traceparent");
    let own = own.and_then(|own| own.to_str().ok());
    if let Some(own) = own.filter(|own| trace::is_traceparent(own)) {
        return own.to_owned();
    }
    invocation.and_then(trace::from_header).unwrap_or_else(|| {
        let (trace, parent) = (app.new_id().simple(), app.new_id().simple());
        let parent = parent.to_string();
        format!("00-{trace}-{}-00", parent.get(..16).unwrap_or_default())
    })
}

fn idempotency_key(value: &HeaderValue) -> Result<String, Problem> {
    let holds = |key: &&str| {
        (1..=128).contains(&key.len())
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
    };
    let key = value.to_str().ok().filter(holds);
    key.map(str::to_owned).ok_or_else(|| {
        Problem::bad_request(
            "the Idempotency-Key must be 1 to 128 characters of A-Z a-z 0-9 . _ : -",
        )
    })
}

fn body(body: Option<String>, is_base64: bool) -> Result<Vec<u8>, Problem> {
    let body = body.unwrap_or_default();
    // Base64 encodes 3 bytes as 4 characters, so a longer text need not be decoded.
    if body.len() > MAX_BODY_BYTES * 4 / 3 + 4 {
        return Err(Problem::too_large());
    }
    let bytes = if is_base64 {
        let decoded: Result<aws_lambda_events::encodings::Base64Data, _> =
            serde_json::from_value(Value::String(body));
        decoded
            .map_err(|error| Problem::bad_request(format!("the body cannot be decoded: {error}")))?
            .0
    } else {
        body.into_bytes()
    };
    if bytes.len() > MAX_BODY_BYTES {
        return Err(Problem::too_large());
    }
    Ok(bytes)
}
