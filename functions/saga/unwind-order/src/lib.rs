//! Forwards a customer's cancellation of an order to its fulfilment.

use cairn::{gate::Delivery, step};
use cairn_aws::lambda::{AppContext, ConfigError, FunctionError, Handler, consumer};
use orders::{fulfilment::Fulfilment, order::Event, values::OrderId};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    let sagas = app.repository()?;
    consumer::function(app, move |event, context| {
        let sagas = sagas.clone();
        async move {
            let order_id = OrderId::from_stream(&event.stream)?;
            match event.decode::<Event>()? {
                Event::Cancelled { reason, .. } => {
                    let saga = order_id.fulfilment_stream();
                    let is_news =
                        step::cancel::<Fulfilment, _>(&sagas, &saga, reason.as_str(), &context)
                            .await?;
                    tracing::info!(is_news, "cancellation forwarded to saga");
                    Ok(if is_news {
                        Delivery::Applied
                    } else {
                        Delivery::Duplicate
                    })
                }
                Event::Placed(_) | Event::Confirmed { .. } | Event::Shipped { .. } => {
                    Err(FunctionError::new(
                        "unexpected event type; this function handles only OrderCancelled. Check the EventBridge rule",
                    ))
                }
            }
        }
    })
}
