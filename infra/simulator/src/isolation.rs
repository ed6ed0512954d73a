//! A hot product, or a payment provider that does not respond, and the orders that have nothing to
//! do with it.

use std::time::Duration;

use cairn::{Aggregate, Timestamp};
use cairn_local::{Template, template::TemplateError};
use cairn_simulator::{
    api::Api,
    isolation::{Disturbance, Disturbances},
    observed::Observed,
};
use futures_util::future::join_all;
use orders::fulfilment::Saga;
use tokio::time::sleep;

use crate::{
    customers::SKUS,
    shop::{Shop, TEMPLATE, system},
};

const PAYMENTS: u32 = 10;
const RESERVED: &[(&str, &str)] = &[("PaymentConcurrency", "10"), ("StockConcurrency", "3")];

/// The interval of the orders of a disturbance.
const OFTEN: Duration = Duration::from_millis(50);

/// The orders of a disturbance.
#[derive(Clone, Copy, Debug)]
pub struct Rush {
    orders: u32,
    token: &'static str,
}

const HOT: Rush = Rush {
    orders: 100,
    token: "tok_visa",
};
const HANGING: Rush = Rush {
    orders: 72,
    token: "tok_down",
};

impl Disturbances for Shop {
    type Story = Rush;

    const DISTURBANCES: &'static [Disturbance<Rush>] = &[
        // The stream of the product accepts one commit at a time. Each order makes two, and each
        // takes half of the longest time on average. A tenth more is two standard deviations of the
        // sum.
        Disturbance {
            name: "a hot product",
            story: HOT,
            units: HOT.orders,
            full: Duration::from_millis(330),
            steps: 2,
        },
        // The call for each order takes its time limit, three seconds.
        Disturbance {
            name: "a payment provider that does not respond",
            story: HANGING,
            units: HANGING.orders,
            full: Duration::from_millis(3_000 / PAYMENTS as u64),
            steps: 1,
        },
    ];
    const CONCURRENCY: usize = 62;
    /// It is longer than on AWS, so that fewer orders make a product hot.
    const TRANSACTION: Duration = Duration::from_millis(300);
    const OTHERS: u32 = 20;
    const WINDOW: Duration = Duration::from_secs(15);

    fn reserved(is_reserved: bool) -> Result<Template, TemplateError> {
        system(TEMPLATE, if is_reserved { RESERVED } else { &[] })
    }

    async fn begin(&self, api: &Api, number: u32) -> Option<String> {
        let [_, even, odd, ..] = SKUS;
        let sku = if number.is_multiple_of(2) { even } else { odd };
        let customer = format!("c-{number}");
        self.place(api, &customer, "tok_visa", "DE", sku, 1).await
    }

    async fn disturb(&self, api: &Api, rush: &Rush) {
        let orders = (0..rush.orders).map(async |number| {
            sleep(OFTEN * number).await;
            let customer = format!("d-{number}");
            self.place(api, &customer, rush.token, "DE", SKUS[0], 1)
                .await
        });
        join_all(orders).await;
    }

    async fn read(&self, api: &Api) {
        api.look(SKUS[0], format!("/stock/{}", SKUS[0]), 0).await;
    }

    fn ended_at(seen: &Observed, order_id: &str) -> Option<Timestamp> {
        let stream = Saga::stream(&order_id.parse().ok()?);
        let is_completed = seen.sagas.get(&stream)?.is_completed();
        let last = seen.stream(&stream).last().filter(|_| is_completed);
        last.map(|last| last.at)
    }
}
