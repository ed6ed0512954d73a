//! Forwards the cancellation of a saga's source to the saga.

use cairn::{
    RecordedEvent,
    commit::Context,
    gate::Delivery,
    repository::Repository,
    saga::{self, Saga, Signal, Triggered},
    step,
    store::EventStore,
};

use crate::lambda::{AppContext, ConfigError, FunctionError, Handler, consumer};

/// Creates the function that forwards cancellations to sagas. Its rule selects the events of the
/// source that cancel a saga, except those that the saga itself causes.
pub fn forward_cancellations<D: Triggered>(app: &AppContext) -> Result<Handler, ConfigError> {
    let sagas = app.repository()?;
    consumer::function(app, move |event, context| {
        let sagas = sagas.clone();
        async move { forward_cancellation::<D, _>(&sagas, &event, &context).await }
    })
}

/// Forwards one cancellation to its saga on any store.
///
/// # Errors
/// Returns an error if the event cancels no saga, or if the store fails.
pub async fn forward_cancellation<D: Triggered, S: EventStore + Clone>(
    sagas: &Repository<Saga<D>, S>,
    event: &RecordedEvent,
    context: &Context,
) -> Result<Delivery, FunctionError> {
    let Some(Signal::Cancel { reason, .. }) = saga::signal::<D>(event)? else {
        return Err(FunctionError::new(format!(
            "the event {} of type {} cancels no saga; check the EventBridge rule",
            event.id(),
            event.event.name,
        )));
    };
    let stream = event.stream.with_category(D::CATEGORY);
    let is_news = step::cancel(sagas, &stream, &reason, context).await?;
    tracing::info!(is_news, "cancellation forwarded to saga");
    Ok(if is_news {
        Delivery::Applied
    } else {
        Delivery::Duplicate
    })
}
