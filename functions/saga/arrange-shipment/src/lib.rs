//! Requests a shipping label from the carrier; the compensation cancels it.

use cairn::{
    Aggregate,
    provider::{self, ProviderError},
    repository::Repository,
    step::{DueStep, Enlisted, StepFailure, StepHandler, StepOutcome},
    store::EventStore,
};
use cairn_aws::lambda::{AppContext, ConfigError, Handler, step};
use orders::{
    fulfilment::{Fulfilment, Step},
    order::Order,
    personal,
    providers::{CALL_LIMITS, Carrier, SandboxCarrier},
    shipment::{Command, Shipment, State},
    values::Address,
};

pub use customer_keys::CustomerKeys;

mod customer_keys;

pub fn function(app: &AppContext) -> Result<Handler, ConfigError> {
    with(app, SandboxCarrier)
}

/// Builds the function with another carrier.
pub fn with(app: &AppContext, carrier: impl Carrier + 'static) -> Result<Handler, ConfigError> {
    step::function(
        app,
        ArrangeShipment {
            orders: app.repository()?,
            shipments: app.repository()?,
            customers: app.keyring("CUSTOMER_KEYS_TABLE", "PERSONAL_DATA_KEY")?,
            carrier,
        },
    )
}

/// The step on any store.
pub struct ArrangeShipment<S, K, C> {
    pub orders: Repository<Order, S>,
    pub shipments: Repository<Shipment, S>,
    pub customers: K,
    pub carrier: C,
}

/// Without the customer's key there is no address to ship to.
const FORGOTTEN: &str = "the customer's personal data was erased";

impl<S, K, C> ArrangeShipment<S, K, C>
where
    S: EventStore + Clone,
    K: CustomerKeys,
    C: Carrier,
{
    /// Returns the address of the order; `None` after its erasure.
    async fn address(&self, due: &DueStep<Fulfilment>) -> Result<Option<Address>, StepFailure> {
        let order_id = due.input().order_id;
        let order = self.orders.load(&Order::stream(&order_id)).await?;
        let Some(placed) = order.state.placed() else {
            return Err(StepFailure::transient(format!(
                "order {order_id} not found"
            )));
        };
        let context = personal::ship_to(&placed.customer_id, &order.stream);
        let to = self.customers.open(&context, &placed.ship_to).await;
        to.map_err(StepFailure::transient)
    }

    /// Cancels a label that a request before the erasure may have obtained without a response.
    async fn cancel_forgotten(&self, due: &DueStep<Fulfilment>) -> Result<(), StepFailure> {
        let key = due.idempotency_key();
        let undo = format!("{key}/forgotten");
        let cancelled = provider::call(&undo, CALL_LIMITS, |call| self.carrier.cancel(call, key));
        cancelled.await.map_err(|error| match error {
            ProviderError::Permanent(reason) => StepFailure::transient(reason),
            error => error.into(),
        })
    }
}

impl<S, K, C> StepHandler<Fulfilment> for ArrangeShipment<S, K, C>
where
    S: EventStore + Clone + 'static,
    K: CustomerKeys + 'static,
    C: Carrier + 'static,
{
    const STEP: Step = Step::ArrangeShipment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let stream = Shipment::stream(&due.input().order_id);
        let record = |command| Enlisted::new(&self.shipments, &stream, command);
        let answer = if let Some(to) = self.address(due).await? {
            due.ask(CALL_LIMITS, |call| self.carrier.arrange(call, &to))
                .await
        } else {
            self.cancel_forgotten(due).await?;
            Err(ProviderError::Permanent(FORGOTTEN.to_owned()))
        };
        match answer {
            Ok(label) => {
                let detail = format!("{} {}", label.carrier, label.tracking_number);
                let arranged = record(Command::RecordArrangement(label));
                Ok(StepOutcome::done([arranged]).with_detail(detail))
            }
            Err(ProviderError::Permanent(reason)) => {
                let refused = Command::RecordRefusal {
                    reason: reason.clone(),
                };
                Ok(StepOutcome::failed(reason, [record(refused)]))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, StepFailure> {
        let stream = Shipment::stream(&due.input().order_id);
        match self.shipments.load(&stream).await?.state {
            // Without a record the response may have been lost, or the carrier may still process
            // the request.
            State::None | State::Arranged(_) => {
                let arranged_with = due.execution_key();
                due.ask(CALL_LIMITS, |call| {
                    self.carrier.cancel(call, &arranged_with)
                })
                .await?;
            }
            State::Refused | State::Cancelled => {}
        }
        let record = Enlisted::new(&self.shipments, &stream, Command::RecordCancellation);
        Ok(StepOutcome::done([record]))
    }
}

#[cfg(test)]
mod tests;
