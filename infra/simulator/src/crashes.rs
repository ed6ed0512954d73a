//! Crashes every handler at every await, in scenarios with every outcome of an order. Each crash
//! must leave the outcome unchanged. Awaits between which a handler changes nothing are one case.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cairn_local::template::Template;
use orders::{fulfilment::Phase, order, payment, shipment, stock};

use crate::{
    invariants::{AT_REST, AT_THE_END},
    observed::Observed,
    platform::{Crash, FaultProfile, Simulated},
    simulation::{Plan, Remedy, Simulation, on_virtual_time},
};

/// One order and its customer's actions.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    token: &'static str,
    customer: &'static str,
    country: &'static str,
    quantity: u32,
    then: Then,
    faults: FaultProfile,
    remedy: Remedy,
}

/// The customer's action after placing the order.
#[derive(Clone, Copy, Debug)]
enum Then {
    Wait,
    Cancel,
    CancelWhenConfirmed,
    Ship,
}

const GOOD: Scenario = Scenario {
    name: "an order that is fulfilled and shipped",
    token: "tok_visa",
    customer: "c-1",
    country: "DE",
    quantity: 2,
    then: Then::Ship,
    faults: FaultProfile::NONE,
    remedy: Remedy::Resume,
};

/// An order with a captured payment that cannot be refunded when the order is cancelled.
const STUCK: Scenario = Scenario {
    then: Then::CancelWhenConfirmed,
    faults: FaultProfile {
        refuses_to_undo: 1.0,
        ..FaultProfile::NONE
    },
    ..GOOD
};

/// Scenarios with every outcome of an order.
pub const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "an order that screening rejects",
        customer: "fraud-1",
        then: Then::Wait,
        ..GOOD
    },
    Scenario {
        name: "an order that is out of stock",
        quantity: 11,
        then: Then::Wait,
        ..GOOD
    },
    Scenario {
        name: "an order with a declined payment",
        token: "tok_declined",
        then: Then::Wait,
        ..GOOD
    },
    Scenario {
        name: "an order that the carrier refuses",
        country: "XX",
        then: Then::Wait,
        ..GOOD
    },
    GOOD,
    Scenario {
        name: "an order that is cancelled immediately",
        then: Then::Cancel,
        ..GOOD
    },
    Scenario {
        name: "an order that is cancelled after its confirmation",
        then: Then::CancelWhenConfirmed,
        ..GOOD
    },
    Scenario {
        name: "an order whose payment provider never responds",
        token: "tok_down",
        then: Then::Wait,
        ..GOOD
    },
    Scenario {
        name: "an order that is stuck and resumed",
        ..STUCK
    },
    Scenario {
        name: "an order that is stuck, and settled manually",
        remedy: Remedy::Settle,
        ..STUCK
    },
];

/// A crash that changes the outcome.
#[derive(Clone, Debug)]
pub struct Difference {
    /// `None` if an invariant is broken even without a crash.
    pub crash: Option<Crash>,
    pub problem: String,
    pub trace: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.crash {
            Some(crash) => write!(
                f,
                "crash of {}, invocation {}, await {}: {}",
                crash.function, crash.invocation, crash.wait, self.problem
            ),
            None => f.write_str(&self.problem),
        }
    }
}

/// The final state of a scenario, without times and ids.
pub type Ending = BTreeMap<String, String>;

/// A scenario without a crash.
#[derive(Clone, Debug)]
pub struct Undisturbed {
    pub ending: Ending,
    /// The crashes to try. One of them covers all awaits between which its invocation changes
    /// nothing, because a crash at any of them leaves the same system.
    pub crashes: Vec<Crash>,
    /// The number of awaits that the crashes cover.
    pub awaits: usize,
}

const WATCH: &str = "WatchFulfilmentsFunction";

/// Runs a scenario without a crash. Hundreds of invocations of the watchdog change nothing; only
/// the first of them is to be crashed.
pub fn undisturbed(
    scenario: &Scenario,
    template: &Template,
) -> Result<Undisturbed, Box<Difference>> {
    let (ending, platform) = tell(scenario, template, None)?;
    let (mut crashes, mut awaits) = (vec![], 0);
    for (function, invocations) in platform.waits() {
        let mut has_idled = false;
        for (invocation, waits) in invocations.iter().enumerate() {
            let is_idle = function == WATCH && waits.first() == waits.last();
            if is_idle && has_idled {
                continue;
            }
            has_idled |= is_idle;
            awaits += waits.len();
            let mut before = None;
            for (wait, changes) in (0..).zip(waits) {
                if before != Some(changes) {
                    crashes.push(Crash {
                        function: function.clone(),
                        invocation,
                        wait,
                    });
                }
                before = Some(changes);
            }
        }
    }
    Ok(Undisturbed {
        ending,
        crashes,
        awaits,
    })
}

/// Runs a scenario with a crash. It is an error if the ending differs.
pub fn crashed(
    scenario: &Scenario,
    template: &Template,
    expected: &Ending,
    crash: &Crash,
) -> Result<(), Box<Difference>> {
    let (ending, platform) = tell(scenario, template, Some(crash))?;
    let problem = if !platform.has_crashed() {
        "the invocation does not reach this await".to_owned()
    } else if ending == *expected {
        return Ok(());
    } else {
        format!("the ending is {ending:?}, not {expected:?}")
    };
    Err(Box::new(Difference {
        crash: Some(crash.clone()),
        problem,
        trace: platform.trace(),
    }))
}

fn tell(
    scenario: &Scenario,
    template: &Template,
    crash: Option<&Crash>,
) -> Result<(Ending, Arc<Simulated>), Box<Difference>> {
    fastrand::seed(1);
    on_virtual_time(async {
        let platform = Arc::new(Simulated::new(1, scenario.faults));
        if let Some(crash) = crash {
            platform.crash_at(crash.clone());
        }
        let plan = Plan {
            seed: 1,
            orders: 1,
            faults: scenario.faults,
            template: template.clone(),
        };
        let simulation = Simulation::begin(&plan, platform.clone());
        act(scenario, &simulation).await;
        simulation.ended().await;
        platform.set_faults(FaultProfile::NONE);
        simulation.help(scenario.remedy).await;
        let seen = simulation.observed();
        for (invariant, holds) in AT_REST.iter().chain(&AT_THE_END) {
            let violations = holds(&seen);
            if !violations.is_empty() {
                return Err(Box::new(Difference {
                    crash: crash.cloned(),
                    problem: format!("broken: {invariant}: {violations:?}"),
                    trace: platform.trace(),
                }));
            }
        }
        Ok((summary(&seen), platform))
    })
}

async fn act(scenario: &Scenario, simulation: &Simulation) {
    let shop = &simulation.shop;
    shop.receive("TEA-01", 10).await;
    let placed = shop
        .place(
            scenario.customer,
            scenario.token,
            scenario.country,
            "TEA-01",
            scenario.quantity,
        )
        .await;
    // Without a response the customer has no order id; an invariant reports that.
    let Some(id) = placed else {
        return;
    };
    match scenario.then {
        Then::Wait => {}
        Then::Cancel => shop.cancel(&id).await,
        Then::CancelWhenConfirmed => {
            simulation.ended().await;
            shop.cancel(&id).await;
        }
        Then::Ship => {
            simulation.ended().await;
            shop.ship(&id).await;
        }
    }
}

fn summary(seen: &Observed) -> Ending {
    let mut summary = BTreeMap::new();
    for order in seen.orders.values() {
        let fulfilment = match &order.fulfilment.phase {
            Phase::Completed { .. } => "completed".to_owned(),
            // The customer's cancellation and the order's event race, and each has its own reason.
            Phase::Aborted => "aborted".to_owned(),
            other => format!("{other:?}"),
        };
        let (payment, shipment) = (order.id.payment_stream(), order.id.shipment_stream());
        // Nothing remains of a payment that was never authorized, or that was voided or refunded.
        let payment = match seen.state::<payment::Payment>(&payment) {
            payment::State::Captured(authorization) => {
                format!("{} taken", authorization.amount.amount)
            }
            payment::State::Authorized(_) => "promised".to_owned(),
            payment::State::None
            | payment::State::Declined
            | payment::State::Voided
            | payment::State::Refunded => "nothing".to_owned(),
        };
        let shipment = match seen.state::<shipment::Shipment>(&shipment) {
            shipment::State::Arranged(_) => "arranged",
            shipment::State::None | shipment::State::Refused | shipment::State::Cancelled => "none",
        };
        let events = seen.stream(&order.id.order_stream()).iter();
        let cancelled =
            events
                .filter_map(|event| event.decode().ok())
                .find_map(|event| match event {
                    order::Event::Cancelled { reason, by, .. } => {
                        Some(format!("cancelled by {by:?}: {reason}"))
                    }
                    _ => None,
                });
        let status = cancelled.unwrap_or_else(|| format!("{:?}", order.order.status()));
        summary.insert("order".to_owned(), status);
        summary.insert("fulfilment".to_owned(), fulfilment);
        summary.insert("payment".to_owned(), payment);
        summary.insert("shipment".to_owned(), shipment.to_owned());
    }
    for stream in seen
        .streams
        .keys()
        .filter(|stream| stream.category() == "stock")
    {
        let state = seen.state::<stock::Stock>(stream);
        let stock = format!("{} on hand, {} reserved", state.on_hand(), state.reserved());
        summary.insert(stream.to_string(), stock);
    }
    summary.insert("mails".to_owned(), seen.books.mails.len().to_string());
    summary
}
