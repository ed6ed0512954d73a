//! Functions that a rule of the bus invokes, one event at a time.
//!
//! An event comes [at least once](https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-troubleshooting.html) and in no order. A
//! [`projection`] bears that by its gates; any other [`function()`] has to, by the id of its context. An error means: try again.

use std::{future::Future, sync::Arc};

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use tracing::Instrument;

use crate::{
    cloudevent::CloudEvent,
    commit::{Context, RecordedEvent},
    dynamodb::{DynamoStore, Generations, Projection},
    gate::{Delivery, deliver},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Invocation, metrics::Metrics, time_budget,
    },
    store::{EventStore, ReadRange, StoreError},
    stream::StreamId,
};

/// A function that does something with an event, and says what came of it. It has to bear the same event twice.
///
/// It emits the metric `ConsumerLag`, with the event and its outcome as properties: `Event`, `Outcome`
/// (`applied`, `duplicate`, `caught-up` or `postponed`) and `Gap`.
///
/// The context is that of a command caused by the event: its id is the event's, and its time is never
/// before the event's, whatever the clocks of two machines say.
///
/// # Errors
/// When an environment variable is missing.
pub fn function<F>(
    app: &AppContext,
    handle: impl Fn(RecordedEvent, Context) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Delivery, FunctionError>> + Send + 'static,
{
    with_invocation(app, move |event, context, _| handle(event, context))
}

/// The same, with the id of the invocation: it is the same at every retry of an asynchronous invocation,
/// and another one when the event is delivered again.
///
/// # Errors
/// When an environment variable is missing.
pub fn with_invocation<F>(
    app: &AppContext,
    handle: impl Fn(RecordedEvent, Context, String) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Delivery, FunctionError>> + Send + 'static,
{
    let store = app.event_store()?;
    let app = app.clone();
    let handle = Arc::new(handle);
    Ok(Handler::new(move |payload, invocation| {
        let (store, handle, app) = (store.clone(), handle.clone(), app.clone());
        async move {
            let event = read(&store, &payload).await?;
            let span = tracing::info_span!(
                "event",
                event = event.id(),
                correlation = event.correlation,
                traceparent = event.traceparent,
            );
            let context = context(&event, &app, &invocation);
            let (happened, id) = (event.at, event.id());
            let request_id = invocation.request_id.clone();
            let delivered = handle(event, context, request_id).instrument(span).await?;
            let lag = app.now().as_millis() - happened.as_millis();
            let consumer = app.short_name(&invocation.function);
            let mut metrics = Metrics::for_consumer(&consumer)
                .milliseconds("ConsumerLag", lag)
                .about("Event", id)
                .about("Outcome", delivered.name());
            if let Delivery::CaughtUp(gap) = delivered {
                metrics = metrics.about("Gap", gap);
            }
            app.emit(metrics);
            Ok(b"null".to_vec())
        }
    }))
}

/// A function that keeps a read model: every event passes the version gate of each generation of its rows.
///
/// # Errors
/// When an environment variable is missing.
pub fn projection<P: Projection>(
    app: &AppContext,
    generations: Generations<P>,
) -> Result<Handler, ConfigError> {
    let store = app.event_store()?;
    let shared = app.clone();
    function(app, move |event, _| {
        let (store, generations) = (store.clone(), generations.clone());
        let app = shared.clone();
        async move {
            let written = generations.written().await.map_err(FunctionError::new)?;
            // What is told is what came of it in the rows that are shown, which are the first.
            let mut shown = None;
            for rows in written {
                let delivered = deliver(&rows, &store, &event)
                    .await
                    .map_err(FunctionError::new)?;
                match delivered {
                    Delivery::Applied => tracing::info!("event applied"),
                    Delivery::Duplicate | Delivery::Postponed => {
                        tracing::info!("duplicate skipped");
                    }
                    Delivery::CaughtUp(gap) => {
                        app.emit(Metrics::default().count("GapsFilled", gap));
                        tracing::info!(gap, "gap filled");
                    }
                }
                shown.get_or_insert(delivered);
            }
            Ok(shown.unwrap_or(Delivery::Duplicate))
        }
    })
}

/// The event of a delivery; one that the bus could not carry is fetched from the store.
async fn read(store: &DynamoStore, payload: &[u8]) -> Result<RecordedEvent, FunctionError> {
    let delivery: EventBridgeEvent<CloudEvent> =
        serde_json::from_slice(payload).map_err(|error| {
            FunctionError::new(format!("the delivery is not an event of ours: {error}"))
        })?;
    let envelope = delivery.detail;
    if let Some(event) = envelope.recorded().map_err(FunctionError::new)? {
        return Ok(event);
    }
    stored(store, envelope.subject, envelope.streamversion).await
}

/// An event of the store.
///
/// # Errors
/// When the read fails, or there is no such event.
pub async fn stored(
    store: &DynamoStore,
    stream: StreamId,
    version: u64,
) -> Result<RecordedEvent, FunctionError> {
    let commits = store
        .read(
            &stream,
            &ReadRange {
                to: version,
                ..ReadRange::after(version - 1)
            },
        )
        .await
        .map_err(FunctionError::new)?;
    commits
        .iter()
        .flat_map(crate::commit::Commit::recorded)
        .find(|event| event.version == version)
        .ok_or_else(|| {
            FunctionError::new(StoreError::Corrupt {
                stream,
                reason: format!("event {version} was delivered but is not stored"),
            })
        })
}

fn context(event: &RecordedEvent, app: &AppContext, invocation: &Invocation) -> Context {
    Context {
        id: event.id(),
        fingerprint: None,
        former_fingerprint: None,
        correlation: event.correlation.clone(),
        causation: Some(event.id()),
        actor: None,
        traceparent: event.traceparent.clone(),
        now: app.now().max(event.at),
        time_budget: time_budget(invocation),
    }
}
