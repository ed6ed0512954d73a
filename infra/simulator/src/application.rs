//! The order system as an application of the simulator.

use std::{sync::Arc, time::Duration};

use cairn::{StreamId, System, saga::Step as _};
use cairn_local::{Functions, Template, template::TemplateError};
use cairn_simulator::{
    api::{Api, Asked},
    application::{Application, Resources},
    invariants::Invariant,
    observed::Observed,
    platform::Simulated,
    simulation::Simulation,
};
use orders::fulfilment::Step;
use serde_json::{Value, json};

use crate::{
    customers::NAME,
    invariants,
    providers::Providers,
    shop::{Shop, TEMPLATE, prices, system},
};

impl Application for Shop {
    const UNITS: &'static str = "orders";
    const RESOURCES: Resources = Resources {
        dead_letters: &["DeadLettersQueue", "StreamFailuresQueue"],
        redrive: "RedriveDeadLettersFunction",
        watchdog: "WatchFulfilmentsFunction",
    };
    const PERSONAL_DATA: &'static [&'static str] = &[NAME];
    const AT_THE_END: &'static [Invariant<Self>] = &invariants::AT_THE_END;

    /// Odd seeds take prices from the catalogue. Two seeds of four deliver sales through the queue.
    fn template(seed: u64) -> Result<Template, TemplateError> {
        let prices = if seed.is_multiple_of(2) {
            "caller"
        } else {
            "catalogue"
        };
        let delivery = if seed % 4 < 2 { "queue" } else { "rule" };
        system(TEMPLATE, &[("Prices", prices), ("SalesDelivery", delivery)])
    }

    fn load_template() -> Result<Template, TemplateError> {
        // The step of an unavailable payment provider is abandoned after 31 times this.
        system(TEMPLATE, &[("StepTimeoutSeconds", "4")])
    }

    fn system() -> System {
        orders::system()
    }

    fn new(template: &Template, platform: Arc<Simulated>) -> Self {
        Self {
            prices: prices(template),
            providers: Providers::new(platform.clone()),
            platform,
        }
    }

    fn functions(&self) -> Functions {
        let [screening, payments, captures, carrier, mailer] =
            [(); 5].map(|()| self.providers.clone());
        orders_local::functions()
            .with("screen-order", move |app| {
                screen_order::with(app, screening.clone())
            })
            .with("authorize-payment", move |app| {
                authorize_payment::with(app, payments.clone())
            })
            .with("capture-payment", move |app| {
                capture_payment::with(app, captures.clone())
            })
            .with("arrange-shipment", move |app| {
                arrange_shipment::with(app, carrier.clone())
            })
            .with("notify-customer", move |app| {
                notify_customer::with(app, mailer.clone())
            })
    }

    async fn prepare(&self, api: &Api, orders: u32) {
        self.stock_up(api, orders).await;
    }

    async fn client(&self, api: &Api, number: u32, window: Duration) {
        self.customer(api, number, window).await;
    }

    async fn others(&self, api: &Api, orders: u32, window: Duration) {
        self.restock(api, orders / 10, window).await;
    }

    async fn operate(simulation: &Simulation<Self>, turn: u32) {
        // The customer may be ordering, and may order again with the same id.
        let customer = json!({ "customer": format!("c-{turn}") });
        simulation.invoke("ForgetCustomerFunction", &customer).await;
    }

    fn settle(&self, saga: &StreamId, step: &str) -> bool {
        let steps = [
            Step::AuthorizePayment,
            Step::ArrangeShipment,
            Step::CapturePayment,
        ];
        let is_providers = steps.iter().any(|other| other.name() == step);
        if is_providers {
            self.providers.settle(saga.key(), step);
        }
        is_providers
    }

    fn is_justified(&self, seen: &Observed, asked: &Asked, status: u16, body: &Value) -> bool {
        invariants::is_justified(seen, asked, status, body)
    }

    fn missing_effects(&self, seen: &Observed) -> Vec<(String, StreamId, u64)> {
        let mails = self.providers.read().mails;
        let mailed = seen.events().filter(|event| {
            let name = event.event.name.as_str();
            ["OrderConfirmed", "OrderShipped", "OrderCancelled"].contains(&name)
        });
        let missing = mailed.filter(|event| !mails.contains(&event.id()));
        let function = "NotifyCustomerFunction";
        missing
            .map(|event| (function.to_owned(), event.stream.clone(), event.version))
            .collect()
    }

    fn is_step(function: &str) -> bool {
        !function.starts_with("Project") && !function.starts_with("Notify")
    }
}
