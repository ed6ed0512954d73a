//! A hot product, or a payment provider that does not respond, and the orders that have nothing to
//! do with it.
//!
//! Both keep invocations busy, and the account is so small that they use up its concurrency.
//! With reservations the API answers every request, and every other order ends in time. There are
//! no faults.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cairn::Timestamp;
use cairn_local::{Platform, template::TemplateError};
use futures_util::future::{join_all, join3};
use orders::fulfilment::Phase;
use tokio::time::sleep;

use crate::{
    customers::SKUS,
    invariants::{Violation, violation},
    observed::Observed,
    platform::{FaultProfile, Simulated},
    simulation::{BrokenInvariant, Outcome, Plan, Simulation, TEMPLATE, on_virtual_time, system},
};

/// Parameters of the template and their values.
pub type Reservations<'a> = &'a [(&'a str, u32)];

const PAYMENTS: u32 = 10;
pub const RESERVED: Reservations<'_> = &[("PaymentConcurrency", PAYMENTS), ("StockConcurrency", 3)];

/// The account's quota of concurrent invocations; on AWS the default is 1,000.
const CONCURRENCY: usize = 62;
/// The longest travel time of a transaction. It is longer than on AWS, so that fewer orders make a
/// product hot.
const TRANSACTION: Duration = Duration::from_millis(300);
/// The interval of the orders of a disturbance.
const OFTEN: Duration = Duration::from_millis(50);

/// The other orders, and the time in which they arrive.
const OTHERS: u32 = 20;
const WINDOW: Duration = Duration::from_secs(15);
/// The interval of reads.
const READ: Duration = Duration::from_millis(100);

/// Orders that arrive within seconds and compete with the others.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    pub name: &'static str,
    orders: u32,
    token: &'static str,
    /// The milliseconds for which one of its orders keeps the reservation of a step full.
    full_ms: u32,
    /// The steps of another order at which the reservation can be full.
    steps: u32,
}

pub const DISTURBANCES: [Disturbance; 2] = [
    // The stream of the product accepts one commit at a time. Each order makes two, and each takes
    // half of the longest time on average.
    Disturbance {
        name: "a hot product",
        orders: 100,
        token: "tok_visa",
        full_ms: 300,
        steps: 2,
    },
    // The call for each order takes its time limit, three seconds.
    Disturbance {
        name: "a payment provider that does not respond",
        orders: 72,
        token: "tok_down",
        full_ms: 3_000 / PAYMENTS,
        steps: 1,
    },
];

impl Disturbance {
    /// Returns the longest delay of another order.
    ///
    /// Lambda retries a throttled event after 1, 3, 7, 15, ... seconds. The first retry after the
    /// reservation was full for a time is therefore at most twice that time and a second later.
    fn delay(&self) -> Duration {
        let full = Duration::from_millis(u64::from(self.full_ms * self.orders));
        2 * full + Duration::from_secs(1) * self.steps
    }
}

/// A run with a disturbance, compared with the same run without it.
#[derive(Debug)]
pub struct Report {
    /// The run with the disturbance, and all invariants that it breaks.
    pub outcome: Outcome,
    /// The longest time from the request for another order to the end of its fulfilment.
    pub longest: Duration,
    /// The same without the disturbance.
    pub undisturbed: Duration,
    pub allowed: Duration,
}

/// Runs a disturbance with reservations to its end.
pub fn compare(seed: u64, disturbance: &Disturbance) -> Result<Report, TemplateError> {
    let plan = plan(seed, disturbance, RESERVED)?;
    let (_, undisturbed) = run(&plan, None);
    let (mut outcome, longest) = run(&plan, Some(disturbance));
    let allowed = undisturbed.saturating_add(disturbance.delay());
    if longest > allowed {
        let late = violation("another order", format!("took {longest:.1?}"));
        outcome
            .broken
            .push(broken("other orders end in time", vec![late]));
    }
    Ok(Report {
        outcome,
        longest,
        undisturbed,
        allowed,
    })
}

/// Returns the requests that the API does not answer during a disturbance.
pub fn refusals(
    seed: u64,
    disturbance: &Disturbance,
    reservations: Reservations<'_>,
) -> Result<Vec<Violation>, TemplateError> {
    let plan = plan(seed, disturbance, reservations)?;
    Ok(on_virtual_time(async {
        let (simulation, _) = place_all(&plan, Some(disturbance)).await;
        refused(&simulation.observed())
    }))
}

fn plan(
    seed: u64,
    disturbance: &Disturbance,
    reservations: Reservations<'_>,
) -> Result<Plan, TemplateError> {
    let reservations: Vec<_> = reservations
        .iter()
        .map(|(parameter, count)| (*parameter, count.to_string()))
        .collect();
    let parameters: Vec<_> = reservations
        .iter()
        .map(|(parameter, count)| (*parameter, count.as_str()))
        .collect();
    Ok(Plan {
        seed,
        orders: OTHERS + disturbance.orders,
        faults: FaultProfile::NONE,
        template: system(TEMPLATE, &parameters)?,
    })
}

/// Returns the outcome, and the longest time of another order.
fn run(plan: &Plan, disturbance: Option<&Disturbance>) -> (Outcome, Duration) {
    on_virtual_time(async {
        let (simulation, others) = place_all(plan, disturbance).await;
        simulation.ended().await;
        let seen = simulation.observed();
        let mut outcome = simulation.judge().await;
        let refused = refused(&seen);
        if !refused.is_empty() {
            outcome
                .broken
                .push(broken("the API answers every request", refused));
        }
        let times = others.iter().map(|(id, asked)| time(&seen, id, *asked));
        (outcome, times.max().unwrap_or(Duration::MAX))
    })
}

fn broken(invariant: &'static str, violations: Vec<Violation>) -> BrokenInvariant {
    BrokenInvariant {
        invariant,
        violations,
    }
}

/// Starts a system and places all orders. Returns the other orders with the times of their
/// requests.
async fn place_all(
    plan: &Plan,
    disturbance: Option<&Disturbance>,
) -> (Simulation, BTreeMap<String, Timestamp>) {
    fastrand::seed(plan.seed);
    let platform = Simulated::narrow(plan.seed, CONCURRENCY, TRANSACTION);
    let simulation = Simulation::begin(plan, Arc::new(platform));
    simulation.shop.stock_up(plan.orders).await;
    let others = join_all((0..OTHERS).map(|number| place(&simulation, number)));
    let disturbing = async {
        if let Some(disturbance) = disturbance {
            disturb(&simulation, disturbance).await;
        }
    };
    let (others, (), ()) = join3(others, disturbing, read(&simulation)).await;
    let others = others.into_iter().flatten().collect();
    (simulation, others)
}

async fn place(simulation: &Simulation, number: u32) -> Option<(String, Timestamp)> {
    sleep(WINDOW / OTHERS * number).await;
    let asked = simulation.platform.now();
    let sku = if number.is_multiple_of(2) {
        SKUS[1]
    } else {
        SKUS[2]
    };
    let customer = format!("c-{number}");
    let placed = simulation.shop.place(&customer, "tok_visa", "DE", sku, 1);
    Some((placed.await?, asked))
}

async fn disturb(simulation: &Simulation, disturbance: &Disturbance) {
    let orders = (0..disturbance.orders).map(async |number| {
        sleep(OFTEN * number).await;
        let customer = format!("d-{number}");
        let token = disturbance.token;
        simulation
            .shop
            .place(&customer, token, "DE", SKUS[0], 1)
            .await
    });
    join_all(orders).await;
}

/// A client that reads all the time.
async fn read(simulation: &Simulation) {
    let end = simulation.platform.elapsed() + WINDOW;
    while simulation.platform.elapsed() < end {
        let path = format!("/stock/{}", SKUS[0]);
        simulation.shop.look(SKUS[0], path, 0).await;
        sleep(READ).await;
    }
}

/// Returns the time from the request for an order to the end of its fulfilment.
fn time(seen: &Observed, id: &str, asked: Timestamp) -> Duration {
    let mut orders = seen.orders.values();
    let order = orders.find(|order| order.id.to_string() == id);
    let completed = order.filter(|order| matches!(order.fulfilment.phase, Phase::Completed { .. }));
    let last = completed.and_then(|order| seen.stream(&order.id.fulfilment_stream()).last());
    let took = last.map(|last| last.at.as_millis() - asked.as_millis());
    let took = took.and_then(|took| u64::try_from(took).ok());
    took.map_or(Duration::MAX, Duration::from_millis)
}

fn refused(seen: &Observed) -> Vec<Violation> {
    let commands = seen.asked.iter().flat_map(|asked| {
        let statuses = asked.answers.iter().map(|(status, _)| *status);
        statuses.map(|status| (asked.operation, status))
    });
    let queries = seen.looked.iter();
    let queries = queries.map(|looked| (looked.path.as_str(), looked.answer.0));
    commands
        .chain(queries)
        .filter(|(_, status)| *status >= 500)
        .map(|(request, status)| violation(request, status.to_string()))
        .collect()
}
