//! Lambda functions: their handlers, their environment variables and clients, and the loop that
//! runs them.
//!
//! A function is built from an [`AppContext`] and takes JSON. On Lambda, [`run`] builds and runs
//! it. The local runtime builds the same functions from the template and calls them in its own
//! process.

use std::{io, process::ExitCode, time::Duration};

use tracing::Subscriber;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt::{
        self, MakeWriter,
        format::{Format, Json, JsonFields},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

pub mod api;
pub mod consumer;
pub mod correlation;
mod handler;
pub mod operation;
mod payload;
mod reaction;
pub mod step;
pub mod stream;

pub use api::{caller, command, query};
pub use handler::{Build, FunctionError, Handler, Invocation, Throttled};
pub use reaction::reaction;

pub use crate::{
    clients::secret,
    context::{AppContext, ConfigError, Runtime, http_client, metrics},
};

/// Runs a function on Lambda until the execution environment shuts down.
///
/// `build` creates the clients before the first event. A panic fails only its invocation.
pub fn run(build: Build) -> ExitCode {
    tracing_subscriber::registry()
        .with(lines(io::stdout))
        .with(logged())
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(build)),
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "function failed to start");
            ExitCode::FAILURE
        }
    }
}

/// Returns the lines that functions log on Lambda at the level `info`, for another writer.
pub fn on_lambda<S>(
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    lines(writer).with_filter(LevelFilter::INFO)
}

fn lines<S, W>(writer: W) -> fmt::Layer<S, JsonFields, Format<Json>, W>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fmt::layer()
        .json()
        .with_span_list(false)
        .with_writer(writer)
}

/// Returns the log filter of `RUST_LOG`, by target and level; by default it is `error`.
///
/// It does not filter by the fields of spans, which would add a regular expression engine to every
/// function.
pub fn logged() -> Targets {
    let said = std::env::var("RUST_LOG")
        .ok()
        .filter(|said| !said.is_empty());
    let said = said.and_then(|said| said.parse().ok());
    said.unwrap_or_else(|| Targets::new().with_default(LevelFilter::ERROR))
}

async fn serve(build: Build) -> Result<(), lambda_runtime::Error> {
    let app = AppContext::of_process()?;
    let function = build(&app)?;
    let stack = app.variable("STACK").unwrap_or_default();
    let service = lambda_runtime::service_fn(
        move |event: lambda_runtime::LambdaEvent<Box<serde_json::value::RawValue>>| {
            let (function, stack) = (function.clone(), stack.clone());
            async move {
                let invocation = Invocation {
                    request_id: event.context.request_id.clone(),
                    function: event.context.invoked_function_arn.clone(),
                    service: stack,
                    trace: event.context.xray_trace_id.clone(),
                    remaining: remaining(event.context.deadline()),
                };
                let payload = event.payload.get().as_bytes().to_vec();
                let answer = function.invoke(payload, invocation).await?;
                let answer = String::from_utf8(answer)?;
                Ok::<_, lambda_runtime::Error>(serde_json::value::RawValue::from_string(answer)?)
            }
        },
    );
    lambda_runtime::run(service).await
}

fn remaining(deadline: std::time::SystemTime) -> Duration {
    deadline
        .duration_since(std::time::SystemTime::now())
        .unwrap_or_default()
}

/// Returns the time budget of retries. The rest of the time is for the response.
pub(crate) fn time_budget(invocation: &Invocation) -> Duration {
    invocation
        .remaining
        .saturating_sub(Duration::from_millis(500))
}
