//! One row per order, from three streams: the order's, its fulfilment's and its shipment's.
//!
//! Events of several streams arrive in any order. A row can therefore combine an order with an
//! earlier or later state of its fulfilment. [`OrderView::is_torn`] detects that, and the query
//! then folds the [`streams`] themselves with [`of_histories`].

use cairn::{
    RecordedEvent, StreamId, Timestamp,
    causality::History,
    event::CodecError,
    read_model::{Change, FoldError, ReadModel, Row, RowKey, fold},
    saga::{Action, Definition},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    fulfilment::{self, Due, Fulfilment, Step},
    order, shipment,
    values::{Lines, Money, OrderId},
};

#[derive(Clone, Copy, Debug)]
pub struct Orders;

/// The version gate of the order's own stream.
pub const ORDER_GATE: &str = "orderVersion";

impl ReadModel for Orders {
    const NAME: &'static str = "orders";
    const KEY: &'static str = "orderId";

    fn row_key(stream: &StreamId) -> Option<RowKey<'_>> {
        let gate = match stream.category() {
            "order" => ORDER_GATE,
            "fulfilment" => "fulfilmentVersion",
            "shipment" => "shipmentVersion",
            _ => return None,
        };
        Some(RowKey {
            key: stream.key(),
            gate,
        })
    }

    fn streams(key: &str) -> Vec<StreamId> {
        let categories = ["order", "fulfilment", "shipment"].into_iter();
        categories
            .filter_map(|category| StreamId::new(category, key).ok())
            .collect()
    }

    fn changes(event: &RecordedEvent) -> Result<Vec<Change>, CodecError> {
        Ok(match event.stream.category() {
            "order" => of_order(&event.decode::<order::Event>()?, event.at),
            "fulfilment" => of_fulfilment(&event.decode::<fulfilment::Event>()?, event),
            "shipment" => of_shipment(&event.decode::<shipment::Event>()?),
            _ => vec![],
        })
    }
}

fn of_order(event: &order::Event, at: Timestamp) -> Vec<Change> {
    let updated = |status: &str| {
        vec![
            Change::set("status", status),
            Change::set("updatedAt", at.to_string()),
        ]
    };
    match event {
        order::Event::Placed(placed) => {
            let mut changes = updated("placed");
            changes.extend([
                Change::set("placedAt", at.to_string()),
                Change::set("customerId", placed.customer_id.as_str()),
                Change::set("lines", json!(placed.lines)),
                Change::set("total", json!(placed.total)),
            ]);
            changes
        }
        order::Event::Confirmed { .. } => updated("confirmed"),
        order::Event::Shipped { .. } => updated("shipped"),
        order::Event::Cancelled { reason, .. } => {
            let mut changes = updated("cancelled");
            let cancellation = json!({ "reason": reason, "at": at });
            changes.push(Change::set("cancellation", cancellation));
            changes
        }
    }
}

fn of_fulfilment(event: &fulfilment::Event, recorded: &RecordedEvent) -> Vec<Change> {
    let status = |status: &str| Change::set("fulfilment.status", status);
    let outcome = |step: Step, outcome: &str, detail: Option<&str>| {
        let mut entry = json!({ "outcome": outcome, "at": recorded.at });
        if let (Some(detail), Value::Object(entry)) = (detail, &mut entry) {
            entry.insert("detail".to_owned(), detail.into());
        }
        Change::set(format!("fulfilment.steps.{}", step.name()), entry)
    };
    let unwinding = |next: &Option<Due>| {
        next.filter(|next| next.action == Action::Compensate)
            .map(|_| status("compensating"))
    };
    let begun = |status: &str| Change::set("fulfilment", json!({ "status": status, "steps": {} }));

    match event {
        fulfilment::Event::Started { .. } => vec![begun("running")],
        fulfilment::Event::StepCompleted { step, detail, .. } => {
            vec![outcome(*step, "completed", detail.as_deref())]
        }
        fulfilment::Event::StepFailed { step, reason, next } => {
            [outcome(*step, "failed", Some(reason))]
                .into_iter()
                .chain(unwinding(next))
                .collect()
        }
        fulfilment::Event::StepCompensated { step, .. } => {
            vec![outcome(*step, "compensated", None)]
        }
        fulfilment::Event::CompensationFailed { step, reason } => {
            vec![outcome(*step, "compensation-failed", Some(reason))]
        }
        fulfilment::Event::StepRetried { .. } => vec![],
        fulfilment::Event::StepAbandoned { .. }
        | fulfilment::Event::Resumed { .. }
        | fulfilment::Event::CancelRequested { .. } => vec![status("compensating")],
        fulfilment::Event::Completed {} => vec![status("completed")],
        // If the order is cancelled before its fulfilment starts, this is the only event.
        fulfilment::Event::Aborted { .. } if recorded.version == 1 => vec![begun("aborted")],
        fulfilment::Event::Aborted { .. } => vec![status("aborted")],
        fulfilment::Event::Stuck { .. } => vec![status("stuck")],
    }
}

fn of_shipment(event: &shipment::Event) -> Vec<Change> {
    match event {
        shipment::Event::Arranged(label) => vec![Change::set("shipment", json!(label))],
        shipment::Event::Refused { .. } => vec![],
        shipment::Event::Cancelled(_) => vec![Change::set("shipment", Value::Null)],
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OrderStatus {
    Placed,
    Confirmed,
    Shipped,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FulfilmentStatus {
    Running,
    Completed,
    Compensating,
    Aborted,
    Stuck,
}

#[derive(Debug, Serialize)]
struct FulfilmentView {
    status: FulfilmentStatus,
    steps: Vec<StepView>,
}

impl FulfilmentView {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Completed,
    Failed,
    Compensated,
    CompensationFailed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StepOutcome {
    outcome: Outcome,
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cancellation {
    reason: String,
    at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredOrder {
    order_id: String,
    customer_id: String,
    status: OrderStatus,
    lines: Lines,
    total: Money,
    placed_at: Timestamp,
    updated_at: Timestamp,
    order_version: u64,
    #[serde(default)]
    fulfilment: StoredFulfilment,
    shipment: Option<shipment::Label>,
    cancellation: Option<Cancellation>,
}

#[derive(Deserialize)]
struct StoredFulfilment {
    status: FulfilmentStatus,
    steps: Map<String, Value>,
}

/// A fulfilment without events is about to start.
impl Default for StoredFulfilment {
    fn default() -> Self {
        Self {
            status: FulfilmentStatus::Running,
            steps: Map::new(),
        }
    }
}

/// Returns the row as the API shows it, or `None` if it has no event of the order itself.
pub fn render(row: &Row) -> Result<Option<OrderView>, serde_json::Error> {
    if !row.contains_key(ORDER_GATE) {
        return Ok(None);
    }
    let stored: StoredOrder = serde_json::from_value(Value::Object(row.clone()))?;
    let mut steps = vec![];
    for step in Fulfilment::STEPS {
        if let Some(outcome) = stored.fulfilment.steps.get(step.name()) {
            steps.push(StepView {
                step: *step,
                outcome: serde_json::from_value(outcome.clone())?,
            });
        }
    }
    let latest = steps.iter().map(|step| step.outcome.at).max();
    let mut fulfilment = FulfilmentView {
        status: stored.fulfilment.status,
        steps,
    };
    let is_whole = fulfilment.goes_with(stored.status)
        && fulfilment.goes_with_shipment(stored.shipment.is_some());
    fulfilment.status = fulfilment.shown_with(stored.status);
    Ok(Some(OrderView {
        order_id: stored.order_id,
        customer_id: stored.customer_id,
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
    let others = [order.order_stream(), order.shipment_stream()];
    (order.fulfilment_stream(), others)
}

/// Returns the row that results from these histories, or `None` without events.
pub fn of_histories(histories: &[History]) -> Result<Option<Row>, FoldError> {
    let commits = histories.iter().flatten();
    let events: Vec<_> = commits.flat_map(cairn::Commit::recorded).collect();
    fold::<Orders>(&events)
}
