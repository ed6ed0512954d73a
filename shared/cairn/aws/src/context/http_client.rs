//! HTTP calls to services outside AWS, such as external providers.
//!
//! The client never retries: only its caller knows whether a call can be repeated.

use std::time::Duration;

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::HttpRequest,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};

use super::http::{Http, TrustStore};
use crate::error::chain;
use cairn::error::BoxError;

/// An HTTP client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct HttpClient(SharedHttpConnector);

/// A response with any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// The delay before the next call, if the header `Retry-After` gives one in seconds.
    pub retry_after: Option<Duration>,
}

/// No response arrived. The server may or may not have executed the request.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
#[error("request to {url} failed: {}", chain(source.as_ref()))]
pub struct HttpError {
    url: String,
    source: BoxError,
}

impl HttpClient {
    /// The time limit of connecting, and of waiting for the head of a response.
    const LIMIT: Duration = Duration::from_secs(5);

    /// Creates a client for the network that trusts the root certificates of the system.
    pub fn network() -> Self {
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(Self::LIMIT)
            .read_timeout(Self::LIMIT)
            .build();
        Self(Http::new(TrustStore::System).connector(&settings))
    }

    /// Creates a client that uses a connector of the caller.
    pub fn with_connector(connector: impl HttpConnector + 'static) -> Self {
        Self(SharedHttpConnector::new(connector))
    }

    /// Sends a `GET` request.
    ///
    /// # Errors
    /// Returns an error if no response arrives. A response with an error status is not an error.
    pub async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        self.send("GET", url, &[], String::new()).await
    }

    /// Sends a `POST` request with headers and a body, see [`get`](Self::get).
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Answer, HttpError> {
        self.send("POST", url, headers, body).await
    }

    /// Sends a request, see [`get`](Self::get).
    pub(crate) async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Answer, HttpError> {
        let http_error = |source: BoxError| HttpError {
            url: url.to_owned(),
            source,
        };
        let mut request = HttpRequest::new(SdkBody::from(body));
        let set = request.set_uri(url);
        set.map_err(|error| http_error(error.into()))?;
        let set = request.set_method(method);
        set.map_err(|error| http_error(error.into()))?;
        for (name, value) in headers {
            let set = request.headers_mut().try_insert(*name, value.clone());
            set.map_err(|error| http_error(error.into()))?;
        }
        let answer = self.0.call(request).await;
        let answer = answer.map_err(|error| http_error(error.into()))?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|seconds| seconds.trim().parse().ok());
        let body = ByteStream::new(answer.into_body()).collect().await;
        let body = body.map_err(|error| http_error(error.into()))?;
        Ok(Answer {
            status,
            body: body.to_vec(),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

impl HttpConnector for HttpClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0.call(request)
    }
}
