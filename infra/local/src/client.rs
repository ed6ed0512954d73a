//! A small JSON-over-HTTP client, for what uses the system from outside.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Bytes,
    http::{
        HeaderMap, Method, Request, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

/// The longest wait for an answer. The gateway answers within 30 seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// A client of one server. Cloning it shares its connections.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    server: SocketAddr,
    token: Option<String>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, null where it is no JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

/// There was no answer.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} has no answer: {problem}")]
pub struct HttpError {
    method: Method,
    path: String,
    problem: String,
}

impl Client {
    /// A client of the server at an address.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            server,
            token: None,
        }
    }

    /// The same, sending a token with every request.
    #[must_use]
    pub fn bearing(self, token: String) -> Self {
        let token = Some(token);
        Self { token, ..self }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When there is no answer. An answer with an error's status is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer, HttpError> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, HttpError> {
        self.send_json(Method::POST, path, headers, body).await
    }

    /// Puts JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn put(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, HttpError> {
        self.send_json(Method::PUT, path, headers, body).await
    }

    async fn send_json(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, HttpError> {
        let headers: Vec<_> = [(CONTENT_TYPE.as_str(), "application/json")]
            .into_iter()
            .chain(headers.iter().copied())
            .collect();
        self.send(method, path, &headers, body.to_string().into())
            .await
    }

    /// Sends any request.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        let fail = |problem: String| HttpError {
            method: method.clone(),
            path: path.to_owned(),
            problem,
        };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("http://{}{path}", self.server));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| fail(error.to_string()))?;
        let answer = async {
            let answer = self.pool.request(request).await;
            let (parts, body) = answer.map_err(|error| format!("{error:?}"))?.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?;
            let body = body.to_bytes();
            Ok::<_, String>(Answer {
                status: parts.status,
                headers: parts.headers,
                body: serde_json::from_slice(&body).unwrap_or_default(),
                text: String::from_utf8_lossy(&body).into_owned(),
            })
        };
        let answer = timeout(LIMIT, answer).await;
        answer
            .unwrap_or_else(|_| Err(format!("none within {LIMIT:?}")))
            .map_err(fail)
    }
}
