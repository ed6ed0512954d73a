//! Functions that consume the events of an EventBridge rule.
//!
//! The rule invokes a function with one event, or sends to a queue whose messages arrive in
//! batches. Both are one code path: the template chooses the delivery. The function reports the
//! failed messages of a batch, so the event source of the queue must have the function response
//! type `ReportBatchItemFailures`: without it, Lambda deletes the failed messages too.
//!
//! Events arrive [at least
//! once](https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-troubleshooting.html) and in
//! any order. A [`projection`] deduplicates through its version gates; any other [`function()`]
//! must use the id of its context as idempotency key. Lambda or the queue delivers a failed event
//! again.
//!
//! After a restore, the events of the [restored](cairn::Commit::restored) commits are published
//! again. A projection applies those that its rows lack. Every other function skips them, because
//! their effects belong to the past: a saga that waits for one is continued by its deadline.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Span;

use super::payload::{Failure, Source};
use crate::{
    dynamodb::{DynamoStore, Generations, Projection},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler, Invocation, handler::short_name,
        metrics::Metrics, stream::panic_message, time_budget,
    },
};
use cairn::{
    cloudevent::CloudEvent,
    commit::{Context, RecordedEvent},
    gate::{Delivered, Delivery, deliver_all},
    store::{EventStore, ReadRange, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};

/// Creates an event consumer, which must accept duplicate deliveries. `handle` returns the outcome.
///
/// For each event the function emits the metric `ConsumerLag` and the properties `Event`, `Outcome`
/// (`applied`, `duplicate`, `caught-up` or `postponed`) and `Gap`. It skips restored events. It
/// handles the events of a batch one after the other.
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

/// Creates an event consumer as [`function()`] does. `handle` also receives the id of the delivery:
/// that of an asynchronous invocation or of a message. Its retries have the same id, and a new
/// delivery has another.
pub fn with_invocation<F>(
    app: &AppContext,
    handle: impl Fn(RecordedEvent, Context, String) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Result<Delivery, FunctionError>> + Send + 'static,
{
    let handle = Arc::new(handle);
    batches(app, move |arrivals| {
        let handle = handle.clone();
        async move {
            let begun = Instant::now();
            let mut outcomes = Vec::with_capacity(arrivals.len());
            for arrival in arrivals {
                let Arrival {
                    event,
                    context,
                    delivery,
                } = arrival;
                trace(&event);
                let time_budget = context.time_budget.saturating_sub(begun.elapsed());
                if time_budget.is_zero() && !outcomes.is_empty() {
                    let problem = "the earlier events of the batch used up the time";
                    outcomes.push(Err(FunctionError::new(problem)));
                    continue;
                }
                let context = Context {
                    time_budget,
                    ..context
                };
                let handled = caught(handle(event, context, delivery)).await;
                outcomes.push(handled.unwrap_or_else(Err));
            }
            outcomes
        }
    })
}

/// An event that was delivered.
pub(super) struct Arrival {
    pub(super) event: RecordedEvent,
    pub(super) context: Context,
    /// The id of the invocation or of the message.
    pub(super) delivery: String,
}

/// The outcomes of the events of an invocation, in their order.
pub(super) type Outcomes = Vec<Result<Delivery, FunctionError>>;

/// Creates an event consumer as [`function()`] does, for all events of an invocation.
pub(super) fn batches<F>(
    app: &AppContext,
    handle: impl Fn(Vec<Arrival>) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Outcomes> + Send + 'static,
{
    consumer(app, RestoredEvents::Skip, handle)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestoredEvents {
    Handle,
    Skip,
}

/// An event as its metrics show it.
struct Subject {
    index: usize,
    id: String,
    at: Timestamp,
    is_restored: bool,
}

fn consumer<F>(
    app: &AppContext,
    restored: RestoredEvents,
    handle: impl Fn(Vec<Arrival>) -> F + Send + Sync + 'static,
) -> Result<Handler, ConfigError>
where
    F: Future<Output = Outcomes> + Send + 'static,
{
    let store = app.event_store()?;
    let app = app.clone();
    let handle = Arc::new(handle);
    Ok(Handler::new(move |payload, invocation| {
        let (store, handle, app) = (store.clone(), handle.clone(), app.clone());
        async move {
            let (source, envelopes) = Source::read(&payload);
            let (mut subjects, mut arrivals, mut failures) = (vec![], vec![], vec![]);
            for (index, envelope) in envelopes.into_iter().enumerate() {
                let envelope = match envelope {
                    Ok(envelope) if envelope.restored && restored == RestoredEvents::Skip => {
                        tracing::info!(event = envelope.id, "restored event skipped");
                        continue;
                    }
                    Ok(envelope) => envelope,
                    Err(error) => {
                        failures.push(Failure {
                            index,
                            event: None,
                            error,
                        });
                        continue;
                    }
                };
                let (id, is_restored) = (envelope.id.clone(), envelope.restored);
                match read(&store, envelope).await {
                    Ok(event) => {
                        let delivery = source.message(index).unwrap_or(&invocation.request_id);
                        subjects.push(Subject {
                            index,
                            id: event.id(),
                            at: event.at,
                            is_restored,
                        });
                        arrivals.push(Arrival {
                            context: context(&event, &app, &invocation),
                            event,
                            delivery: delivery.to_owned(),
                        });
                    }
                    Err(error) => failures.push(Failure {
                        index,
                        event: Some(id),
                        error,
                    }),
                }
            }
            let outcomes = if arrivals.is_empty() {
                vec![]
            } else {
                handle(arrivals).await
            };
            let consumer = short_name(&app, &invocation.function);
            for (subject, outcome) in subjects.into_iter().zip(outcomes) {
                match outcome {
                    Ok(delivered) => app.emit(metrics(&app, &consumer, &subject, delivered)),
                    Err(error) => failures.push(Failure {
                        index: subject.index,
                        event: Some(subject.id),
                        error,
                    }),
                }
            }
            source.answer(failures)
        }
    }))
}

fn metrics(app: &AppContext, consumer: &str, subject: &Subject, delivered: Delivery) -> Metrics {
    let mut metrics = Metrics::for_consumer(consumer)
        .about("Event", subject.id.as_str())
        .about("Outcome", delivered.name());
    if !subject.is_restored {
        let lag = app.now().as_millis() - subject.at.as_millis();
        metrics = metrics.milliseconds("ConsumerLag", lag);
    }
    if let Delivery::CaughtUp(gap) = delivered {
        metrics = metrics.about("Gap", gap);
    }
    metrics
}

/// Gives the lines of the log the fields of an event.
pub(super) fn trace(event: &RecordedEvent) {
    let span = Span::current();
    span.record("event", event.id());
    span.record("correlation", &event.metadata.correlation);
    let traceparent = event.metadata.traceparent.as_deref();
    span.record("traceparent", traceparent.unwrap_or_default());
}

/// Converts a panic into an error, so that it fails its event only.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, FunctionError> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.map_err(|panic| FunctionError::new(panic_message(&*panic)))
}

/// Creates the projection of a read model: every event passes the version gate of each generation
/// of its rows. The events of a batch that change one row are one write.
pub fn projection<P: Projection>(
    app: &AppContext,
    generations: Generations<P>,
) -> Result<Handler, ConfigError> {
    let store = app.event_store()?;
    let shared = app.clone();
    consumer(app, RestoredEvents::Handle, move |arrivals| {
        let (store, generations) = (store.clone(), generations.clone());
        let app = shared.clone();
        async move {
            let events: Vec<_> = arrivals.into_iter().map(|arrival| arrival.event).collect();
            if let [event] = events.as_slice() {
                trace(event);
            }
            project(&app, &store, &generations, &events).await
        }
    })
}

async fn project<P: Projection>(
    app: &AppContext,
    store: &DynamoStore,
    generations: &Generations<P>,
    events: &[RecordedEvent],
) -> Outcomes {
    let written = match generations.written(events, app.now()).await {
        Ok(written) => written,
        Err(error) => {
            let error = Arc::new(error);
            return events
                .iter()
                .map(|_| Err(FunctionError::new(error.clone())))
                .collect();
        }
    };
    // The outcomes for the live rows, which are the first, and the failures for any.
    let mut shown = Outcomes::new();
    for rows in written {
        let delivered = isolated(&rows, store, events).await;
        for (event, outcome) in events.iter().zip(&delivered) {
            if events.len() > 1 {
                trace(event);
            }
            match outcome {
                Ok(Delivery::Applied) => tracing::info!("event applied"),
                Ok(Delivery::Duplicate | Delivery::Postponed) => {
                    tracing::info!("duplicate skipped");
                }
                Ok(Delivery::CaughtUp(gap)) => {
                    app.emit(Metrics::default().count("GapsFilled", *gap));
                    tracing::info!(gap, "gap filled");
                }
                Err(_) => {}
            }
        }
        if shown.is_empty() {
            shown = delivered;
            continue;
        }
        for (shown, outcome) in shown.iter_mut().zip(delivered) {
            if shown.is_ok() && outcome.is_err() {
                *shown = outcome;
            }
        }
    }
    shown
}

/// Delivers events, and each alone if the read model panics. The event that causes it then fails
/// alone.
async fn isolated<P: Projection>(
    rows: &P,
    store: &DynamoStore,
    events: &[RecordedEvent],
) -> Outcomes {
    let delivered = |outcome: Delivered| outcome.map_err(FunctionError::from);
    match (caught(deliver_all(rows, store, events)).await, events) {
        (Ok(outcomes), _) => return outcomes.into_iter().map(delivered).collect(),
        (Err(panic), [_]) => return vec![Err(panic)],
        (Err(_), _) => {}
    }
    let mut outcomes = Outcomes::new();
    for event in events.chunks(1) {
        match caught(deliver_all(rows, store, event)).await {
            Ok(alone) => outcomes.extend(alone.into_iter().map(delivered)),
            Err(panic) => outcomes.push(Err(panic)),
        }
    }
    outcomes
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

#[cfg(test)]
mod tests;
