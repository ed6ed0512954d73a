//! The orders whose handlers are crashed, with every outcome of an order.

use std::collections::BTreeMap;

use cairn::Aggregate;
use cairn_simulator::{
    crashes::{Ending, Scenario, Scenarios},
    faults::FaultProfile,
    observed::Observed,
    simulation::{Remedy, Simulation},
};
use orders::{
    order::{self, Order},
    payment::{self, Payment},
    shipment::{self, Shipment},
    stock::Stock,
};

use crate::{invariants::orders, shop::Shop};

/// One order and its customer's actions.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    token: &'static str,
    customer: &'static str,
    country: &'static str,
    quantity: u32,
    then: Then,
}

/// The customer's action after placing the order.
#[derive(Clone, Copy, Debug)]
enum Then {
    Wait,
    Cancel,
    CancelWhenConfirmed,
    Ship,
}

const GOOD: Story = Story {
    token: "tok_visa",
    customer: "c-1",
    country: "DE",
    quantity: 2,
    then: Then::Ship,
};

/// An order that is not fulfilled.
const REFUSED: Story = Story {
    then: Then::Wait,
    ..GOOD
};

const CANCELLED: Story = Story {
    then: Then::CancelWhenConfirmed,
    ..GOOD
};

const fn scenario(name: &'static str, story: Story) -> Scenario<Story> {
    Scenario {
        name,
        story,
        faults: FaultProfile::NONE,
        remedy: Remedy::Resume,
    }
}

/// Returns an order with a captured payment that cannot be refunded when the order is cancelled.
const fn stuck(name: &'static str, remedy: Remedy) -> Scenario<Story> {
    Scenario {
        faults: FaultProfile {
            refuses_to_undo: 1.0,
            ..FaultProfile::NONE
        },
        remedy,
        ..scenario(name, CANCELLED)
    }
}

impl Scenarios for Shop {
    type Story = Story;

    const SCENARIOS: &'static [Scenario<Story>] = &[
        scenario(
            "an order that screening rejects",
            Story {
                customer: "fraud-1",
                ..REFUSED
            },
        ),
        scenario(
            "an order that is out of stock",
            Story {
                quantity: 11,
                ..REFUSED
            },
        ),
        scenario(
            "an order with a declined payment",
            Story {
                token: "tok_declined",
                ..REFUSED
            },
        ),
        scenario(
            "an order that the carrier refuses",
            Story {
                country: "XX",
                ..REFUSED
            },
        ),
        scenario("an order that is fulfilled and shipped", GOOD),
        scenario(
            "an order that is cancelled immediately",
            Story {
                then: Then::Cancel,
                ..GOOD
            },
        ),
        scenario(
            "an order that is cancelled after its confirmation",
            CANCELLED,
        ),
        scenario(
            "an order whose payment provider never responds",
            Story {
                token: "tok_down",
                ..REFUSED
            },
        ),
        stuck("an order that is stuck and resumed", Remedy::Resume),
        stuck(
            "an order that is stuck, and settled manually",
            Remedy::Settle,
        ),
    ];

    async fn act(simulation: &Simulation<Self>, story: &Story) {
        let (shop, api) = (&simulation.application, &simulation.api);
        shop.receive(api, "TEA-01", 10).await;
        let placed = shop
            .place(
                api,
                story.customer,
                story.token,
                story.country,
                "TEA-01",
                story.quantity,
            )
            .await;
        // Without a response the customer has no order id; an invariant reports that.
        let Some(id) = placed else {
            return;
        };
        match story.then {
            Then::Wait => {}
            Then::Cancel => shop.cancel(api, &id).await,
            Then::CancelWhenConfirmed => {
                simulation.ended().await;
                shop.cancel(api, &id).await;
            }
            Then::Ship => {
                simulation.ended().await;
                shop.ship(api, &id).await;
            }
        }
    }

    fn ending(&self, seen: &Observed) -> Ending {
        let mut ending = BTreeMap::new();
        for order in orders(seen) {
            // Nothing remains of a payment that was never authorized, or that was voided or
            // refunded.
            let payment = match seen.state::<Payment>(&Payment::stream(&order.id)) {
                payment::State::Captured(authorization) => {
                    format!("{} taken", authorization.amount.amount)
                }
                payment::State::Authorized(_) => "promised".to_owned(),
                payment::State::None
                | payment::State::Declined
                | payment::State::Voided
                | payment::State::Refunded => "nothing".to_owned(),
            };
            let shipment = match seen.state::<Shipment>(&Shipment::stream(&order.id)) {
                shipment::State::Arranged(_) => "arranged",
                shipment::State::None | shipment::State::Refused | shipment::State::Cancelled => {
                    "none"
                }
            };
            let stream = Order::stream(&order.id);
            let cancelled = seen.decoded(&stream).find_map(|event| match event {
                order::Event::Cancelled { reason, by, .. } => {
                    Some(format!("cancelled by {by:?}: {reason}"))
                }
                _ => None,
            });
            let status = cancelled.unwrap_or_else(|| format!("{:?}", order.state.status()));
            let fulfilment = format!("{:?}", order.fulfilment.ending);
            ending.insert("order".to_owned(), status);
            ending.insert("fulfilment".to_owned(), fulfilment);
            ending.insert("payment".to_owned(), payment);
            ending.insert("shipment".to_owned(), shipment.to_owned());
        }
        let streams = seen.streams.keys();
        for stream in streams.filter(|stream| stream.category() == "stock") {
            let state = seen.state::<Stock>(stream);
            let stock = format!("{} on hand, {} reserved", state.on_hand(), state.reserved());
            ending.insert(stream.to_string(), stock);
        }
        let mails = self.providers.read().mails.len();
        ending.insert("mails".to_owned(), mails.to_string());
        ending
    }
}
