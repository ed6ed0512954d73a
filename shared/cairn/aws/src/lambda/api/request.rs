//! HTTP requests.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    future::Future,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use aws_lambda_events::{event::apigw::ApiGatewayV2httpRequest, http::HeaderValue};
use cairn::{
    commit::{Context, fingerprint},
    input::{self, BodyError, Input},
    metadata::Metadata,
    store::answers::{AnswerStore, KeptAnswer},
    timestamp::Timestamp,
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    caller::{Access, Caller},
    problem::{MAX_BODY_BYTES, Problem},
    response::Response,
};

pub(super) struct RequestContext {
    pub(super) metadata: Metadata,
    pub(super) now: Timestamp,
    pub(super) new_id: Uuid,
    pub(super) time_budget: Duration,
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
    /// The largest integer that every JSON parser keeps exact.
    const MAX_INTEGER: u64 = (1 << 53) - 1;

    pub(super) fn new(
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

    /// Creates a request for a unit test of a handler: from an anonymous caller, without a key.
    pub fn for_test(path: &[(&str, &str)], body: &Value) -> Self {
        let path = path.iter();
        Self {
            metadata: Metadata::new("test"),
            caller: Caller::Anonymous,
            key: None,
            now: Timestamp::from_millis(0),
            new_id: Uuid::nil(),
            path: path
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            query: HashMap::new(),
            content_type: "application/json".to_owned(),
            body: body.to_string().into_bytes(),
            time_budget: Duration::from_secs(1),
        }
    }

    /// Sets a query parameter of a request for a unit test.
    pub fn set_query(&mut self, name: &str, value: &str) {
        self.query.insert(name.to_owned(), value.to_owned());
    }

    /// Returns a path parameter; empty if the route has none of this name.
    pub fn path(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    /// Returns a parsed path parameter.
    ///
    /// # Errors
    /// Returns a 404 problem with this detail: no resource has an invalid id.
    pub fn id<T: FromStr>(&self, name: &str, not_found: &str) -> Result<T, Problem> {
        let id = self.path(name).parse();
        id.map_err(|_| Problem::not_found(not_found))
    }

    /// Returns a parsed query parameter. Parameters that no handler reads are ignored.
    ///
    /// # Errors
    /// Returns a 400 problem that names the parameter.
    pub fn query<T>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T: FromStr<Err: Display>,
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

    /// Returns the query parameter `minVersion`, by default 1.
    ///
    /// # Errors
    /// Returns a 400 problem.
    pub fn min_version(&self) -> Result<u64, Problem> {
        let version = self.integer("minVersion", 0..=Self::MAX_INTEGER)?;
        Ok(version.unwrap_or(1))
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

    /// Returns the body as a type.
    ///
    /// # Errors
    /// Returns the problems of [`json`](Self::json), and a 422 problem with every invalid field.
    pub fn body<T: Input>(&self) -> Result<T, Problem> {
        input::parse(&self.json()?).map_err(Problem::invalid)
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
        answers: &impl AnswerStore,
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
