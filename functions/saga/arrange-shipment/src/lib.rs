//! Gets a label for an order from the carrier; its compensation calls the shipment off.

use cairn::{
    dynamodb::Repository,
    lambda::{
        ConfigError, Environment, Function, FunctionError,
        step::{self, Effect},
    },
    step::{DueStep, Enlisted, Plan},
};
use orders::{
    fulfilment::{Fulfilment, Step},
    order::Order,
    providers::{Carrier, SandboxCarrier},
    shipment::{Command, Shipment, State},
};

/// The function. It needs `EVENTS_TABLE`.
///
/// # Errors
/// When a setting is missing.
pub fn function(environment: &Environment) -> Result<Function, ConfigError> {
    with(environment, SandboxCarrier)
}

/// The function with a carrier of the caller's.
///
/// # Errors
/// When a setting is missing.
pub fn with(
    environment: &Environment,
    carrier: impl Carrier + 'static,
) -> Result<Function, ConfigError> {
    step::function(
        environment,
        ArrangeShipment {
            orders: environment.repository()?,
            shipments: environment.repository()?,
            carrier,
        },
    )
}

struct ArrangeShipment<C> {
    orders: Repository<Order>,
    shipments: Repository<Shipment>,
    carrier: C,
}

impl<C: Carrier + 'static> Effect<Fulfilment> for ArrangeShipment<C> {
    const STEP: Step = Step::ArrangeShipment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let (key, order_id) = (due.idempotency_key(), due.input().order_id);
        let order = self
            .orders
            .load(&order_id.order_stream())
            .await
            .map_err(FunctionError::new)?;
        let Some(placed) = order.state.placed() else {
            return Err(FunctionError::new(format!(
                "the order {order_id} is not in the store"
            )));
        };
        let answer = step::ask(&key, |call| self.carrier.arrange(call, &placed.ship_to));
        let stream = order_id.shipment_stream();
        let record = |command| Enlisted::new(&self.shipments, &stream, command);
        Ok(match answer.await? {
            Ok(label) => {
                let detail = format!("{} {}", label.carrier, label.tracking_number);
                Plan::done(vec![record(Command::RecordArrangement(label))]).with_detail(detail)
            }
            Err(reason) => {
                let refusal = Command::RecordRefusal {
                    reason: reason.clone(),
                };
                Plan::failed(reason, vec![record(refusal)])
            }
        })
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<Plan, FunctionError> {
        let (key, stream) = (
            due.idempotency_key(),
            due.input().order_id.shipment_stream(),
        );
        let shipment = self
            .shipments
            .load(&stream)
            .await
            .map_err(FunctionError::new)?;
        match shipment.state {
            // Without a record the answer may have been lost, or the carrier may still be about to act.
            State::None | State::Arranged(_) => {
                let asked_with = due.execution_key();
                let cancelled = step::ask(&key, |call| self.carrier.cancel(call, &asked_with));
                if let Err(reason) = cancelled.await? {
                    return Ok(Plan::failed(reason, vec![]));
                }
            }
            State::Refused | State::Cancelled => {}
        }
        Ok(Plan::done(vec![Enlisted::new(
            &self.shipments,
            &stream,
            Command::RecordCancellation,
        )]))
    }
}
