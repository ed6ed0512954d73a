//! Functions that handle HTTP requests: their callers, correlation ids and traces.

use std::{future::Future, sync::Arc};

use aws_lambda_events::{event::apigw::ApiGatewayV2httpRequest, http::HeaderMap};
use cairn::{api::ClaimVariables, metadata::Metadata};
use tracing::Span;

use super::{
    caller::{Access, Caller},
    problem::Problem,
    request::{Request, RequestContext},
    response::Response,
};
use crate::{
    lambda::{AppContext, ConfigError, Handler, correlation, metrics::Metrics, time_budget},
    trace,
};

/// Creates a function that handles HTTP requests. The application defines the `claims` that
/// identify callers.
pub fn function<F>(
    app: &AppContext,
    claims: ClaimVariables,
    handle: impl Fn(Request) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    Ok(with(app, Access::from_app(app, claims)?, handle))
}

/// Creates a function that answers queries. `handle` gets a clone of the `parts` that it reads from,
/// such as a repository or the rows of a read model.
pub fn query<P, F>(
    app: &AppContext,
    claims: ClaimVariables,
    parts: P,
    handle: impl Fn(P, Request) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    P: Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    function(app, claims, move |request| handle(parts.clone(), request))
}

/// Creates a function that handles the HTTP requests of every caller, for example a page that asks
/// for a token itself. It ignores the authorization of the other routes.
pub fn open<F>(app: &AppContext, handle: impl Fn(Request) -> F + Send + Sync + 'static) -> Handler
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    with(app, Access::Public, handle)
}

fn with<F>(
    app: &AppContext,
    access: Access,
    handle: impl Fn(Request) -> F + Send + Sync + 'static,
) -> Handler
where
    F: Future<Output = Result<Response, Problem>> + Send + 'static,
{
    let parts = Arc::new((app.clone(), access, handle));
    Handler::new(move |payload, invocation| {
        let parts = parts.clone();
        async move {
            let (app, access, handle) = parts.as_ref();
            let request: ApiGatewayV2httpRequest = serde_json::from_slice(&payload)?;
            let correlation = correlation_id(&request.headers, app);
            let traceparent = traceparent(&request.headers, invocation.trace.as_deref(), app);
            let span = Span::current();
            span.record("correlation", &correlation);
            span.record("traceparent", &traceparent);
            let context = RequestContext {
                metadata: Metadata {
                    traceparent: Some(traceparent),
                    ..Metadata::new(&correlation)
                },
                now: app.now(),
                new_id: app.new_id(),
                time_budget: time_budget(&invocation),
            };
            let route = request.route_key.clone().unwrap_or_default();
            let answer = match Request::new(request, context, access) {
                Ok(request) => {
                    if let Caller::Operator(id) = &request.caller {
                        span.record("operator", id);
                    }
                    handle(request).await
                }
                Err(problem) => Err(problem),
            };
            let response = answer.unwrap_or_else(Problem::into_response);
            tracing::info!(route, status = response.status, "request completed");
            app.emit(Metrics::default());
            response.encode(&correlation)
        }
    })
}

fn correlation_id(headers: &HeaderMap, app: &AppContext) -> String {
    let own = headers
        .get("x-correlation-id")
        .and_then(|value| value.to_str().ok());
    own.filter(|own| correlation::is_from_client(own))
        .map_or_else(|| correlation::new(app.new_id()), str::to_owned)
}

/// Returns the trace context of a request: that of the caller, that of the invocation, or a new one
/// without a sample. The tracing header of API Gateway has no decision on sampling; Lambda makes it.
fn traceparent(headers: &HeaderMap, invocation: Option<&str>, app: &AppContext) -> String {
    let own = headers.get("traceparent");
    let own = own.and_then(|own| own.to_str().ok());
    if let Some(own) = own.filter(|own| trace::is_traceparent(own)) {
        return own.to_owned();
    }
    invocation.and_then(trace::from_header).unwrap_or_else(|| {
        let (trace, parent) = (app.new_id().simple(), app.new_id().simple());
        let parent = parent.to_string();
        format!("00-{trace}-{}-00", parent.get(..16).unwrap_or_default())
    })
}
