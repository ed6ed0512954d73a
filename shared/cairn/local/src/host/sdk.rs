//! The real SDK, over an HTTP client that calls the dispatcher in process.

use std::sync::{Arc, OnceLock};

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
            let answer = undergo(decision, &throttled(&call), async {
                connector.answer(&call)
            })
            .await;
            match decision.fault {
                Some(CallFault::Stale) => answer.map(|answer| stale(answer, &call)),
                _ => answer,
            }
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
                    response(&answer)
                }
                Err(refusal) => response(&refusal),
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
            let throttled = Answer::error(429, "TooManyRequests", "too many requests");
            undergo(decision, &throttled, network.call(request)).await
        })
    }
}

/// Applies a fault decision to a call. The call may be skipped, or its answer lost. The caller of
/// this function applies [`CallFault::Stale`].
async fn undergo(
    decision: FaultDecision,
    throttled: &Answer,
    call: impl Future<Output = Result<HttpResponse, ConnectorError>>,
) -> Result<HttpResponse, ConnectorError> {
    sleep(decision.there).await;
    let answer = match decision.fault {
        None | Some(CallFault::Stale) => call.await,
        Some(CallFault::Throttled) => response(throttled),
        Some(CallFault::Unavailable) => {
            response(&Answer::error(500, "InternalServerError", "internal error"))
        }
        Some(CallFault::RequestLost) => Err(no_answer()),
        Some(CallFault::AnswerLost) => call.await.and_then(|_| Err(no_answer())),
    };
    sleep(decision.back).await;
    answer
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

fn response(answer: &Answer) -> Result<HttpResponse, ConnectorError> {
    let status = StatusCode::try_from(answer.status).map_err(|_| other("no HTTP status"))?;
    Ok(HttpResponse::new(
        status,
        SdkBody::from(answer.body.clone()),
    ))
}

fn other(text: &str) -> ConnectorError {
    ConnectorError::other(text.into(), None)
}

fn no_answer() -> ConnectorError {
    ConnectorError::timeout("no answer".into())
}

/// The throttling error of each service.
fn throttled(call: &Call<'_>) -> Answer {
    match call.target.split_once('.').map(|(service, _)| service) {
        Some("DynamoDB_20120810") => {
            let kind = "ThrottlingException";
            Answer::error(
                400,
                kind,
                "Rate of requests exceeds the allowed throughput.",
            )
        }
        _ => Answer::error(400, "ThrottlingException", "Rate exceeded"),
    }
}

/// Removes the latest item from an eventually consistent answer, as on a lagging replica.
fn stale(answer: HttpResponse, call: &Call<'_>) -> HttpResponse {
    let request: Value = serde_json::from_slice(call.body).unwrap_or_default();
    let is_tail = request.get("ScanIndexForward") == Some(&Value::Bool(false))
        && request.get("ExclusiveStartKey").is_none();
    if call.operation() != "Query"
        || request.get("ConsistentRead") == Some(&true.into())
        || !is_tail
    {
        return answer;
    }
    let page = answer.body().bytes().map(serde_json::from_slice::<Value>);
    let Some(Ok(mut page)) = page else {
        return answer;
    };
    if let Some(items) = page.get_mut("Items").and_then(Value::as_array_mut)
        && !items.is_empty()
    {
        items.remove(0);
    }
    HttpResponse::new(answer.status(), SdkBody::from(page.to_string()))
}
