//! A small JSON-over-HTTP client for programs that use the system from outside.

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

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Null if the body is not JSON.
    pub body: Value,
    pub text: String,
}

#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} got no answer: {problem}")]
pub struct HttpError {
    method: Method,
    path: String,
    problem: String,
}

impl Client {
    pub fn new(server: SocketAddr) -> Self {
        Self {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            server,
            token: None,
        }
    }

    #[must_use]
    pub fn bearing(self, token: String) -> Self {
        let token = Some(token);
        Self { token, ..self }
    }

    /// Sends a GET. An answer with an error status is not an [`HttpError`].
    pub async fn get(&self, path: &str) -> Result<Answer, HttpError> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, HttpError> {
        self.send_json(Method::POST, path, headers, body).await
    }

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
