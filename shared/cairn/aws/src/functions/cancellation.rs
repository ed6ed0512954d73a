//! Forwards the cancellation of a saga's source to the saga.

use cairn::{
    gate::Delivery,
    saga::{self, Signal, Triggered},
    step,
};

use crate::lambda::{AppContext, ConfigError, FunctionError, Handler, consumer};

/// Creates the function that forwards cancellations to sagas. Its rule selects the events of the
/// source that cancel a saga, except those that the saga itself causes.
pub fn forward_cancellations<D: Triggered>(app: &AppContext) -> Result<Handler, ConfigError> {
    let sagas = app.repository()?;
    consumer::function(app, move |event, context| {
        let sagas = sagas.clone();
        async move {
            let signal = saga::signal::<D>(&event)?;
            let Some(Signal::Cancel { reason, .. }) = signal else {
                return Err(FunctionError::new(format!(
                    "the event {} of type {} cancels no saga; check the EventBridge rule",
                    event.id(),
                    event.event.name,
                )));
            };
            let stream = event.stream.with_category(D::CATEGORY);
            let is_news = step::cancel::<D, _>(&sagas, &stream, &reason, &context).await?;
            tracing::info!(is_news, "cancellation forwarded to saga");
            Ok(if is_news {
                Delivery::Applied
            } else {
                Delivery::Duplicate
            })
        }
    })
}
