//! The fulfilment saga: the order of the steps, here and nowhere else.
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
//! What is undone last is the order itself, so a cancelled order that its fulfilment cancelled
//! has nothing reserved and nothing charged.

use cairn::saga::Definition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    order::Placed,
    values::{CustomerId, Lines, Money, OrderId, PaymentToken},
};

/// The fulfilment of one order.
#[derive(Debug, Clone, PartialEq)]
pub struct Fulfilment;

/// The saga as a decider.
pub type Saga = cairn::saga::Saga<Fulfilment>;
/// Its events.
pub type Event = cairn::saga::Event<Fulfilment>;
/// Its commands.
pub type Command = cairn::saga::Command<Fulfilment>;
/// Its states.
pub type State = cairn::saga::State<Fulfilment>;
/// What is due in it.
pub type Due = cairn::saga::Due<Step>;

/// The steps.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Screens the order for fraud.
    ScreenOrder,
    /// Reserves the stock.
    ReserveStock,
    /// Has the payment authorized.
    AuthorizePayment,
    /// Gets a label from the carrier.
    ArrangeShipment,
    /// Takes the money.
    CapturePayment,
    /// Confirms the order.
    ConfirmOrder,
}

impl Step {
    /// The step as it is stored and stands in the rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScreenOrder => "screen-order",
            Self::ReserveStock => "reserve-stock",
            Self::AuthorizePayment => "authorize-payment",
            Self::ArrangeShipment => "arrange-shipment",
            Self::CapturePayment => "capture-payment",
            Self::ConfirmOrder => "confirm-order",
        }
    }
}

/// What the steps need to know of the order. Who it goes to is not in here: the one step that
/// needs the address reads it from the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The order.
    pub order_id: OrderId,
    /// Whose.
    pub customer_id: CustomerId,
    /// What.
    pub lines: Lines,
    /// How it is paid.
    pub payment_token: PaymentToken,
}

impl Input {
    /// What fulfilment needs of an order that was placed.
    pub fn new(order_id: OrderId, placed: &Placed) -> Self {
        Self {
            order_id,
            customer_id: placed.customer_id.clone(),
            lines: placed.lines.clone(),
            payment_token: placed.payment.token.clone(),
        }
    }

    /// What it costs.
    pub fn total(&self) -> Money {
        self.lines.total()
    }
}

/// The metric that counts fulfilments which ended the way that an event of this type says, or came to a halt.
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

    const CATEGORY: &'static str = "fulfilment";

    const STEPS: &'static [Step] = &[
        Step::ScreenOrder,
        Step::ReserveStock,
        Step::AuthorizePayment,
        Step::ArrangeShipment,
        Step::CapturePayment,
        Step::ConfirmOrder,
    ];

    /// With a step timeout of five minutes a step is asked for until 75 minutes have passed, and given up after 155.
    const RETRIES: u32 = 4;

    const EVENT_NAMES: &'static [(&'static str, &'static str)] = &[
        ("Started", "FulfilmentStarted"),
        ("Resumed", "FulfilmentResumed"),
        ("CancellationNoted", "FulfilmentCancellationNoted"),
        ("Completed", "FulfilmentCompleted"),
        ("Aborted", "FulfilmentAborted"),
        ("Stuck", "FulfilmentStuck"),
    ];

    fn needs_compensation(step: Step) -> bool {
        match step {
            Step::ScreenOrder
            | Step::ReserveStock
            | Step::AuthorizePayment
            | Step::ArrangeShipment
            | Step::CapturePayment
            | Step::ConfirmOrder => true,
        }
    }
}
