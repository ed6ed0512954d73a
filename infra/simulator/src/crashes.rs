//! A crash at every await of every handler, for an order of each outcome: each ends as it does without.

use std::{collections::BTreeMap, fmt, sync::Arc};

use cairn_local::template::Template;
use orders::{fulfilment, order, payment, shipment, stock};

use crate::{
    invariants::{AT_REST, AT_THE_END},
    observed::Observed,
    simulation::{Plan, Simulation, on_virtual_time},
    world::{Crash, Simulated, Weather},
};

/// One order, and what its customer does with it.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// How it is told.
    pub name: &'static str,
    token: &'static str,
    customer: &'static str,
    country: &'static str,
    quantity: u32,
    then: Then,
}

/// What a customer does with an order that is placed.
#[derive(Clone, Copy, Debug)]
enum Then {
    Wait,
    Cancel,
    CancelWhenConfirmed,
    Ship,
}

const GOOD: Story = Story {
    name: "an order that is fulfilled and ships",
    token: "tok_visa",
    customer: "c-1",
    country: "DE",
    quantity: 2,
    then: Then::Ship,
};

/// An order of each outcome.
pub const STORIES: [Story; 8] = [
    Story {
        name: "an order that screening refuses",
        customer: "fraud-1",
        then: Then::Wait,
        ..GOOD
    },
    Story {
        name: "an order that is out of stock",
        quantity: 11,
        then: Then::Wait,
        ..GOOD
    },
    Story {
        name: "an order that is declined",
        token: "tok_declined",
        then: Then::Wait,
        ..GOOD
    },
    Story {
        name: "an order that the carrier refuses",
        country: "XX",
        then: Then::Wait,
        ..GOOD
    },
    GOOD,
    Story {
        name: "an order that is cancelled at once",
        then: Then::Cancel,
        ..GOOD
    },
    Story {
        name: "an order that is cancelled when it is confirmed",
        then: Then::CancelWhenConfirmed,
        ..GOOD
    },
    Story {
        name: "an order whose payment provider never answers",
        token: "tok_down",
        then: Then::Wait,
        ..GOOD
    },
];

/// A crash that makes a difference.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Where it was; `None`: the story ends wrong without any.
    pub crash: Option<Crash>,
    /// What is different.
    pub problem: String,
    /// What happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.crash {
            Some(crash) => write!(
                f,
                "a crash of {} in invocation {} after {} waits: {}",
                crash.function, crash.invocation, crash.wait, self.problem
            ),
            None => f.write_str(&self.problem),
        }
    }
}

/// Crashes each invocation of each function at each of its awaits, one at a time, and returns how many
/// crashes there were; of the watch, the first looks only. `told` is called after each.
///
/// # Errors
/// At the first that makes a difference.
pub fn at_every_await(
    story: &Story,
    template: &Template,
    told: impl Fn(),
) -> Result<u32, Box<Difference>> {
    let (expected, invocations, _) = tell(story, template, None)?;
    let mut crashes = 0;
    for (function, count) in invocations {
        let count = if function.starts_with("Watch") {
            count.min(LOOKS)
        } else {
            count
        };
        for invocation in 0..count {
            for wait in 0.. {
                let crash = Crash {
                    function: function.clone(),
                    invocation,
                    wait,
                };
                let (end, _, took_place) = tell(story, template, Some(&crash))?;
                told();
                if end != expected {
                    return Err(Box::new(Difference {
                        crash: Some(crash),
                        problem: format!("it ends with {end:?}, not {expected:?}"),
                        trace: vec![],
                    }));
                }
                // It is done before it waits so often.
                if !took_place {
                    break;
                }
                crashes += 1;
            }
        }
    }
    Ok(crashes)
}

/// The watch comes every minute of the hours that some stories take; so many of its looks are crashed.
const LOOKS: u32 = 8;

/// What came of a story: its end, how often each function was invoked, and whether the crash took place.
type Told = (BTreeMap<String, String>, BTreeMap<String, u32>, bool);

fn tell(
    story: &Story,
    template: &Template,
    crash: Option<&Crash>,
) -> Result<Told, Box<Difference>> {
    fastrand::seed(1);
    on_virtual_time(async {
        let world = Arc::new(Simulated::new(1, Weather::CALM));
        if let Some(crash) = crash {
            world.crash_at(crash.clone());
        }
        let plan = Plan {
            seed: 1,
            orders: 1,
            weather: Weather::CALM,
            template: template.clone(),
        };
        let simulation = Simulation::begin(&plan, world.clone());
        act(story, &simulation).await;
        simulation.ended().await;
        simulation.help().await;
        let seen = simulation.observed();
        for (invariant, holds) in AT_REST.iter().chain(&AT_THE_END) {
            let breaches = holds(&seen);
            if !breaches.is_empty() {
                return Err(Box::new(Difference {
                    crash: crash.cloned(),
                    problem: format!("it breaks: {invariant}: {breaches:?}"),
                    trace: world.trace(),
                }));
            }
        }
        let (invocations, crashed) = world.invocations();
        Ok((summary(&seen), invocations, crashed))
    })
}

async fn act(story: &Story, simulation: &Simulation) {
    let shop = &simulation.shop;
    shop.receive("TEA-01", 10).await;
    let placed = shop
        .place(story.customer, story.token, story.country, story.quantity)
        .await;
    // Without an answer there is nothing to do with it, and the invariants will say so.
    let Some(id) = placed else {
        return;
    };
    match story.then {
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

/// What there is in the end, but for times and ids.
fn summary(seen: &Observed) -> BTreeMap<String, String> {
    let mut summary = BTreeMap::new();
    for order in seen.orders() {
        let fulfilment = match order.fulfilment {
            fulfilment::State::Completed { .. } => "completed".to_owned(),
            fulfilment::State::Aborted { reason } => format!("aborted: {reason}"),
            other => format!("{other:?}"),
        };
        let (payment, shipment) = (order.id.payment_stream(), order.id.shipment_stream());
        // Nothing is held of a payment that never was, or was given back, however far it had come.
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
        let status = match order.order {
            order::State::Cancelled(_) => "cancelled",
            order::State::Confirmed(_) => "confirmed",
            order::State::Shipped(_) => "shipped",
            order::State::NotPlaced | order::State::Placed(_) => "open",
        };
        summary.insert("order".to_owned(), status.to_owned());
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
