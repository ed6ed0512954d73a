//! One row per order, from two streams: the order's and its shipment's. It is written when the status
//! of the order changes, or its shipment.
//!
//! The steps of the fulfilment are in no row: a query folds them from the fulfilment's stream.
//! Events of several streams arrive in any order, so a query can combine an order with an earlier
//! or later state of its fulfilment. [`OrderView::is_torn`] detects that, and the query then folds
//! all [`streams`] with [`of_histories`].

use std::collections::BTreeMap;

use cairn::{
    Aggregate, Commit, RecordedEvent, StreamId, Timestamp,
    error::BoxError,
    event::CodecError,
    read_model::{Change, Project, Row, fold},
    saga::{Action, Step as _},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    fulfilment::{self, Saga, Step},
    order::{self, Order},
    shipment::{self, Shipment},
    values::{CustomerId, Lines, Money, OrderId},
};

/// An order as its row stores it.
#[derive(Debug, cairn::Row)]
#[row(name = "orders", table = "ORDERS_TABLE")]
pub struct Orders {
    #[row(key)]
    order_id: String,
    #[row(gate = Order)]
    order_version: u64,
    #[row(gate = Shipment)]
    shipment_version: u64,
    customer_id: CustomerId,
    status: OrderStatus,
    lines: Lines,
    total: Money,
    #[schemars(with = "String")]
    placed_at: Timestamp,
    #[schemars(with = "String")]
    updated_at: Timestamp,
    shipment: Option<shipment::Label>,
    cancellation: Option<Cancellation>,
}

impl Project<Order> for Orders {
    fn project(event: &order::Event, recorded: &RecordedEvent) -> Vec<Change> {
        let at = recorded.at;
        let (status, others) = match event {
            order::Event::Placed(placed) => {
                let placed = vec![
                    Self::placed_at().set(at),
                    Self::customer_id().set(&placed.customer_id),
                    Self::lines().set(&placed.lines),
                    Self::total().set(placed.total),
                ];
                (OrderStatus::Placed, placed)
            }
            order::Event::Confirmed { .. } => (OrderStatus::Confirmed, vec![]),
            order::Event::Shipped { .. } => (OrderStatus::Shipped, vec![]),
            order::Event::Cancelled { reason, .. } => {
                let reason = reason.to_string();
                let cancellation = Some(Cancellation { reason, at });
                let cancelled = vec![Self::cancellation().set(cancellation)];
                (OrderStatus::Cancelled, cancelled)
            }
        };
        let updated = [Self::status().set(status), Self::updated_at().set(at)];
        updated.into_iter().chain(others).collect()
    }
}

impl Project<Shipment> for Orders {
    fn project(event: &shipment::Event, _: &RecordedEvent) -> Vec<Change> {
        match event {
            shipment::Event::Arranged(label) => vec![Self::shipment().set(Some(label.clone()))],
            shipment::Event::Refused { .. } => vec![],
            shipment::Event::Cancelled(_) => vec![Self::shipment().set(None)],
        }
    }
}

/// An order as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderView {
    pub order_id: String,
    pub customer_id: String,
    status: OrderStatus,
    lines: Lines,
    total: Money,
    placed_at: Timestamp,
    updated_at: Timestamp,
    /// The version of the order's own stream.
    pub version: u64,
    fulfilment: FulfilmentView,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipment: Option<shipment::Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancellation: Option<Cancellation>,
    #[serde(skip)]
    is_torn: bool,
}

impl OrderView {
    /// Returns whether the order, its fulfilment and its shipment are from different moments.
    pub fn is_torn(&self) -> bool {
        self.is_torn
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum OrderStatus {
    Placed,
    Confirmed,
    Shipped,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum FulfilmentStatus {
    Running,
    Completed,
    Compensating,
    Aborted,
    Stuck,
}

/// The state of an order's fulfilment as the API shows it.
#[derive(Debug, Serialize)]
struct FulfilmentView {
    status: FulfilmentStatus,
    steps: Vec<StepView>,
}

impl FulfilmentView {
    /// Folds the history of a fulfilment. A fulfilment without events is about to start.
    fn fold(history: &[Commit]) -> Result<Self, CodecError> {
        let (mut status, mut outcomes) = (FulfilmentStatus::Running, BTreeMap::new());
        for recorded in history.iter().flat_map(Commit::recorded) {
            let at = recorded.at;
            let mut note = |step: Step, outcome, detail| {
                let outcome = StepOutcome {
                    outcome,
                    at,
                    detail,
                };
                outcomes.insert(step, outcome);
            };
            match recorded.decode()? {
                fulfilment::Event::Started { .. } | fulfilment::Event::StepRetried { .. } => {}
                fulfilment::Event::StepCompleted { step, detail, .. } => {
                    note(step, Outcome::Completed, detail);
                }
                fulfilment::Event::StepFailed { step, reason, next } => {
                    note(step, Outcome::Failed, Some(reason));
                    if next.is_some_and(|next| next.action == Action::Compensate) {
                        status = FulfilmentStatus::Compensating;
                    }
                }
                fulfilment::Event::StepCompensated { step, .. } => {
                    note(step, Outcome::Compensated, None);
                }
                fulfilment::Event::CompensationFailed { step, reason } => {
                    note(step, Outcome::CompensationFailed, Some(reason));
                }
                fulfilment::Event::StepAbandoned { .. }
                | fulfilment::Event::Resumed { .. }
                | fulfilment::Event::CancelRequested { .. } => {
                    status = FulfilmentStatus::Compensating;
                }
                fulfilment::Event::Completed {} => status = FulfilmentStatus::Completed,
                fulfilment::Event::Aborted { .. } => status = FulfilmentStatus::Aborted,
                fulfilment::Event::Stuck { .. } => status = FulfilmentStatus::Stuck,
            }
        }
        let steps = Step::STEPS.iter().filter_map(|step| {
            let outcome = outcomes.remove(step)?;
            let step = *step;
            Some(StepView { step, outcome })
        });
        Ok(Self {
            status,
            steps: steps.collect(),
        })
    }

    fn outcome(&self, step: Step) -> Option<Outcome> {
        let step = self.steps.iter().find(|view| view.step == step);
        step.map(|view| view.outcome.outcome)
    }

    /// Returns whether an order of this status had this fulfilment at any moment.
    ///
    /// The last step confirms the order. A cancellation is recorded on the order before its
    /// fulfilment ends in any other way. So the fulfilment of a placed order compensates only after
    /// a failed step.
    fn goes_with(&self, order: OrderStatus) -> bool {
        match (order, self.status) {
            (OrderStatus::Placed, FulfilmentStatus::Running)
            | (OrderStatus::Confirmed | OrderStatus::Shipped, FulfilmentStatus::Completed)
            | (
                OrderStatus::Cancelled,
                FulfilmentStatus::Running
                | FulfilmentStatus::Completed
                | FulfilmentStatus::Compensating
                | FulfilmentStatus::Aborted
                | FulfilmentStatus::Stuck,
            ) => true,
            (OrderStatus::Placed, FulfilmentStatus::Compensating | FulfilmentStatus::Stuck) => {
                let mut outcomes = self.steps.iter().map(|step| step.outcome.outcome);
                outcomes.any(|outcome| outcome == Outcome::Failed)
            }
            (OrderStatus::Placed, FulfilmentStatus::Completed | FulfilmentStatus::Aborted)
            | (
                OrderStatus::Confirmed | OrderStatus::Shipped,
                FulfilmentStatus::Running
                | FulfilmentStatus::Compensating
                | FulfilmentStatus::Aborted
                | FulfilmentStatus::Stuck,
            ) => false,
        }
    }

    /// Returns whether the shipment, or its absence, matches the step: one transaction records
    /// both.
    fn goes_with_shipment(&self, is_there: bool) -> bool {
        match self.outcome(Step::ArrangeShipment) {
            Some(Outcome::Completed) => is_there,
            Some(Outcome::CompensationFailed) => true,
            Some(Outcome::Failed | Outcome::Compensated) | None => !is_there,
        }
    }

    /// Returns the status to show, which never contradicts the order's.
    fn shown_with(&self, order: OrderStatus) -> FulfilmentStatus {
        match (order, self.status) {
            // A cancelled order is compensated, also before its fulfilment records the
            // cancellation.
            (OrderStatus::Cancelled, FulfilmentStatus::Running | FulfilmentStatus::Completed) => {
                FulfilmentStatus::Compensating
            }
            (
                OrderStatus::Confirmed | OrderStatus::Shipped,
                FulfilmentStatus::Running
                | FulfilmentStatus::Completed
                | FulfilmentStatus::Compensating
                | FulfilmentStatus::Aborted
                | FulfilmentStatus::Stuck,
            ) => FulfilmentStatus::Completed,
            // An operator abandoned the step that cancels the order: it needs manual action.
            (OrderStatus::Placed, FulfilmentStatus::Aborted) => FulfilmentStatus::Stuck,
            (OrderStatus::Placed, FulfilmentStatus::Completed) => FulfilmentStatus::Running,
            (
                OrderStatus::Placed | OrderStatus::Cancelled,
                status @ (FulfilmentStatus::Running
                | FulfilmentStatus::Compensating
                | FulfilmentStatus::Aborted
                | FulfilmentStatus::Stuck),
            ) => status,
        }
    }
}

#[derive(Debug, Serialize)]
struct StepView {
    step: Step,
    #[serde(flatten)]
    outcome: StepOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Completed,
    Failed,
    Compensated,
    CompensationFailed,
}

#[derive(Debug, Serialize)]
struct StepOutcome {
    outcome: Outcome,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Cancellation {
    reason: String,
    #[schemars(with = "String")]
    at: Timestamp,
}

/// Returns the row as the API shows it with the history of its fulfilment, or `None` if it has no
/// event of the order itself.
pub fn render(row: &Row, fulfilment: &[Commit]) -> Result<Option<OrderView>, BoxError> {
    rendered(row, || FulfilmentView::fold(fulfilment))
}

/// Returns the row as the API shows it if its fulfilment cannot be read: without steps and, unless
/// the order is confirmed, as stuck, because it needs manual action.
pub fn render_without_fulfilment(row: &Row) -> Result<Option<OrderView>, BoxError> {
    let unreadable = FulfilmentView {
        status: FulfilmentStatus::Stuck,
        steps: vec![],
    };
    rendered(row, || Ok(unreadable))
}

fn rendered(
    row: &Row,
    fulfilment: impl FnOnce() -> Result<FulfilmentView, CodecError>,
) -> Result<Option<OrderView>, BoxError> {
    if !row.contains_key("orderVersion") {
        return Ok(None);
    }
    let stored = Orders::try_from(row.clone())?;
    let mut fulfilment = fulfilment()?;
    let latest = fulfilment.steps.iter().map(|step| step.outcome.at).max();
    let is_whole = fulfilment.goes_with(stored.status)
        && fulfilment.goes_with_shipment(stored.shipment.is_some());
    fulfilment.status = fulfilment.shown_with(stored.status);
    Ok(Some(OrderView {
        order_id: stored.order_id,
        customer_id: stored.customer_id.to_string(),
        status: stored.status,
        lines: stored.lines,
        total: stored.total,
        placed_at: stored.placed_at,
        updated_at: latest.map_or(stored.updated_at, |at| at.max(stored.updated_at)),
        version: stored.order_version,
        fulfilment,
        shipment: stored.shipment,
        cancellation: stored.cancellation,
        is_torn: !is_whole,
    }))
}

/// Returns the streams of an order's view: its fulfilment's, then those that the fulfilment writes
/// to.
pub fn streams(order: OrderId) -> (StreamId, [StreamId; 2]) {
    let others = [Order::stream(&order), Shipment::stream(&order)];
    (Saga::stream(&order), others)
}

/// Returns the order that results from the histories of its [`streams`], the fulfilment's first;
/// `None` without an event of the order itself.
pub fn of_histories(histories: &[Vec<Commit>]) -> Result<Option<OrderView>, BoxError> {
    let Some((fulfilment, others)) = histories.split_first() else {
        return Ok(None);
    };
    let commits = others.iter().flatten();
    let events: Vec<_> = commits.flat_map(Commit::recorded).collect();
    match fold::<Orders>(&events)? {
        Some(row) => render(&row, fulfilment),
        None => Ok(None),
    }
}
