//! Problem documents (RFC 9457).

use std::time::Duration;

use aws_lambda_events::http::{HeaderMap, HeaderName, HeaderValue, header};
use cairn::{input::FieldError, repository::HandleError, store::StoreError};
use serde_json::{Map, Value};

use crate::dynamodb::{KeyError, TableError};

/// The maximum size of a request body in bytes. It is below the 6 MB that Lambda accepts, and below
/// the size at which a commit gets too large.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// A problem document (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: String,
    pub(super) errors: Vec<FieldError>,
    pub(super) members: Map<String, Value>,
    /// Boxed, because every handler returns `Result<_, Problem>` and most problems have no headers.
    pub(super) headers: Box<HeaderMap>,
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

    fn failed(error: &dyn std::fmt::Display, is_transient: bool) -> Self {
        if is_transient {
            Self::unavailable(error)
        } else {
            Self::internal(error)
        }
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
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::failed(&error, error.is_transient())
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        Self::failed(&error, error.is_transient())
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        Self::failed(&error, error.is_transient())
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
