//! The real SDK, over an HTTP client that calls the dispatcher in process.

use std::sync::{Arc, OnceLock};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;

use crate::{aws::Aws, template::REGION};

/// The services, which come into being after the functions that call them.
pub type Services = Arc<OnceLock<Arc<Aws>>>;

/// The SDK's configuration for one caller: its clients and its calls are its own.
pub fn config(caller: &str, services: &Services) -> SdkConfig {
    let connector = SharedHttpConnector::new(InProcess {
        caller: caller.to_owned(),
        services: services.clone(),
    });
    let credentials = Credentials::for_tests();
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .build()
}

#[derive(Debug)]
struct InProcess {
    caller: String,
    services: Services,
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(self.answer(&request))
    }
}

impl InProcess {
    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let fail = |text: &str| ConnectorError::other(text.into(), None);
        let services = self
            .services
            .get()
            .ok_or_else(|| fail("the system is not started"))?;
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default();
        let answer = services.call(&self.caller, target, body);
        let status = StatusCode::try_from(answer.status).map_err(|_| fail("no HTTP status"))?;
        Ok(HttpResponse::new(status, SdkBody::from(answer.body)))
    }
}
