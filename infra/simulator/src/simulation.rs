//! One seed, from the first order to the last invariant.

use std::{collections::BTreeSet, fmt::Write, path::Path, sync::Arc, time::Duration};

use cairn::audit::Limits;
use cairn_local::{
    audit::audit,
    aws::roles::Grant,
    composition::{Composition, Parts},
    functions::Functions,
    platform::Platform,
    template::{Parameters, Template, TemplateError},
};
use futures_util::future::{join_all, join3};
use orders::{
    deadlines::Fulfilments,
    fulfilment::{State, Step},
    prices::Prices,
};
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

/// The project's template.
pub const TEMPLATE: &str = include_str!("../../../template.yaml");
/// Where the templates are that it takes in.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A template as it is simulated: its API takes everybody, as customers here have no tokens, and
/// any number of requests, as customers here do not pace themselves.
///
/// # Errors
/// When it is not understood.
pub fn system(text: &str, parameters: &[(&str, &str)]) -> Result<Template, TemplateError> {
    let given = [("Authorization", "none"), ("Prices", "caller")];
    let all: Parameters = given
        .iter()
        .chain(parameters)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Ok(Template::parse_in(Path::new(ROOT), text, &all)?.unthrottled())
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How many orders are placed.
    pub orders: u32,
    /// What goes wrong until the customers are served.
    pub faults: FaultProfile,
    /// The system.
    pub template: Template,
}

impl Plan {
    /// Orders under all faults, in the project's own system. With odd seeds the catalogue has the prices.
    ///
    /// # Errors
    /// When the template is not understood.
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

/// The source of the prices in a system of this template; callers name them where it does not say.
fn prices(template: &Template) -> Prices {
    let settings = template.functions.iter().map(|function| &function.settings);
    let mut prices = settings.filter_map(|settings| settings.get("PRICES")?.parse().ok());
    prices.next().unwrap_or(Prices::Caller)
}

/// An invariant that was broken.
#[derive(Clone, Debug)]
pub struct BrokenInvariant {
    /// Its name.
    pub invariant: &'static str,
    /// What breaks it.
    pub violations: Vec<Violation>,
}

/// What a simulation came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken; nothing, if all is well.
    pub broken: Vec<BrokenInvariant>,
    /// What was counted.
    pub counts: Counts,
    /// The virtual time that passed.
    pub elapsed: Duration,
    /// A digest of every commit in every detail: the same for the same plan.
    pub digest: String,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// Permissions that no function needed, by function.
    pub unused: BTreeSet<(String, Grant)>,
}

/// What people do about a fulfilment that is stuck.
#[derive(Clone, Copy, Debug)]
pub enum Remedy {
    /// They let it try again.
    Resume,
    /// They settle it with the provider, and let it go on without.
    Settle,
    /// One or the other.
    Either,
}

/// How long the customers come, for each order.
const PER_ORDER: Duration = Duration::from_secs(2);
/// How long it is waited for the sagas to end. All retries of all steps of one take a few hours.
const LONGEST: Duration = Duration::from_hours(24);
/// How often people try the same.
const REPEATS: u32 = 5;
/// How often people look after dead letters and stuck sagas while customers come, and forget one of them.
const WATCHES: u32 = 3;
/// How often it is looked whether everything has ended.
const LOOK: Duration = Duration::from_mins(5);

/// Runs a plan on a runtime of its own, on this thread.
///
/// # Panics
/// When the runtime cannot be made or the template does not fit the functions.
pub fn run(plan: &Plan) -> Outcome {
    // The SDK draws its jitter from the thread's generator, and nothing else runs on this thread.
    fastrand::seed(plan.seed);
    on_virtual_time(async {
        let platform = Arc::new(Simulated::new(plan.seed, plan.faults));
        Simulation::begin(plan, platform).run(plan).await
    })
}

/// Runs a future on virtual time, on this thread.
///
/// # Panics
/// When the runtime cannot be made.
pub fn on_virtual_time<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => panic!("a runtime cannot be made: {error}"),
    }
}

/// A system on a simulated platform.
#[derive(Debug)]
pub struct Simulation {
    /// The system.
    pub system: Composition,
    /// Its platform.
    pub platform: Arc<Simulated>,
    /// Its providers.
    pub providers: Providers,
    /// Its customers.
    pub shop: Shop,
}

impl Simulation {
    /// Sets the system of a plan going.
    ///
    /// # Panics
    /// When the template does not fit the functions.
    pub fn begin(plan: &Plan, platform: Arc<Simulated>) -> Self {
        let providers = Providers::new(platform.clone());
        let parts = Parts {
            functions: functions(&providers),
            platform: platform.clone(),
            ..Parts::default()
        };
        let system = match Composition::start(&plan.template, parts) {
            Ok(system) => system,
            Err(error) => panic!("the system cannot be put together: {error}"),
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

    /// Waits until everything has ended, and checks the invariants: under faults first, and then when the
    /// faults are over, mistakes are mended, and people have done what people have to do.
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

    /// What the operator's audit finds, and the bus has not lost.
    async fn audited(&self, seen: &Observed) -> Option<BrokenInvariant> {
        // Nothing is under way any more.
        let limits = Limits {
            settle: Duration::ZERO,
            overdue: Duration::ZERO,
        };
        let audit = audit(&self.system.operator(), self.platform.now(), limits);
        let violations = match audit {
            Ok(audit) => match audit.run::<Fulfilments>(None).await {
                Ok(report) => unexplained(seen, &report),
                Err(error) => vec![violation("the audit", error.to_string())],
            },
            Err(error) => vec![violation("the audit", error.to_string())],
        };
        (!violations.is_empty()).then_some(BrokenInvariant {
            invariant: "the audit finds nothing",
            violations,
        })
    }

    /// Keeps what is put on the bus in the trace.
    fn listen(&self) {
        let (mut seen, platform) = (self.system.aws.bus.watch(), self.platform.clone());
        // It ends with the bus.
        tokio::spawn(async move {
            while let Ok(event) = seen.recv().await {
                let detail: Value = serde_json::from_str(&event.detail).unwrap_or_default();
                let id = detail.get("id").and_then(Value::as_str).unwrap_or_default();
                let next = detail
                    .pointer("/data/next")
                    .map(Value::to_string)
                    .unwrap_or_default();
                if event.kind == "StepRetried" {
                    platform.count("steps asked for again");
                }
                if event.kind == "FulfilmentStuck" {
                    platform.count("sagas stuck");
                }
                platform.say("bus", format_args!("{} {id} {next}", event.kind));
            }
        });
    }

    /// Waits until no order has to be looked after and nothing is under way; not for ever.
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
        // If they do not end, an invariant will say which.
        let _ = timeout(self.platform.pace(LONGEST), ended).await;
    }

    /// The number of deadlines that are open, or stuck.
    pub(crate) fn watched(&self, how: &str) -> usize {
        let rows = self.system.aws.dynamo.items("DeadlinesTable");
        let watches = rows.iter().filter_map(|row| row.get("watch")?.as_str());
        watches.filter(|watch| watch.starts_with(how)).count()
    }

    /// What people do in the end: they deliver the dead letters again, and do something about what is stuck.
    pub async fn help(&self, remedy: Remedy) {
        for _ in 0..REPEATS {
            if self.redrive().await {
                break;
            }
            // One that crashed has left messages hidden.
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

    /// What people do while the faults go on: the same, and it may fail.
    async fn operators(&self, window: Duration) {
        for watch in 0..WATCHES {
            sleep(window / WATCHES).await;
            // Somebody who is ordering, it may be: customers come back under the same id.
            let customer = json!({ "customer": format!("c-{watch}") });
            self.invoke("ForgetCustomerFunction", &customer).await;
            self.redrive().await;
            if self.watched("parked") > 0 {
                self.unstick(Remedy::Either).await;
            }
        }
    }

    /// Delivers the dead letters again, and says whether that was all of them.
    async fn redrive(&self) -> bool {
        let report = self.invoke("RedriveDeadLettersFunction", &json!({})).await;
        report.is_some_and(|report| report.contains("\"complete\":true"))
    }

    /// Resumes each fulfilment that is stuck, or lets it go on without what was settled by hand.
    async fn unstick(&self, remedy: Remedy) {
        for order in self.observed().orders.values() {
            let State::Stuck { step, .. } = order.fulfilment else {
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
            // What is ours can always be undone; it is never settled by hand.
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
                .say("people", format_args!("{function} {event}: {answer}")),
            Err(error) => self
                .platform
                .say("people", format_args!("{function} {event}: {error}")),
        }
        answer.ok()
    }

    /// Everything that is there.
    pub fn observed(&self) -> Observed {
        let books = self.providers.read();
        Observed::new(&self.system.aws, &self.shop, books, self.platform.lost())
    }
}

/// The functions as they are deployed, but for the providers.
fn functions(providers: &Providers) -> Functions {
    let [screening, payments, captures, carrier, mailer] = [(); 5].map(|()| providers.clone());
    Functions::default()
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
        // Writing into a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
