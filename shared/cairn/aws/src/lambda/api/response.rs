//! HTTP responses.

use std::borrow::Cow;

use aws_lambda_events::{
    encodings::Body,
    event::apigw::ApiGatewayV2httpResponse,
    http::{HeaderMap, HeaderName, HeaderValue, header},
};
use cairn::store::answers::KeptAnswer;
use serde::Serialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::lambda::FunctionError;

/// A response.
#[derive(Debug)]
pub struct Response {
    pub(super) status: u16,
    pub(super) media_type: Cow<'static, str>,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    pub(super) is_unchanged: bool,
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
    pub(super) fn again(kept: KeptAnswer, fingerprint: &str) -> Result<Self, Problem> {
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

    pub(super) fn encode(self, correlation: &str) -> Result<Vec<u8>, FunctionError> {
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

impl Problem {
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
