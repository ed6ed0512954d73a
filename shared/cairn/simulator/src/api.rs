//! The API as its clients use it. They retry with the same key until they get a response, and all
//! their requests are recorded.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use cairn_local::{Platform, client::Client, http::Gateway};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::sleep;

use crate::platform::Simulated;

const TRIES: u32 = 60;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A command of a client.
#[derive(Clone, Debug)]
pub struct Command {
    /// The name of the command, for example `place-order`. Command ids begin with it.
    pub operation: &'static str,
    pub method: Method,
    pub path: String,
    pub body: Value,
    /// The key of the subject; empty if the command creates it.
    pub about: String,
    /// The field of the response with the key of the subject.
    created: Option<&'static str>,
    /// An accepted command may make no commit, because nothing changes.
    pub may_change_nothing: bool,
    /// The response to a repeated command has the current state.
    pub has_current_response: bool,
}

impl Command {
    pub fn post(operation: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self {
            operation,
            method: Method::POST,
            path: path.into(),
            body,
            about: String::new(),
            created: None,
            may_change_nothing: false,
            has_current_response: false,
        }
    }

    pub fn put(operation: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self {
            method: Method::PUT,
            ..Self::post(operation, path, body)
        }
    }

    /// Names the subject by its key.
    #[must_use]
    pub fn about(self, key: &str) -> Self {
        let about = key.to_owned();
        Self { about, ..self }
    }

    /// Names the subject by a field of the response.
    #[must_use]
    pub fn creates(self, field: &'static str) -> Self {
        let created = Some(field);
        Self { created, ..self }
    }

    #[must_use]
    pub fn may_change_nothing(self) -> Self {
        let may_change_nothing = true;
        Self {
            may_change_nothing,
            ..self
        }
    }

    #[must_use]
    pub fn has_current_response(self) -> Self {
        let has_current_response = true;
        Self {
            has_current_response,
            ..self
        }
    }
}

/// A command and all responses to it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub command: Command,
    pub key: String,
    /// True if two of its requests were sent concurrently. The first can be rejected, and the
    /// second accepted, because the state changed between them.
    pub is_concurrent: bool,
    /// Every response in order: its status and its body.
    pub answers: Vec<(u16, Value)>,
}

impl Asked {
    /// Returns the response to a command that was accepted.
    pub fn accepted(&self) -> Option<&Value> {
        let accepted = self.answers.iter().find(|(status, _)| *status < 300);
        accepted.map(|(_, body)| body)
    }

    /// Returns the responses that reject the command.
    pub fn rejected(&self) -> impl Iterator<Item = &(u16, Value)> {
        let answers = self.answers.iter();
        answers.filter(|(status, _)| (400..500).contains(status))
    }

    /// Returns the id of the command.
    pub fn id(&self) -> String {
        format!("{}:{}", self.command.operation, self.key)
    }
}

/// A query and the response to it.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Looked {
    /// The key of the subject.
    pub about: String,
    pub path: String,
    /// The version that the response must have at least, or 0.
    pub least: u64,
    /// The status and the body of the response.
    pub answer: (u16, Value),
}

/// The transport.
#[derive(Clone, Debug)]
enum Transport {
    /// In process.
    Gateway(Arc<Gateway>),
    Http(Box<Client>),
}

/// The API. Clones share the records.
#[derive(Clone, Debug)]
pub struct Api {
    transport: Transport,
    platform: Arc<Simulated>,
    asked: Arc<Mutex<Vec<Asked>>>,
    looked: Arc<Mutex<Vec<Looked>>>,
}

impl Api {
    pub fn new(gateway: Gateway, platform: Arc<Simulated>) -> Self {
        Self {
            transport: Transport::Gateway(Arc::new(gateway)),
            platform,
            asked: Arc::default(),
            looked: Arc::default(),
        }
    }

    /// Returns the same API over HTTP.
    #[must_use]
    pub fn over(&self, client: Client) -> Self {
        Self {
            transport: Transport::Http(Box::new(client)),
            ..self.clone()
        }
    }

    /// Returns the commands of all clients.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// Returns the queries of all clients.
    pub fn looked(&self) -> Vec<Looked> {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.clone()
    }

    /// Sends a command until it has a response, which is returned if the command is accepted. Some
    /// requests are sent twice concurrently.
    pub async fn ask(&self, command: Command) -> Option<Value> {
        let mut asked = Asked {
            command,
            key: self.platform.new_id().to_string(),
            is_concurrent: false,
            answers: vec![],
        };
        let mut pause = Duration::from_millis(500);
        for _ in 0..TRIES {
            let at_once = if self.platform.below(10) == 0 { 2 } else { 1 };
            asked.is_concurrent |= at_once > 1;
            let Command {
                method, path, body, ..
            } = &asked.command;
            let asks = (0..at_once).map(|_| self.send(method, path, &asked.key, body));
            let answers = join_all(asks).await;
            asked.answers.extend(answers.into_iter().flatten());
            if asked.answers.iter().any(|(status, _)| *status < 500) {
                break;
            }
            self.platform.count("requests retried");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let accepted = asked.accepted().cloned();
        let created = asked.command.created;
        let created = created.and_then(|field| accepted.as_ref()?.get(field)?.as_str());
        if let Some(created) = created {
            created.clone_into(&mut asked.command.about);
        }
        let Command {
            operation, about, ..
        } = &asked.command;
        let statuses: Vec<_> = asked.answers.iter().map(|(status, _)| *status).collect();
        self.platform
            .say(operation, format_args!("{about} {statuses:?}"));
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(asked);
        accepted
    }

    /// Sends a query. The response must have a version of at least `least`.
    pub async fn look(&self, about: &str, path: String, least: u64) {
        let answer = self.send(&Method::GET, &path, "", &Value::Null).await;
        let looked = answer.map(|answer| Looked {
            about: about.to_owned(),
            path,
            least,
            answer,
        });
        let mut all = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(looked);
    }

    /// Sends one request. Returns `None` if its response is lost.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let answer = match &self.transport {
            Transport::Gateway(gateway) => {
                let request = Request::builder().method(method).uri(path);
                let request = if method == Method::GET {
                    request.body(Body::empty())
                } else {
                    request
                        .header(header::CONTENT_TYPE, "application/json")
                        .header("idempotency-key", key)
                        .body(Body::from(body.to_string()))
                };
                let request = request.ok()?;
                let response = gateway.answer(request).await;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.ok()?.to_bytes();
                (status, serde_json::from_slice(&body).unwrap_or_default())
            }
            Transport::Http(client) => {
                let headers = [("idempotency-key", key)];
                let answer = match *method {
                    Method::GET => client.get(path).await,
                    Method::PUT => client.put(path, &headers, body).await,
                    _ => client.post(path, &headers, body).await,
                };
                let answer = answer.ok()?;
                (answer.status.as_u16(), answer.body)
            }
        };
        if self.platform.happens(|faults| faults.answer_lost) {
            self.platform.count("answers lost");
            return None;
        }
        Some(answer)
    }
}
