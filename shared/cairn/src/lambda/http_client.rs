//! HTTP calls to what is not AWS: payment providers, carriers, issuers of tokens.
//!
//! No call is repeated here: who makes it knows whether it may be.

use std::time::Duration;

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::HttpRequest,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};

use crate::lambda::http::{Http, TrustStore};

/// An HTTP client. Cloning it shares its connections.
#[derive(Clone, Debug)]
pub struct HttpClient(SharedHttpConnector);

/// An answer, whatever its status says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// The time before the next call, where the header `Retry-After` gives one in seconds.
    pub retry_after: Option<Duration>,
}

/// No answer came: it is unknown whether the request was carried out.
#[derive(Debug, thiserror::Error)]
#[error("{url} gave no answer: {problem}")]
pub struct HttpError {
    url: String,
    problem: String,
}

impl HttpClient {
    /// How long a connection may take, and how long the head of an answer.
    const LIMIT: Duration = Duration::from_secs(5);

    /// Over the network, to servers that the machine trusts.
    pub fn network() -> Self {
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(Self::LIMIT)
            .read_timeout(Self::LIMIT)
            .build();
        Self(Http::new(TrustStore::System).connector(&settings))
    }

    /// Over a connector of the caller's.
    pub fn with_connector(connector: impl HttpConnector + 'static) -> Self {
        Self(SharedHttpConnector::new(connector))
    }

    /// Asks for what a URL names.
    ///
    /// # Errors
    /// When no answer comes. An answer with an error's status is an answer.
    pub async fn get(&self, url: &str) -> Result<Answer, HttpError> {
        self.send("GET", url, &[], String::new()).await
    }

    /// Posts a body, with headers.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Answer, HttpError> {
        self.send("POST", url, headers, body).await
    }

    async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Answer, HttpError> {
        let http_error = |problem: String| HttpError {
            url: url.to_owned(),
            problem,
        };
        let mut request = HttpRequest::new(SdkBody::from(body));
        let set = request.set_uri(url);
        set.map_err(|error| http_error(error.to_string()))?;
        let set = request.set_method(method);
        set.map_err(|error| http_error(error.to_string()))?;
        for (name, value) in headers {
            let set = request.headers_mut().try_insert(*name, value.clone());
            set.map_err(|error| http_error(error.to_string()))?;
        }
        let answer = self.0.call(request).await;
        let answer = answer.map_err(|error| http_error(chain(&error)))?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|seconds| seconds.trim().parse().ok());
        let body = ByteStream::new(answer.into_body()).collect().await;
        let body = body.map_err(|error| http_error(error.to_string()))?;
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

/// An error with its causes: the outer one only says that there was one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
