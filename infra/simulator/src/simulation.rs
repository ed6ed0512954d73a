//! Runs one seed, from the first order to the last invariant.

use std::{collections::BTreeSet, fmt::Write, path::Path, sync::Arc, time::Duration};

use cairn::audit::Limits;
use cairn_local::{
    Composition, Functions, Parameters, Parts, Platform, Template,
    template::{Grant, TemplateError},
};
use futures_util::future::{join_all, join3};
use orders::{
    fulfilment::{Phase, Step},
    prices::Prices,
};
use orders_local::audit::audit;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use crate::{
    customers::Shop,
    invariants::{AT_REST, AT_THE_END, Invariant, Violation, unexplained, violation},
    observed::Observed,
    platform::{Counts, FaultProfile, Simulated},
    providers::Providers,
};

pub const TEMPLATE: &str = include_str!("../../../template.yaml");
/// The folder of the nested templates.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns the template with an API without tokens and without throttling, as the simulated
/// customers have no tokens and do not limit their rate.
pub fn system(text: &str, parameters: &[(&str, &str)]) -> Result<Template, TemplateError> {
    let given = [("Authorization", "none"), ("Prices", "caller")];
    let all: Parameters = given
        .iter()
        .chain(parameters)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Ok(Template::parse_in(Path::new(ROOT), text, &all)?.unthrottled())
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub orders: u32,
    /// The faults until all customers are served.
    pub faults: FaultProfile,
    pub template: Template,
}

impl Plan {
    /// Returns a plan with all faults for the project's own template. Odd seeds take prices from
    /// the catalogue.
    pub fn new(seed: u64, orders: u32) -> Result<Self, TemplateError> {
        let prices = if seed.is_multiple_of(2) {
            "caller"
        } else {
            "catalogue"
        };
        Ok(Self {
            seed,
            orders,
            faults: FaultProfile::SEVERE,
            template: system(TEMPLATE, &[("Prices", prices)])?,
        })
    }
}

/// Returns the source of prices in this template; by default it is the caller.
fn prices(template: &Template) -> Prices {
    let settings = template.functions.iter().map(|function| &function.settings);
    let mut prices = settings.filter_map(|settings| settings.get("PRICES")?.parse().ok());
    prices.next().unwrap_or(Prices::Caller)
}

#[derive(Clone, Debug)]
pub struct BrokenInvariant {
    pub invariant: &'static str,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Debug)]
pub struct Outcome {
    /// Empty if every invariant holds.
    pub broken: Vec<BrokenInvariant>,
    pub counts: Counts,
    /// The virtual time that passed.
    pub elapsed: Duration,
    /// A digest of every commit. Equal plans have equal digests.
    pub digest: String,
    pub trace: Vec<String>,
    /// Permissions that no function needed, by function.
    pub unused: BTreeSet<(String, Grant)>,
}

/// An operator's action on a stuck fulfilment.
#[derive(Clone, Copy, Debug)]
pub enum Remedy {
    /// Retry the compensation.
    Resume,
    /// Settle the step with the provider, and abandon it.
    Settle,
    Either,
}

/// The time window for new customers, per order.
const PER_ORDER: Duration = Duration::from_secs(2);
/// The time limit for the sagas to end. All retries of all steps of one saga take a few hours.
const LONGEST: Duration = Duration::from_hours(24);
/// The maximum number of attempts of an operator's action.
const REPEATS: u32 = 5;
/// The number of times that operators redrive dead letters, resolve stuck sagas and erase a
/// customer while orders arrive.
const WATCHES: u32 = 3;
/// The interval of checks for the end.
const LOOK: Duration = Duration::from_mins(5);

/// Runs a plan on a runtime of its own, on the current thread.
///
/// # Panics
///
/// If the runtime cannot be created, or the template does not match the functions.
pub fn run(plan: &Plan) -> Outcome {
    // The SDK takes its jitter from the thread's generator, and no other work runs on this thread.
    fastrand::seed(plan.seed);
    on_virtual_time(async {
        let platform = Arc::new(Simulated::new(plan.seed, plan.faults));
        Simulation::begin(plan, platform).run(plan).await
    })
}

/// Runs a future on virtual time, on the current thread.
///
/// # Panics
///
/// If the runtime cannot be created.
pub fn on_virtual_time<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => panic!("creating the runtime failed: {error}"),
    }
}

/// A system on the simulated platform.
#[derive(Debug)]
pub struct Simulation {
    pub system: Composition,
    pub platform: Arc<Simulated>,
    pub providers: Providers,
    pub shop: Shop,
}

impl Simulation {
    /// Starts the system of a plan.
    ///
    /// # Panics
    ///
    /// If the template does not match the functions.
    pub fn begin(plan: &Plan, platform: Arc<Simulated>) -> Self {
        let providers = Providers::new(platform.clone());
        let parts = Parts {
            functions: functions(&providers),
            platform: platform.clone(),
            ..Parts::default()
        };
        let system = match Composition::start(&plan.template, parts) {
            Ok(system) => system,
            Err(error) => panic!("starting the system failed: {error}"),
        };
        let shop = Shop::new(system.gateway(), prices(&plan.template), platform.clone());
        let simulation = Self {
            system,
            platform,
            providers,
            shop,
        };
        simulation.listen();
        simulation
    }

    async fn run(self, plan: &Plan) -> Outcome {
        let window = PER_ORDER * plan.orders;
        self.shop.stock_up(plan.orders).await;
        let customers = (0..plan.orders).map(|number| self.shop.customer(number, window));
        let restock = self.shop.restock(plan.orders / 10, window);
        join3(join_all(customers), restock, self.operators(window)).await;
        self.judge().await
    }

    /// Waits until everything has ended and checks the invariants. Then ends the faults, fixes the
    /// broken functions, performs the operators' actions, and checks all invariants.
    pub async fn judge(self) -> Outcome {
        self.ended().await;
        let mut seen = self.observed();
        let mut broken = check(&AT_REST, &seen);
        self.platform.set_faults(FaultProfile::NONE);
        if broken.is_empty() {
            self.help(Remedy::Either).await;
            seen = self.observed();
            broken.extend(check(&AT_REST, &seen));
            broken.extend(check(&AT_THE_END, &seen));
            broken.extend(self.audited(&seen).await);
        }
        self.platform.add("commits", seen.commits.len() as u64);
        self.platform.add("events", seen.events().count() as u64);
        Outcome {
            broken,
            counts: self.platform.counts(),
            elapsed: self.platform.elapsed(),
            digest: digest(&seen),
            trace: self.platform.trace(),
            unused: self.system.aws.roles.unused(),
        }
    }

    /// Runs the audit, and returns the findings that lost events do not explain.
    async fn audited(&self, seen: &Observed) -> Option<BrokenInvariant> {
        // The system is at rest.
        let limits = Limits {
            settle: Duration::ZERO,
            overdue: Duration::ZERO,
        };
        let audit = audit(&self.system.operator(), self.platform.now(), limits);
        let violations = match audit {
            Ok(audit) => match audit.run(None).await {
                Ok(report) => unexplained(seen, &report),
                Err(error) => vec![violation("the audit", error.to_string())],
            },
            Err(error) => vec![violation("the audit", error.to_string())],
        };
        (!violations.is_empty()).then_some(BrokenInvariant {
            invariant: "the audit has no findings",
            violations,
        })
    }

    /// Adds every event on the bus to the trace.
    fn listen(&self) {
        let (mut seen, platform) = (self.system.aws.bus.watch(), self.platform.clone());
        // The task ends with the bus.
        tokio::spawn(async move {
            while let Ok(event) = seen.recv().await {
                let detail: Value = serde_json::from_str(&event.detail).unwrap_or_default();
                let id = detail.get("id").and_then(Value::as_str).unwrap_or_default();
                let next = detail
                    .pointer("/data/next")
                    .map(Value::to_string)
                    .unwrap_or_default();
                if event.kind == "StepRetried" {
                    platform.count("steps retried");
                }
                if event.kind == "FulfilmentStuck" {
                    platform.count("sagas stuck");
                }
                platform.say("bus", format_args!("{} {id} {next}", event.kind));
            }
        });
    }

    /// Waits until no order needs the watchdog and nothing is in progress, up to a time limit.
    pub async fn ended(&self) {
        let ended = async {
            loop {
                self.system.settled().await;
                if self.watched("open") == 0 {
                    return;
                }
                sleep(self.platform.pace(LOOK)).await;
            }
        };
        // After the time limit an invariant reports the open sagas.
        let _ = timeout(self.platform.pace(LONGEST), ended).await;
    }

    /// Returns the number of deadlines that are open or need manual action.
    pub(crate) fn watched(&self, how: &str) -> usize {
        let rows = self.system.aws.dynamo.items("DeadlinesTable");
        let watches = rows.iter().filter_map(|row| row.get("watch")?.as_str());
        watches.filter(|watch| watch.starts_with(how)).count()
    }

    /// Performs the operators' actions: redrives the dead letters, and resolves stuck fulfilments.
    pub async fn help(&self, remedy: Remedy) {
        for _ in 0..REPEATS {
            if self.redrive().await {
                break;
            }
            // A crashed redrive has left messages hidden.
            sleep(self.platform.pace(LOOK)).await;
        }
        for _ in 0..REPEATS {
            self.ended().await;
            if self.watched("parked") == 0 {
                return;
            }
            self.unstick(remedy).await;
        }
        self.ended().await;
    }

    /// Performs the operators' actions during the faults, under which they can fail.
    async fn operators(&self, window: Duration) {
        for watch in 0..WATCHES {
            sleep(window / WATCHES).await;
            // The customer may be ordering, and may order again with the same id.
            let customer = json!({ "customer": format!("c-{watch}") });
            self.invoke("ForgetCustomerFunction", &customer).await;
            self.redrive().await;
            if self.watched("parked") > 0 {
                self.unstick(Remedy::Either).await;
            }
        }
    }

    /// Redrives the dead letters, and returns whether all were handled.
    async fn redrive(&self) -> bool {
        let report = self.invoke("RedriveDeadLettersFunction", &json!({})).await;
        report.is_some_and(|report| report.contains("\"complete\":true"))
    }

    /// Resumes each stuck fulfilment, or abandons the step that was settled manually.
    async fn unstick(&self, remedy: Remedy) {
        for order in self.observed().orders.values() {
            let Phase::Stuck { step, .. } = order.fulfilment.phase else {
                continue;
            };
            let is_providers = matches!(
                step,
                Step::AuthorizePayment | Step::ArrangeShipment | Step::CapturePayment
            );
            let is_settled = match remedy {
                Remedy::Resume => false,
                Remedy::Settle => true,
                Remedy::Either => self.platform.below(2) == 0,
            };
            // Only steps at providers are settled manually; a compensation within the system can
            // always succeed.
            let help = if is_settled && is_providers {
                self.providers.settle(&order.id.to_string(), step.name());
                json!({ "abandon": order.id, "reason": "settled by hand" })
            } else {
                json!({ "resume": order.id })
            };
            self.invoke("WatchFulfilmentsFunction", &help).await;
        }
    }

    async fn invoke(&self, function: &str, event: &Value) -> Option<String> {
        let answer = self.system.invoke(function, &event.to_string()).await;
        match &answer {
            Ok(answer) => self
                .platform
                .say("operator", format_args!("{function} {event}: {answer}")),
            Err(error) => self
                .platform
                .say("operator", format_args!("{function} {event}: {error}")),
        }
        answer.ok()
    }

    pub fn observed(&self) -> Observed {
        let books = self.providers.read();
        Observed::new(&self.system.aws, &self.shop, books, self.platform.lost())
    }
}

/// Returns the deployed functions, with simulated providers.
fn functions(providers: &Providers) -> Functions {
    let [screening, payments, captures, carrier, mailer] = [(); 5].map(|()| providers.clone());
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

fn check(invariants: &[Invariant], seen: &Observed) -> Vec<BrokenInvariant> {
    let broken = |(invariant, holds): &Invariant| {
        let violations = holds(seen);
        (!violations.is_empty()).then_some(BrokenInvariant {
            invariant,
            violations,
        })
    };
    invariants.iter().filter_map(broken).collect()
}

fn digest(seen: &Observed) -> String {
    let mut digest = Sha256::new();
    for commit in &seen.commits {
        digest.update(serde_json::to_vec(commit).unwrap_or_default());
    }
    let digest = digest.finalize();
    let mut text = String::new();
    for byte in digest.iter().take(8) {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
