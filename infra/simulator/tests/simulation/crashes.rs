//! A crash at every await of every handler, for an order of each outcome: each ends as it does without.

use std::{collections::BTreeMap, sync::Arc};

use cairn_local::template::Template;
use cairn_simulator::{
    invariants::{AT_REST, AT_THE_END},
    observed::Observed,
    simulation::{Plan, Simulation, TEMPLATE, on_virtual_time},
    world::{Crash, Simulated, Weather},
};
use orders::{fulfilment, order, payment, shipment, stock};

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
        let payment = match seen.state::<payment::Payment>(&payment) {
            payment::State::Captured(authorization) => {
                format!("captured {}", authorization.amount.amount)
            }
            payment::State::Authorized(_) => "authorized".to_owned(),
            other => format!("{other:?}"),
        };
        let shipment = match seen.state::<shipment::Shipment>(&shipment) {
            shipment::State::Arranged(_) => "arranged".to_owned(),
            other => format!("{other:?}"),
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
        summary.insert("shipment".to_owned(), shipment);
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

/// One order and what its customer does with it.
#[derive(Clone, Copy, Debug)]
struct Story {
    token: &'static str,
    customer: &'static str,
    country: &'static str,
    quantity: u32,
    then: &'static str,
}

const GOOD: Story = Story {
    token: "tok_visa",
    customer: "c-1",
    country: "DE",
    quantity: 2,
    then: "",
};

/// What came of a story: the end, the invocations, and whether the crash took place.
type Told = (BTreeMap<String, String>, BTreeMap<String, u32>, bool);

fn tell(story: Story, template: &Template, crash: Option<Crash>) -> Told {
    fastrand::seed(1);
    on_virtual_time(async {
        let world = Arc::new(Simulated::new(1, Weather::CALM));
        if let Some(crash) = crash.clone() {
            world.crash_at(crash);
        }
        let plan = Plan {
            seed: 1,
            orders: 1,
            weather: Weather::CALM,
            template: template.clone(),
        };
        let simulation = Simulation::begin(&plan, world.clone());
        let shop = &simulation.shop;
        shop.receive("TEA-01", 10).await;
        let placed = shop
            .place(story.customer, story.token, story.country, story.quantity)
            .await
            .unwrap();
        match story.then {
            "cancel" => shop.cancel(&placed).await,
            "cancel later" => {
                simulation.ended().await;
                shop.cancel(&placed).await;
            }
            "ship" => {
                simulation.ended().await;
                shop.ship(&placed).await;
            }
            _ => {}
        }
        simulation.ended().await;
        let seen = simulation.observed();
        for (invariant, holds) in AT_REST.iter().chain(&AT_THE_END) {
            let breaches = holds(&seen);
            let trace = world.trace().join("\n");
            assert!(
                breaches.is_empty(),
                "{crash:?} breaks {invariant}: {breaches:#?}\n{trace}"
            );
        }
        let (invocations, crashed) = world.invocations();
        (summary(&seen), invocations, crashed)
    })
}

/// The watch comes every minute, and most of its looks are alike.
const LOOKS: u32 = 2;

#[track_caller]
fn ends_alike_wherever_it_crashes(story: Story) {
    let template = Template::parse(TEMPLATE).unwrap();
    let (expected, invocations, _) = tell(story, &template, None);
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
                let (end, _, crashed) = tell(story, &template, Some(crash.clone()));
                assert_eq!(end, expected, "{crash:?}");
                if !crashed {
                    break;
                }
                crashes += 1;
            }
        }
    }
    println!("{crashes} crashes");
    assert!(crashes > 40, "{crashes} crashes only");
}

#[test]
fn an_order_that_is_fulfilled_and_ships() {
    ends_alike_wherever_it_crashes(Story {
        then: "ship",
        ..GOOD
    });
}

#[test]
fn an_order_that_is_declined() {
    ends_alike_wherever_it_crashes(Story {
        token: "tok_declined",
        ..GOOD
    });
}

#[test]
fn an_order_whose_provider_never_answers() {
    ends_alike_wherever_it_crashes(Story {
        token: "tok_down",
        ..GOOD
    });
}

#[test]
fn an_order_that_is_out_of_stock() {
    ends_alike_wherever_it_crashes(Story {
        quantity: 11,
        ..GOOD
    });
}

#[test]
fn an_order_that_screening_refuses() {
    ends_alike_wherever_it_crashes(Story {
        customer: "fraud-1",
        ..GOOD
    });
}

#[test]
fn an_order_that_the_carrier_refuses() {
    ends_alike_wherever_it_crashes(Story {
        country: "XX",
        ..GOOD
    });
}

#[test]
fn an_order_that_is_cancelled_at_once() {
    ends_alike_wherever_it_crashes(Story {
        then: "cancel",
        ..GOOD
    });
}

#[test]
fn an_order_that_is_cancelled_when_it_is_confirmed() {
    ends_alike_wherever_it_crashes(Story {
        then: "cancel later",
        ..GOOD
    });
}
