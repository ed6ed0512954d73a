//! The real SDK, over an HTTP client that calls the dispatcher in process.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, stalled_stream_protection::StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use cairn_aws::lambda::http_client::HttpClient;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    aws::{Answer, Aws, Call},
    names::REGION,
    platform::{CallFault, FaultDecision, Note, Platform},
};

/// The services. They are created after the functions that call them.
pub type Services = Arc<OnceLock<Arc<Aws>>>;

/// Builds the SDK configuration of one caller, which has its own clients. It has no credentials:
/// the connector names the caller, so calls need no signature. Nor does an answer in process need
/// protection against a stalled stream.
pub fn config(caller: &str, services: &Services, platform: &Arc<dyn Platform>) -> SdkConfig {
    let connector = SharedHttpConnector::new(InProcess {
        caller: caller.to_owned(),
        services: services.clone(),
        platform: platform.clone(),
    });
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .build()
}

#[derive(Clone, Debug)]
struct InProcess {
    caller: String,
    services: Services,
    platform: Arc<dyn Platform>,
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = call_of(&request);
        let decision = self.platform.call(&self.caller, call.operation());
        if decision == FaultDecision::default() {
            return HttpConnectorFuture::ready(self.answer(&call));
        }
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let call = call_of(&request);
            let called = async { connector.answer(&call) };
            let answer = undergo(decision, throttled(&call), refused, no_answer, called).await?;
            let page = answer.body().bytes();
            let stale = page.and_then(|page| stale(decision, &call, page));
            Ok(match stale {
                Some(page) => HttpResponse::new(answer.status(), SdkBody::from(page)),
                None => answer,
            })
        })
    }
}

impl InProcess {
    fn answer(&self, call: &Call<'_>) -> Result<HttpResponse, ConnectorError> {
        match self.services.get() {
            Some(services) => match services.roles.check(&self.caller, call) {
                Ok(()) => {
                    let answer = services.call(&self.caller, call);
                    if !call.only_reads() {
                        let function = self.caller.as_str();
                        self.platform.note(&Note::Changed { function });
                    }
                    response(answer)
                }
                Err(refusal) => response(refusal),
            },
            None => Err(other("the system is not started")),
        }
    }
}

/// The network client, created on first use. All functions share its connections.
pub(crate) type Network = Arc<OnceLock<HttpClient>>;

/// A function's access to external providers: over the network, with the platform's faults.
#[derive(Clone, Debug)]
pub(crate) struct Providers {
    caller: String,
    platform: Arc<dyn Platform>,
    network: Network,
}

impl Providers {
    pub(crate) fn new(caller: &str, platform: &Arc<dyn Platform>, network: &Network) -> Self {
        Self {
            caller: caller.to_owned(),
            platform: platform.clone(),
            network: network.clone(),
        }
    }
}

impl HttpConnector for Providers {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let decision = self.platform.call(&self.caller, request.uri());
        let network = self.network.get_or_init(HttpClient::network).clone();
        HttpConnectorFuture::new(async move {
            let throttled = (429, "TooManyRequests", "too many requests");
            let called = network.call(request);
            undergo(decision, throttled, refused, no_answer, called).await
        })
    }
}

/// The status, the kind and the message of an error.
pub(crate) type Refusal = (u16, &'static str, &'static str);

/// Applies a fault decision to a call. The call may be skipped, or its answer lost. The caller of
/// this function applies [`CallFault::Stale`].
pub(crate) async fn undergo<T>(
    decision: FaultDecision,
    throttled: Refusal,
    refused: impl FnOnce(Refusal) -> T,
    no_answer: impl FnOnce() -> T,
    call: impl Future<Output = T>,
) -> T {
    pause(decision.there).await;
    let answer = match decision.fault {
        None | Some(CallFault::Stale) => call.await,
        Some(CallFault::Throttled) => refused(throttled),
        Some(CallFault::Unavailable) => refused((500, "InternalServerError", "internal error")),
        Some(CallFault::RequestLost) => no_answer(),
        Some(CallFault::AnswerLost) => {
            call.await;
            no_answer()
        }
    };
    pause(decision.back).await;
    answer
}

/// Waits. Without a time it returns immediately; a timer would round it up to a millisecond.
async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Reads the call of a service from its HTTP request.
fn call_of(request: &HttpRequest) -> Call<'_> {
    let uri = request.uri();
    let path = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let path = path.find('/').and_then(|start| path.get(start..));
    Call {
        target: request.headers().get("x-amz-target").unwrap_or_default(),
        path: path.unwrap_or("/"),
        body: request.body().bytes().unwrap_or_default(),
    }
}

fn response(answer: Answer) -> Result<HttpResponse, ConnectorError> {
    let status = StatusCode::try_from(answer.status).map_err(|_| other("no HTTP status"))?;
    Ok(HttpResponse::new(status, SdkBody::from(answer.body)))
}

fn other(text: &str) -> ConnectorError {
    ConnectorError::other(text.into(), None)
}

fn refused((status, kind, message): Refusal) -> Result<HttpResponse, ConnectorError> {
    response(Answer::error(status, kind, message))
}

fn no_answer() -> Result<HttpResponse, ConnectorError> {
    Err(ConnectorError::timeout("no answer".into()))
}

/// The throttling error of each service.
pub(crate) fn throttled(call: &Call<'_>) -> Refusal {
    let message = match call.target.split_once('.').map(|(service, _)| service) {
        Some("DynamoDB_20120810") => "Rate of requests exceeds the allowed throughput.",
        _ => "Rate exceeded",
    };
    (400, "ThrottlingException", message)
}

/// Returns a page of an eventually consistent query without its latest item, as from a lagging
/// replica; `None` if the call or the decision is another.
pub(crate) fn stale(decision: FaultDecision, call: &Call<'_>, page: &[u8]) -> Option<String> {
    if decision.fault != Some(CallFault::Stale) || call.operation() != "Query" {
        return None;
    }
    let request: Value = serde_json::from_slice(call.body).unwrap_or_default();
    let is_tail = request.get("ScanIndexForward") == Some(&Value::Bool(false))
        && request.get("ExclusiveStartKey").is_none();
    if request.get("ConsistentRead") == Some(&true.into()) || !is_tail {
        return None;
    }
    let mut page: Value = serde_json::from_slice(page).ok()?;
    if let Some(items) = page.get_mut("Items").and_then(Value::as_array_mut)
        && !items.is_empty()
    {
        items.remove(0);
    }
    Some(page.to_string())
}
