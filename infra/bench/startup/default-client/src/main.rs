//! `place-order` with the SDK's default features and the HTTP client of `aws_config`.
//!
//! It logs, builds the function and serves as `cairn_aws::lambda::run` does; only the SDK's
//! configuration differs.

use aws_config::BehaviorVersion;
use cairn_aws::lambda::{AppContext, Invocation};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::value::RawValue;

fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_current_span(false)
        .init();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve())
}

async fn serve() -> Result<(), Error> {
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let app = AppContext::new(|name| std::env::var(name).ok(), aws);
    let function = place_order::function(&app)?;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let function = function.clone();
        async move {
            let invocation = Invocation {
                request_id: event.context.request_id.clone(),
                function: event.context.invoked_function_arn.clone(),
                service: "bench".to_owned(),
                trace: event.context.xray_trace_id.clone(),
                remaining: event
                    .context
                    .deadline()
                    .duration_since(std::time::SystemTime::now())
                    .unwrap_or_default(),
            };
            let payload = event.payload.get().as_bytes().to_vec();
            let answer = function.invoke(payload, invocation).await?;
            Ok::<_, Error>(RawValue::from_string(String::from_utf8(answer)?)?)
        }
    }))
    .await
}
