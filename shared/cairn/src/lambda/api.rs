//! Functions behind an HTTP API: requests, answers, and problems as RFC 9457 writes them.

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
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    commit::{Context, fingerprint},
    dynamodb::{Answers, KeptAnswer, KeyError},
    input::{self, BodyError, FieldError},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        caller::{Access, Caller},
        metrics::Metrics,
        time_budget,
    },
    repository::HandleError,
    store::StoreError,
    timestamp::Timestamp,
};

/// The largest body of a request, in bytes: less than the 6 MB that Lambda takes, and less than what makes a commit too large.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// A function that answers HTTP requests.
///
/// # Errors
/// When an environment variable is missing: also one of those that say who may ask, see [`Caller`].
pub fn function<F>(
    app: &AppContext,
    handle: impl Fn(Request) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    Ok(with(app, Access::from_app(app)?, handle))
}

/// A function that answers everybody's HTTP requests, whoever the API's other routes take: a page, say, that asks for
/// a token itself.
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
            let request: ApiGatewayV2httpRequest =
                serde_json::from_slice(&payload).map_err(FunctionError::new)?;
            let correlation = correlation(&request.headers, app);
            let traceparent = traceparent(&request.headers, app);
            let span = tracing::info_span!("request", correlation, traceparent);
            let context = RequestContext {
                correlation: correlation.clone(),
                traceparent,
                now: app.now(),
                new_id: app.new_id(),
                time_budget: time_budget(&invocation),
            };
            let answered = async {
                let route = request.route_key.clone().unwrap_or_default();
                let answer = match Request::new(request, context, access) {
                    Ok(request) => handle(request).await,
                    Err(problem) => Err(problem),
                };
                let response = answer.unwrap_or_else(Problem::into_response);
                tracing::info!(route, status = response.status, "request completed");
                response
            };
            let response = answered.instrument(span).await;
            app.emit(Metrics::default());
            response.encode(&correlation)
        }
    })
}

/// The context of a request: its ids, its time and its time budget.
struct RequestContext {
    correlation: String,
    traceparent: String,
    now: Timestamp,
    new_id: Uuid,
    time_budget: Duration,
}

/// A request, with what every handler needs of it.
#[derive(Debug)]
pub struct Request {
    /// The id that everything which follows carries: the request's own, or a new one.
    pub correlation: String,
    /// Who asks.
    pub caller: Caller,
    /// The `Idempotency-Key`, checked. It is one of the caller's own: another's cannot meet it.
    pub key: Option<String>,
    /// The present.
    pub now: Timestamp,
    /// A fresh random id.
    pub new_id: Uuid,
    path: HashMap<String, String>,
    query: HashMap<String, String>,
    traceparent: String,
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
        // The values of a list come one by one here. Joined again, a list is seen as one.
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
            correlation: context.correlation,
            caller,
            key,
            now: context.now,
            new_id: context.new_id,
            path: request.path_parameters,
            query,
            traceparent: context.traceparent,
            content_type,
            body,
            time_budget: context.time_budget,
        })
    }

    /// A part of the path; empty when the route has none of this name.
    pub fn path(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// A parameter of the query, parsed. Parameters that no handler asks for are ignored.
    ///
    /// # Errors
    /// A 400 that names the parameter.
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

    /// A parameter of the query that is a whole number of a range.
    ///
    /// # Errors
    /// A 400 that names the parameter and the range.
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

    /// The one value of a parameter. API Gateway joins the values of a repeated parameter by commas,
    /// and no parameter of this API takes a value with a comma.
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

    /// The body as JSON.
    ///
    /// # Errors
    /// 415 when it is not said to be JSON, 400 when it is none, 422 when a member is there twice.
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

    /// The context of a command that this request asks for.
    ///
    /// The command's id is the operation and the request's key: a retry finds it done. Without a
    /// key every request is a command of its own. The digest is taken of what the client sent.
    ///
    /// # Errors
    /// When the body is not JSON.
    pub fn context(&self, operation: &str) -> Result<Context, Problem> {
        self.context_without(operation, &[])
    }

    /// As [`context`](Self::context), without some members of the body in the digest: a digest of
    /// personal data is stored for ever, and can be found out by guessing.
    ///
    /// # Errors
    /// When the body is not JSON.
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
            id,
            fingerprint: Some(digest.map_err(|error| Problem::internal(&error))?),
            former_fingerprint: None,
            correlation: self.correlation.clone(),
            causation: None,
            actor: self.caller.id().map(str::to_owned),
            traceparent: Some(self.traceparent.clone()),
            now: self.now,
            time_budget: self.time_budget,
        })
    }

    /// Answers a request that may come again with its key: as the first time, whatever that came to.
    ///
    /// A commit remembers a command that changed something. Of any other decision, `handle`'s answer
    /// is kept: one that says that nothing changed ([`Response::unchanged`]), and a 409. What never
    /// comes to a decision (a body that is wrong, an order that is not there, a store that is
    /// unavailable) does not use the key.
    ///
    /// # Errors
    /// Those of `handle`; 422 where the key came with another body before.
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

/// The same JSON with the members of every object in the order of their names, whatever the map
/// that a build of `serde_json` has.
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

/// An answer.
#[derive(Debug)]
pub struct Response {
    status: u16,
    media_type: Cow<'static, str>,
    headers: HeaderMap,
    body: String,
    is_unchanged: bool,
}

impl Response {
    /// A JSON answer.
    ///
    /// # Errors
    /// When the body cannot be serialized.
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

    /// An answer that is a text of some other kind.
    pub fn text(media_type: &'static str, body: impl Into<String>) -> Self {
        Self {
            status: 200,
            media_type: media_type.into(),
            headers: HeaderMap::new(),
            body: body.into(),
            is_unchanged: false,
        }
    }

    /// The answer that a request has had, if this one is the same.
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

    /// Says whether the command found nothing to do, so that no commit records it.
    #[must_use]
    pub fn unchanged(mut self, is_unchanged: bool) -> Self {
        self.is_unchanged = is_unchanged;
        self
    }

    /// Adds a header that is always the same.
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
    ///
    /// # Errors
    /// When the location has characters that no header holds.
    pub fn location(mut self, location: String) -> Result<Self, Problem> {
        let location =
            HeaderValue::try_from(location).map_err(|error| Problem::internal(&error))?;
        self.headers.insert(header::LOCATION, location);
        Ok(self)
    }

    /// Says whether this is the answer to a command that had been carried out before.
    #[must_use]
    pub fn replayed(mut self, replayed: bool) -> Self {
        if replayed {
            self.headers
                .insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        self
    }

    /// The status, the headers and the body.
    pub fn into_parts(self) -> (u16, HeaderMap, String) {
        let mut headers = self.headers;
        if let Ok(media_type) = HeaderValue::try_from(self.media_type.as_ref()) {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        (self.status, headers, self.body)
    }

    fn encode(self, correlation: &str) -> Result<Vec<u8>, FunctionError> {
        let (status, mut headers, body) = self.into_parts();
        let correlation = HeaderValue::try_from(correlation).map_err(FunctionError::new)?;
        headers.insert("x-correlation-id", correlation);
        let mut response = ApiGatewayV2httpResponse::default();
        response.status_code = status.into();
        response.headers = headers;
        response.body = Some(Body::Text(body));
        serde_json::to_vec(&response).map_err(FunctionError::new)
    }
}

/// An error, as RFC 9457 writes it.
#[derive(Debug)]
pub struct Problem {
    status: u16,
    kind: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    /// In a box: every function of a handler returns a problem, and most have none.
    headers: Box<HeaderMap>,
}

impl Problem {
    /// A problem of a kind that a program can tell from others.
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

    /// A request that cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad-request", "Bad request").detail(detail)
    }

    /// A body with fields that are wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self::new(422, "invalid-fields", "Validation failed")
            .detail(
                "Nothing was stored. Correct the fields listed in `errors` and send the request again.",
            )
            .errors(errors)
    }

    /// Something that is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not-found", "Not found").detail(detail)
    }

    /// A request without a token, or with one that does not say who its sender is.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", "Unauthorized")
            .detail(detail)
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// A request that its sender may not make.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, "forbidden", "Forbidden").detail(detail)
    }

    /// A body of more than [`MAX_BODY_BYTES`].
    pub fn too_large() -> Self {
        Self::new(413, "too-large", "Payload too large")
            .detail(format!("The request body exceeds {MAX_BODY_BYTES} bytes."))
    }

    /// An idempotency key that was used with another body.
    pub fn key_reused() -> Self {
        Self::new(
            422,
            "idempotency-key-reused",
            "Idempotency-Key already used",
        )
        .detail("The key was used with a different request body. Use a new key.")
    }

    /// A transient failure. Nothing is half done.
    pub fn unavailable(error: &dyn std::fmt::Display) -> Self {
        tracing::warn!(%error, "unavailable");
        Self::new(503, "unavailable", "Service temporarily unavailable")
            .detail(
                "Retry after the time in `Retry-After`. A POST with the same Idempotency-Key takes effect once.",
            )
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// An unexpected error. The log has its cause.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "internal error");
        Self::new(500, "internal", "Internal error")
            .detail("Unexpected error. Report it with the X-Correlation-Id of this response.")
    }

    /// Says what is wrong with this request, and what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Names the fields of the body that it is about.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Adds a member of this kind of problem.
    #[must_use]
    pub fn with(mut self, member: &str, value: Value) -> Self {
        self.members.insert(member.to_owned(), value);
        self
    }

    /// Adds a header of the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The problem as an answer.
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

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        if error.is_transient() {
            Self::unavailable(&error)
        } else {
            Self::internal(&error)
        }
    }
}

/// The problem that a command's failure is; what a rejection means is the caller's to say.
pub fn problem<R>(error: HandleError<R>, rejected: impl FnOnce(R, u64) -> Problem) -> Problem {
    match error {
        HandleError::Rejected { rejection, version } => rejected(rejection, version),
        HandleError::IdReused => Problem::key_reused(),
        HandleError::Contended => Problem::unavailable(&"the stream is contended"),
        HandleError::Store(error) => error.into(),
    }
}

/// Whether a correlation id is taken over from a request: 1 to 128 printable ASCII characters.
pub fn is_correlation_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

fn correlation(headers: &HeaderMap, app: &AppContext) -> String {
    let own = headers
        .get("x-correlation-id")
        .and_then(|value| value.to_str().ok());
    own.filter(|own| is_correlation_id(own))
        .map_or_else(|| app.new_id().to_string(), str::to_owned)
}

/// The trace that a request is part of: the caller's as W3C writes it, else the one that AWS has begun, else
/// a new one.
///
/// <https://www.w3.org/TR/trace-context/#traceparent-header>,
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>
fn traceparent(headers: &HeaderMap, app: &AppContext) -> String {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(own) = header("traceparent").filter(|own| is_traceparent(own)) {
        return own.to_owned();
    }
    let new = || {
        let (trace, parent) = (app.new_id().simple(), app.new_id().simple());
        let parent = parent.to_string();
        format!("00-{trace}-{}-00", parent.get(..16).unwrap_or_default())
    };
    let begun = header("x-amzn-trace-id").and_then(from_amazon);
    begun
        .filter(|begun| is_traceparent(begun))
        .unwrap_or_else(new)
}

/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`, as W3C writes it.
fn from_amazon(header: &str) -> Option<String> {
    let field = |name: &str| {
        let mut fields = header.split(';');
        fields.find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let trace = field("Root")?.strip_prefix("1-")?.replace('-', "");
    // Where the API has begun the trace, it is its root that everything hangs on.
    let parent = field("Parent").or_else(|| trace.get(..16))?;
    let flags = if field("Sampled") == Some("1") {
        "01"
    } else {
        "00"
    };
    Some(format!("00-{trace}-{parent}-{flags}"))
}

fn is_traceparent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<_> = text.split('-').collect();
    let is_hex = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    parts.len() == lengths.len()
        && parts
            .iter()
            .zip(lengths)
            .all(|(part, length)| part.len() == length && is_hex(part))
        && parts.first() == Some(&"00")
        && parts
            .iter()
            .skip(1)
            .take(2)
            .all(|id| id.bytes().any(|b| b != b'0'))
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
    // Three bytes are four characters of base64: what is longer need not be decoded.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_amazon_has_begun_goes_on_as_w3c_writes_it() {
        let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let begun = from_amazon(header).unwrap();
        assert_eq!(
            begun,
            "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
        );
        assert!(is_traceparent(&begun));
        let root_only = from_amazon("Root=1-5759e988-bd862e3fe1be46a994272793").unwrap();
        assert!(is_traceparent(&root_only), "{root_only}");
        assert!(from_amazon("Self=1-67891234-0123456789abcdef").is_none());
    }

    #[test]
    fn what_is_no_traceparent_is_not_passed_on() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(!is_traceparent(text), "{text}");
        }
        assert!(is_traceparent(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ));
    }
}
