//! The fulfilment saga. Only this module defines the order of the steps.
//!
//! | step | does | undoes |
//! |---|---|---|
//! | `screen-order` | screens for fraud | cancels the order |
//! | `reserve-stock` | reserves every SKU | releases them |
//! | `authorize-payment` | authorizes the total | voids it |
//! | `arrange-shipment` | gets a label | calls it off |
//! | `capture-payment` | takes the money | refunds it |
//! | `confirm-order` | confirms the order, allocates its stock | takes the stock back, reserved |
//!
//! Compensation ends with the order itself. An order that its fulfilment cancelled therefore has no
//! reservation and no charge.

use cairn::{
    StreamId,
    saga::{Definition, Signal, Triggered},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    order::{self, Canceller, Order, Placed},
    values::{CustomerId, Lines, Money, OrderId, PaymentToken},
};

/// The fulfilment of one order.
#[derive(Debug, Clone, PartialEq)]
pub struct Fulfilment;

pub type Saga = cairn::saga::Saga<Fulfilment>;
pub type Event = cairn::saga::Event<Fulfilment>;
pub type Command = cairn::saga::Command<Fulfilment>;
pub type State = cairn::saga::State<Fulfilment>;
pub type Phase = cairn::saga::Phase<Step>;
/// A pending step.
pub type Due = cairn::saga::Due<Step>;

/// A step of the fulfilment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, cairn::Step)]
pub enum Step {
    /// Screens the order for fraud.
    ScreenOrder,
    /// Reserves the stock.
    ReserveStock,
    /// Authorizes the payment.
    AuthorizePayment,
    /// Arranges the shipment with the carrier.
    ArrangeShipment,
    /// Captures the payment.
    CapturePayment,
    /// Confirms the order and allocates its stock.
    ConfirmOrder,
}

/// The data of the order that the steps use. The step that needs the delivery address reads it from
/// the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The order to fulfil.
    pub order_id: OrderId,
    /// The customer who placed the order.
    pub customer_id: CustomerId,
    /// The lines of the order.
    pub lines: Lines,
    /// The payment provider's token for the means of payment.
    pub payment_token: PaymentToken,
}

impl Input {
    /// Returns the data that the steps use of an order.
    pub fn new(order_id: OrderId, placed: &Placed) -> Self {
        Self {
            order_id,
            customer_id: placed.customer_id.clone(),
            lines: placed.lines.clone(),
            payment_token: placed.payment.token.clone(),
        }
    }

    /// Returns the total of the order.
    pub fn total(&self) -> Money {
        self.lines.total()
    }
}

/// Returns the metric that counts fulfilments which ended, or got stuck, with an event of this
/// type.
pub fn outcome(event_type: &str) -> Option<&'static str> {
    match event_type {
        "FulfilmentCompleted" => Some("FulfilmentsCompleted"),
        "FulfilmentAborted" => Some("FulfilmentsAborted"),
        "FulfilmentStuck" => Some("FulfilmentsStuck"),
        _ => None,
    }
}

impl Definition for Fulfilment {
    type Step = Step;
    type Input = Input;
    type Id = OrderId;

    const CATEGORY: &'static str = "fulfilment";

    /// With a step timeout of five minutes, the last retry is after 75 minutes and the step is
    /// abandoned after 155.
    const RETRIES: u32 = 4;

    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[
        ("Started", "FulfilmentStarted"),
        ("Resumed", "FulfilmentResumed"),
        ("CancellationNoted", "FulfilmentCancellationNoted"),
        ("Completed", "FulfilmentCompleted"),
        ("Aborted", "FulfilmentAborted"),
        ("Stuck", "FulfilmentStuck"),
    ];
}

impl Triggered for Fulfilment {
    type Source = Order;

    const METRICS: &'static str = "Fulfilments";

    fn signal(order: &StreamId, event: &order::Event) -> Option<Signal<Input>> {
        match event {
            order::Event::Placed(placed) => {
                let order_id = OrderId::from_stream(order).ok()?;
                Some(Signal::Start(Input::new(order_id, placed)))
            }
            order::Event::Cancelled { reason, by, .. } => Some(Signal::Cancel {
                reason: reason.as_str().to_owned(),
                by_saga: match by {
                    Canceller::Fulfilment => true,
                    Canceller::Customer | Canceller::Operator | Canceller::Unknown => false,
                },
            }),
            order::Event::Confirmed { .. } | order::Event::Shipped { .. } => None,
        }
    }
}
