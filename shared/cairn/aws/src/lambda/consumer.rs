//! Functions that an EventBridge rule invokes, one event at a time.
//!
//! Events arrive [at least
//! once](https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-troubleshooting.html) and in
//! any order. A [`projection`] deduplicates through its version gates; any other [`function()`]
//! must use the id of its context as idempotency key. An error makes Lambda retry.
//!
//! After a restore, the events of the [restored](cairn::Commit::restored) commits are published
//! again. A projection applies those that its rows lack. Every other function skips them, because
//! their effects belong to the past: a saga that waits for one is continued by its deadline.

use std::{future::Future, sync::Arc};

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use tracing::Span;

use crate::{
    dynamodb::{DynamoStore, Generations, Projection},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Invocation, handler::short_name,
        metrics::Metrics, time_budget,
    },
};
use cairn::{
    cloudevent::CloudEvent,
    commit::{Context, RecordedEvent},
    gate::{Delivery, deliver},
    store::{EventStore, ReadRange, StoreError},
    stream::StreamId,
};

/// Creates an event consumer, which must accept duplicate deliveries. `handle` returns the outcome.
///
/// For each event the function emits the metric `ConsumerLag` and the properties `Event`, `Outcome`
/// (`applied`, `duplicate`, `caught-up` or `postponed`) and `Gap`. It skips restored events.
///
/// The context is that of a command that the event causes. Its id is the id of the event, and its
/// time is never before that of the event, even if clocks differ.
pub fn function<F>(
    app: &AppContext,
    handle: impl Fn(RecordedEvent, Context) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Delivery, FunctionError>> + Send + 'static,
{
    with_invocation(app, move |event, context, _| handle(event, context))
}

/// Creates an event consumer as [`function()`] does. `handle` also receives the id of the
/// invocation: retries of an asynchronous invocation have the same id, a new delivery has another.
pub fn with_invocation<F>(
    app: &AppContext,
    handle: impl Fn(RecordedEvent, Context, String) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Delivery, FunctionError>> + Send + 'static,
{
    consumer(app, RestoredEvents::Skip, handle)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestoredEvents {
    Handle,
    Skip,
}

fn consumer<F>(
    app: &AppContext,
    restored: RestoredEvents,
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
            let envelope = envelope(&payload)?;
            let is_restored = envelope.restored;
            if is_restored && restored == RestoredEvents::Skip {
                tracing::info!(event = envelope.id, "restored event skipped");
                return Ok(b"null".to_vec());
            }
            let event = read(&store, envelope).await?;
            let span = Span::current();
            span.record("event", event.id());
            span.record("correlation", &event.metadata.correlation);
            span.record("traceparent", &event.metadata.traceparent);
            let context = context(&event, &app, &invocation);
            let (happened, id) = (event.at, event.id());
            let request_id = invocation.request_id.clone();
            let delivered = handle(event, context, request_id).await?;
            let consumer = short_name(&app, &invocation.function);
            let mut metrics = Metrics::for_consumer(&consumer)
                .about("Event", id)
                .about("Outcome", delivered.name());
            if !is_restored {
                let lag = app.now().as_millis() - happened.as_millis();
                metrics = metrics.milliseconds("ConsumerLag", lag);
            }
            if let Delivery::CaughtUp(gap) = delivered {
                metrics = metrics.about("Gap", gap);
            }
            app.emit(metrics);
            Ok(b"null".to_vec())
        }
    }))
}

/// Creates the projection of a read model: every event passes the version gate of each generation
/// of its rows.
pub fn projection<P: Projection>(
    app: &AppContext,
    generations: Generations<P>,
) -> Result<Handler, ConfigError> {
    let store = app.event_store()?;
    let shared = app.clone();
    consumer(app, RestoredEvents::Handle, move |event, _, _| {
        let (store, generations) = (store.clone(), generations.clone());
        let app = shared.clone();
        async move {
            let written = generations.written(&event, app.now()).await?;
            // The outcome for the live rows, which are the first.
            let mut shown = None;
            for rows in written {
                let delivered = deliver(&rows, &store, &event).await?;
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

fn envelope(payload: &[u8]) -> Result<CloudEvent, FunctionError> {
    let delivery = serde_json::from_slice::<EventBridgeEvent<CloudEvent>>(payload);
    let delivery = delivery.map_err(|error| {
        FunctionError::new(format!("the delivery is not a known event: {error}"))
    })?;
    Ok(delivery.detail)
}

/// Returns the event of an envelope. An event that is too large for the bus is read from the store.
async fn read(store: &DynamoStore, envelope: CloudEvent) -> Result<RecordedEvent, FunctionError> {
    if let Some(event) = envelope.recorded()? {
        return Ok(event);
    }
    stored(store, envelope.subject, envelope.streamversion).await
}

/// Reads an event from the store.
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
        .await?;
    commits
        .iter()
        .flat_map(cairn::commit::Commit::recorded)
        .find(|event| event.version == version)
        .ok_or_else(|| {
            let reason = format!("event {version} was delivered but is not stored");
            StoreError::Corrupt { stream, reason }.into()
        })
}

fn context(event: &RecordedEvent, app: &AppContext, invocation: &Invocation) -> Context {
    Context {
        metadata: event.consequence(),
        ..Context::new(event.id(), app.now().max(event.at), time_budget(invocation))
    }
}
