//! Requests a shipping label from the carrier; the compensation cancels it.

use cairn::step::{DueStep, Enlisted, StepOutcome};
use cairn_aws::{
    dynamodb::{Keyring, Repository},
    lambda::{
        AppContext, ConfigError, FunctionError, Handler,
        step::{self, StepHandler},
    },
};
use orders::{
    fulfilment::{Fulfilment, Step},
    order::Order,
    personal,
    providers::{Carrier, SandboxCarrier},
    shipment::{Command, Label, Shipment, State},
    values::Address,
};

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

struct ArrangeShipment<C> {
    orders: Repository<Order>,
    shipments: Repository<Shipment>,
    customers: Keyring,
    carrier: C,
}

/// Without the customer's key there is no address to ship to.
const FORGOTTEN: &str = "the customer's personal data was erased";

impl<C: Carrier + 'static> ArrangeShipment<C> {
    /// Returns the carrier's label or the reason for its refusal.
    async fn label(
        &self,
        key: &str,
        to: Option<&Address>,
    ) -> Result<Result<Label, String>, FunctionError> {
        if let Some(to) = to {
            return step::ask(key, |call| self.carrier.arrange(call, to)).await;
        }
        // A request before the erasure may have reached the carrier without a response, so cancel
        // it.
        let undo = format!("{key}/forgotten");
        let undone = step::ask(&undo, |call| self.carrier.cancel(call, key)).await?;
        undone.map_err(FunctionError::new)?;
        Ok(Err(FORGOTTEN.to_owned()))
    }
}

impl<C: Carrier + 'static> StepHandler<Fulfilment> for ArrangeShipment<C> {
    const STEP: Step = Step::ArrangeShipment;

    async fn execute(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let (key, order_id) = (due.idempotency_key(), due.input().order_id);
        let order = self.orders.load(&order_id.order_stream()).await?;
        let Some(placed) = order.state.placed() else {
            return Err(FunctionError::new(format!("order {order_id} not found")));
        };
        let context = personal::ship_to(&placed.customer_id, &order.stream);
        let to = self.customers.open(&context, &placed.ship_to).await?;
        let answer = self.label(&key, to.as_ref()).await?;
        let stream = order_id.shipment_stream();
        let record = |command| Enlisted::new(&self.shipments, &stream, command);
        Ok(match answer {
            Ok(label) => {
                let detail = format!("{} {}", label.carrier, label.tracking_number);
                StepOutcome::done(vec![record(Command::RecordArrangement(label))])
                    .with_detail(detail)
            }
            Err(reason) => {
                let refusal = Command::RecordRefusal {
                    reason: reason.clone(),
                };
                StepOutcome::failed(reason, vec![record(refusal)])
            }
        })
    }

    async fn compensate(&self, due: &DueStep<Fulfilment>) -> Result<StepOutcome, FunctionError> {
        let (key, stream) = (
            due.idempotency_key(),
            due.input().order_id.shipment_stream(),
        );
        let shipment = self.shipments.load(&stream).await?;
        match shipment.state {
            // Without a record the response may have been lost, or the carrier may still process
            // the request.
            State::None | State::Arranged(_) => {
                let asked_with = due.execution_key();
                let cancelled = step::ask(&key, |call| self.carrier.cancel(call, &asked_with));
                if let Err(reason) = cancelled.await? {
                    return Ok(StepOutcome::failed(reason, vec![]));
                }
            }
            State::Refused | State::Cancelled => {}
        }
        Ok(StepOutcome::done(vec![Enlisted::new(
            &self.shipments,
            &stream,
            Command::RecordCancellation,
        )]))
    }
}
