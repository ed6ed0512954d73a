//! The first step: starts the fulfilment of an order and screens the order for fraud. Its
//! compensation is the last one and cancels the order.

use cairn::{
    RecordedEvent, StreamId,
    step::{DueStep, Enlisted, StepOutcome},
};
use cairn_aws::{
    dynamodb::Repository,
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        step::{self, StepHandler},
    },
};
use orders::{
    fulfilment::{Fulfilment, Input, Step},
    order::{self, Canceller, Order},
    providers::{SandboxScreening, Screening},
    values::{OrderId, Text},
};

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    with(app, SandboxScreening)
}

/// Builds the function with another screening provider.
pub fn with(app: &AppContext, screening: impl Screening + 'static) -> Result<Handler, ConfigError> {
    step::function(
        app,
        ScreenOrder {
            orders: app.repository()?,
            screening,
        },
    )
}

struct ScreenOrder<S> {
    orders: Repository<Order>,
    screening: S,
}

impl<S: Screening + 'static> StepHandler<Fulfilment> for ScreenOrder<S> {
    const STEP: Step = Step::ScreenOrder;

    fn begins(event: &RecordedEvent) -> Result<Option<(StreamId, Input)>, FunctionError> {
        if event.stream.category() != "order" {
            return Ok(None);
        }
        let order_id = OrderId::from_stream(&event.stream)?;
        match event.decode::<order::Event>()? {
            order::Event::Placed(placed) => Ok(Some((
                order_id.fulfilment_stream(),
                Input::new(order_id, &placed),
            ))),
            order::Event::Confirmed { .. }
            | order::Event::Shipped { .. }
            | order::Event::Cancelled { .. } => Err(FunctionError::new(
                "unexpected event type; this function handles only OrderPlaced. Check the EventBridge rule",
            )),
        }
    }

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let key = due.idempotency_key();
        let screened = step::ask(&key, |call| self.screening.screen(call, due.input()));
        Ok(match screened.await? {
            Ok(()) => StepOutcome::done(vec![]),
            // Nothing else has happened yet, so the order is cancelled with the rejection.
            Err(reason) => {
                let cancel = self.cancel(due, &reason);
                StepOutcome::failed(reason, vec![cancel])
            }
        })
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        Ok(StepOutcome::done(vec![self.cancel(due, due.reason())]))
    }
}

impl<S> ScreenOrder<S> {
    fn cancel(&self, due: &DueStep<Fulfilment>, reason: &str) -> Enlisted {
        let command = order::Command::Cancel {
            reason: Text::truncated(reason),
            by: Canceller::Fulfilment,
        };
        Enlisted::new(&self.orders, &due.input().order_id.order_stream(), command)
    }
}
