//! A view shows an order at one moment, whatever version of each of its streams was read.

use cairn::{
    Aggregate, Commit, Decider, StreamId, Timestamp,
    causality::{consistent, in_causal_order},
    event::Event as _,
    saga::{self, Action},
};
use orders::{
    fulfilment::{self, Saga, Step},
    order::{self, Canceller, Order},
    read_models::orders::{OrderView, of_histories, streams},
    shipment::{self, Shipment},
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use crate::sample_order::{input, label, order_id, placed, text};

/// A change of an order, if the order allows it.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The pending step ends.
    Step {
        succeeds: bool,
    },
    /// The pending step has no outcome in any attempt.
    GiveUp,
    Cancel,
    /// The fulfilment records the customer's cancellation.
    Tell,
    Ship,
    /// An operator resumes a stuck saga.
    Resume,
    /// An operator abandons a stuck step.
    Abandon,
}

/// The streams of an order: its fulfilment's, its own and its shipment's.
#[derive(Clone, Default)]
struct World {
    histories: [Vec<Commit>; 3],
    sagas: Vec<fulfilment::Event>,
    orders: Vec<order::Event>,
    shipments: Vec<shipment::Event>,
    cancelled_by: Option<String>,
}

const SAGA: usize = 0;
const ORDER: usize = 1;
const SHIPMENT: usize = 2;

impl World {
    fn placed(clock: i64) -> Self {
        let mut world = Self::default();
        let place = order::Command::Place(Box::new(placed()));
        let events = Order::decide(&Order::initial(), &place).unwrap();
        world.order(events, "place", None, clock);
        world
    }

    fn append(&mut self, index: usize, commit: Commit) {
        self.histories[index].push(commit);
    }

    fn commit(
        &self,
        index: usize,
        events: Vec<cairn::StoredEvent>,
        id: &str,
        cause: Option<&str>,
        clock: i64,
    ) -> Commit {
        let last = self.histories[index].last();
        let clock = Timestamp::from_millis(clock);
        let version = last.map_or(0, Commit::last_version) + 1;
        let at = last.map_or(clock, |last| last.at.max(clock));
        let mut commit = Commit::new(names()[index].clone(), version, id, at, events);
        commit.metadata.causation = cause.map(str::to_owned);
        commit
    }

    /// Appends to the order's own stream and returns the id of the first event.
    fn order(
        &mut self,
        events: Vec<order::Event>,
        id: &str,
        record: Option<&Commit>,
        clock: i64,
    ) -> Option<String> {
        if events.is_empty() {
            return None;
        }
        let stored = events.iter().map(|event| event.encode().unwrap()).collect();
        let cause = record.and_then(|record| record.metadata.causation.as_deref());
        let mut commit = self.commit(ORDER, stored, id, cause, clock);
        commit.enlisted = record.is_some();
        let first = format!("{}@{}", commit.stream, commit.version);
        self.append(ORDER, commit);
        self.orders.extend(events);
        Some(first)
    }

    fn shipment(&mut self, command: &shipment::Command, record: &Commit, clock: i64) {
        let state = Shipment::fold(&self.shipments);
        let events = Shipment::decide(&state, command).unwrap();
        if events.is_empty() {
            return;
        }
        let stored = events.iter().map(|event| event.encode().unwrap()).collect();
        let cause = record.metadata.causation.as_deref();
        let mut commit = self.commit(SHIPMENT, stored, &record.id, cause, clock);
        commit.enlisted = true;
        self.append(SHIPMENT, commit);
        self.shipments.extend(events);
    }

    fn saga(
        &mut self,
        events: Vec<fulfilment::Event>,
        id: &str,
        cause: Option<&str>,
        clock: i64,
    ) -> Commit {
        let stored = events.iter().map(|event| event.encode().unwrap()).collect();
        let commit = self.commit(SAGA, stored, id, cause, clock);
        self.append(SAGA, commit.clone());
        self.sagas.extend(events);
        commit
    }

    fn act(&mut self, act: Act, clock: i64) {
        let state = Saga::fold(&self.sagas);
        let order = Order::fold(&self.orders);
        match act {
            Act::Step { succeeds } => self.step(state, succeeds, clock),
            Act::GiveUp => {
                while let Some(due) = Saga::fold(&self.sagas).due() {
                    let retries = Saga::fold(&self.sagas).retries;
                    let retry = fulfilment::Command::Retry(due, retries);
                    let events = Saga::decide(&Saga::fold(&self.sagas), &retry).unwrap();
                    self.saga(events, &format!("retry/{due:?}/{retries}"), None, clock);
                    if Saga::fold(&self.sagas).due() != Some(due) {
                        break;
                    }
                }
            }
            Act::Cancel => {
                let (reason, by) = (text("changed my mind"), Canceller::Customer);
                let cancel = order::Command::Cancel { reason, by };
                let events = Order::decide(&order, &cancel).unwrap_or_default();
                if let Some(cancelled) = self.order(events, "cancel", None, clock) {
                    self.cancelled_by = Some(cancelled);
                }
            }
            Act::Tell => {
                if let Some(cause) = self.cancelled_by.take() {
                    let cancel = fulfilment::Command::Cancel("changed my mind".to_owned());
                    let events = Saga::decide(&state, &cancel).unwrap();
                    if !events.is_empty() {
                        self.saga(events, "tell", Some(&cause), clock);
                    }
                }
            }
            Act::Ship => {
                let events = Order::decide(&order, &order::Command::Ship).unwrap_or_default();
                self.order(events, "ship", None, clock);
            }
            Act::Resume => self.operate(&fulfilment::Command::Resume, clock),
            Act::Abandon => {
                let abandon = fulfilment::Command::Abandon("settled by hand".to_owned());
                self.operate(&abandon, clock);
            }
        }
    }

    fn operate(&mut self, command: &fulfilment::Command, clock: i64) {
        if let Ok(events) = Saga::decide(&Saga::fold(&self.sagas), command) {
            let id = format!("operator/{}", self.sagas.len());
            self.saga(events, &id, None, clock);
        }
    }

    /// Appends one transaction as the step functions write it.
    fn step(&mut self, mut state: fulfilment::State, succeeds: bool, clock: i64) {
        let mut events = vec![];
        if state.phase == saga::Phase::NotStarted {
            events = Saga::decide(&state, &fulfilment::Command::Start(input())).unwrap();
            state = events.iter().fold(state, Saga::evolve);
        }
        let Some(due) = state.due() else { return };
        let attempt = state.attempt();
        let order = Order::fold(&self.orders);
        let cancel = order::Command::Cancel {
            reason: text("it failed"),
            by: Canceller::Fulfilment,
        };
        let (orders, shipment, told) = match (due.step, due.action, succeeds) {
            (Step::ScreenOrder, Action::Execute, false)
            | (Step::ScreenOrder, Action::Compensate, true) => {
                let cancelled = Order::decide(&order, &cancel).unwrap();
                let told = match due.action {
                    Action::Execute => fulfilment::Command::Fail(due.step, "refused".to_owned()),
                    Action::Compensate => fulfilment::Command::Undone(due.step),
                };
                (cancelled, None, told)
            }
            (Step::ConfirmOrder, Action::Execute, _) => {
                match Order::decide(&order, &order::Command::Confirm) {
                    Ok(confirmed) => (
                        confirmed,
                        None,
                        fulfilment::Command::Complete(due.step, None),
                    ),
                    Err(refusal) => {
                        let told = fulfilment::Command::Fail(due.step, refusal.to_string());
                        (vec![], None, told)
                    }
                }
            }
            (step, action, succeeds) => {
                let shipment = match (step, action, succeeds) {
                    (Step::ArrangeShipment, Action::Execute, true) => {
                        Some(shipment::Command::RecordArrangement(label()))
                    }
                    (Step::ArrangeShipment, Action::Execute, false) => {
                        let reason = "refused".to_owned();
                        Some(shipment::Command::RecordRefusal { reason })
                    }
                    (Step::ArrangeShipment, Action::Compensate, true) => {
                        Some(shipment::Command::RecordCancellation)
                    }
                    _ => None,
                };
                let told = match (action, succeeds) {
                    (Action::Execute, true) => fulfilment::Command::Complete(step, None),
                    (Action::Execute, false) => {
                        fulfilment::Command::Fail(step, "refused".to_owned())
                    }
                    (Action::Compensate, true) => fulfilment::Command::Undone(step),
                    (Action::Compensate, false) => {
                        fulfilment::Command::UndoFailed(step, "refused".to_owned())
                    }
                };
                (vec![], shipment, told)
            }
        };
        events.extend(Saga::decide(&state, &told).unwrap());
        let cause = match self.histories[SAGA].last() {
            Some(last) => format!("{}@{}", last.stream, last.last_version()),
            None => format!("{}@1", Order::stream(&order_id())),
        };
        let record = self.saga(events, &format!("{due:?}/{attempt}"), Some(&cause), clock);
        self.order(orders, &record.id, Some(&record), clock);
        if let Some(command) = shipment {
            self.shipment(&command, &record, clock);
        }
    }

    /// Returns the versions of the streams.
    fn moment(&self) -> [usize; 3] {
        [SAGA, ORDER, SHIPMENT].map(|index| self.histories[index].len())
    }

    fn until(&self, lengths: [usize; 3]) -> Vec<Vec<Commit>> {
        let histories = self.histories.iter().zip(lengths);
        histories
            .map(|(history, length)| history[..length].to_vec())
            .collect()
    }
}

fn names() -> Vec<StreamId> {
    let (saga, others) = streams(order_id());
    [saga].into_iter().chain(others).collect()
}

/// Returns the streams after these changes, and their versions after each change.
fn life(acts: &[(Act, i64)]) -> (World, Vec<[usize; 3]>) {
    let mut world = World::placed(500);
    let mut moments = vec![[0; 3], world.moment()];
    for (act, clock) in acts {
        world.act(*act, *clock);
        moments.push(world.moment());
    }
    (world, moments)
}

fn act() -> impl Strategy<Value = (Act, i64)> {
    let acts = vec![
        Act::Step { succeeds: true },
        Act::Step { succeeds: true },
        Act::Step { succeeds: true },
        Act::Step { succeeds: true },
        Act::Step { succeeds: false },
        Act::GiveUp,
        Act::Cancel,
        Act::Tell,
        Act::Ship,
        Act::Resume,
        Act::Abandon,
    ];
    (select(acts), 0..1_000_i64)
}

/// Checks that a view does not contradict itself.
fn agrees(view: &OrderView) -> Result<(), TestCaseError> {
    let picture = serde_json::to_value(view).unwrap();
    let status = |value: &Value| value["status"].as_str().unwrap().to_owned();
    let (order, fulfilment) = (status(&picture), status(&picture["fulfilment"]));
    let fits: &[&str] = match order.as_str() {
        "placed" => &["running", "compensating", "stuck"],
        "confirmed" | "shipped" => &["completed"],
        "cancelled" => &["compensating", "aborted", "stuck"],
        other => panic!("{other}"),
    };
    prop_assert!(
        fits.contains(&fulfilment.as_str()),
        "{order} with {fulfilment}"
    );
    let steps = picture["fulfilment"]["steps"].as_array().unwrap();
    let completed = |step: &str| {
        let mut steps = steps.iter();
        steps.any(|one| one["step"] == step && one["outcome"] == "completed")
    };
    if !view.is_torn() {
        if fulfilment == "completed" {
            prop_assert_eq!(steps.len(), 6, "{}", picture);
            prop_assert!(completed("confirm-order"), "{}", picture);
        }
        if completed("arrange-shipment") {
            prop_assert!(picture["shipment"].is_object(), "{}", picture);
        }
    }
    prop_assert_eq!(picture.get("cancellation").is_some(), order == "cancelled");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Events of one stream arrive in order, events of several streams in any order. A row can
    /// therefore combine any versions.
    #[test]
    fn a_row_is_one_picture_or_known_not_to_be(acts in vec(act(), 0..24)) {
        let (world, moments) = life(&acts);
        for saga in 0..=world.histories[SAGA].len() {
            for order in 1..=world.histories[ORDER].len() {
                for shipment in 0..=world.histories[SHIPMENT].len() {
                    let view = of_histories(&world.until([saga, order, shipment])).unwrap();
                    agrees(&view.unwrap())?;
                }
            }
        }
        // For most moments a query needs only the row.
        for moment in moments.into_iter().skip(1) {
            let view = of_histories(&world.until(moment)).unwrap().unwrap();
            let is_odd = acts.iter().any(|(act, _)| {
                matches!(act, Act::GiveUp | Act::Abandon | Act::Cancel)
            });
            prop_assert!(is_odd || !view.is_torn(), "{view:?}");
        }
    }

    /// The saga's stream is read first, while the others grow.
    #[test]
    fn streams_that_are_read_one_after_another_are_one_picture(
        acts in vec(act(), 0..24),
        reads in (0..26_usize, 0..26_usize, 0..26_usize),
    ) {
        let (world, moments) = life(&acts);
        let mut reads = [reads.0, reads.1, reads.2].map(|read| read.min(moments.len() - 1));
        reads.sort_unstable();
        for [order, shipment] in [[1, 2], [2, 1]] {
            let lengths = [
                moments[reads[0]][SAGA],
                moments[reads[order]][ORDER],
                moments[reads[shipment]][SHIPMENT],
            ];
            let histories = consistent(&names(), world.until(lengths));
            check_moment(&histories)?;
        }
    }

    /// Each function has its own clock, which can be wrong.
    #[test]
    fn an_order_as_it_was_is_one_picture(acts in vec(act(), 0..24), time in 0..1_000_i64) {
        let (world, _) = life(&acts);
        let time = Timestamp::from_millis(time);
        let histories = world.histories.iter().map(|history| {
            history.iter().take_while(|commit| commit.at <= time).cloned().collect()
        });
        check_moment(&consistent(&names(), histories.collect()))?;
    }

    #[test]
    fn causes_come_before_effects_by_whatever_clocks(acts in vec(act(), 0..24)) {
        let (world, _) = life(&acts);
        let ordered = in_causal_order(&world.histories);
        prop_assert_eq!(ordered.len(), world.histories.iter().map(Vec::len).sum::<usize>());
        let mut seen = vec![];
        for commit in ordered {
            if let Some(cause) = &commit.metadata.causation {
                prop_assert!(seen.contains(cause), "{} before {cause}", commit.id);
            }
            let versions = commit.version..=commit.last_version();
            seen.extend(versions.map(|version| format!("{}@{version}", commit.stream)));
        }
    }
}

/// Checks that the histories are of one moment: each commit is there with its cause, its record and
/// its parts, and the view does not contradict itself.
fn check_moment(histories: &[Vec<Commit>]) -> Result<(), TestCaseError> {
    let all: Vec<_> = histories.iter().flatten().collect();
    for commit in all.iter().filter(|commit| commit.enlisted) {
        let mut records = histories[SAGA].iter();
        prop_assert!(
            records.any(|record| record.id == commit.id),
            "{}",
            commit.id
        );
    }
    let Some(view) = of_histories(histories).unwrap() else {
        return Ok(());
    };
    agrees(&view)?;
    let picture = serde_json::to_value(&view).unwrap();
    let is_arranged = picture["fulfilment"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .any(|step| step["step"] == "arrange-shipment" && step["outcome"] == "completed");
    prop_assert!(!is_arranged || picture["shipment"].is_object(), "{picture}");
    let is_completed = picture["fulfilment"]["status"] == "completed";
    let steps = picture["fulfilment"]["steps"].as_array().unwrap().len();
    prop_assert!(!is_completed || steps == 6, "{picture}");
    Ok(())
}
