//! One simulation: an application on the simulated platform, from the start to the invariants.

use std::{collections::BTreeSet, fmt::Write, sync::Arc, time::Duration};

use cairn::audit::Limits;
use cairn_local::{
    Composition, Parts, Platform, Template,
    template::{Grant, TemplateError},
};
use futures_util::future::{join_all, join3};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::{
    api::Api,
    application::{Application, Failure},
    faults::FaultProfile,
    guarantees::{at_rest, at_the_end, unexplained},
    invariants::{BrokenInvariant, violation},
    observed::Observed,
    platform::{Counts, Simulated},
    running::{LOOK, Projection, Tables},
};

pub use crate::running::Simulation;

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The number of the clients' units of work.
    pub units: u32,
    /// The faults until all clients are served.
    pub faults: FaultProfile,
    pub template: Template,
}

impl Plan {
    /// Returns a plan with all faults for the application's template.
    pub fn new<A: Application>(seed: u64, units: u32) -> Result<Self, TemplateError> {
        Ok(Self {
            seed,
            units,
            faults: FaultProfile::SEVERE,
            template: A::template(seed)?,
        })
    }
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

/// An operator's action on a stuck saga.
#[derive(Clone, Copy, Debug)]
pub enum Remedy {
    /// Retry the compensation.
    Resume,
    /// Settle the step with the provider, and abandon it.
    Settle,
    Either,
}

/// The time window for new clients, per unit of work.
pub(crate) const PER_UNIT: Duration = Duration::from_secs(2);
/// The maximum number of attempts of an operator's action.
const REPEATS: u32 = 5;
/// The number of times that operators act while clients use the system.
const TURNS: u32 = 3;
/// Runs a plan on a runtime of its own, on the current thread.
///
/// # Panics
///
/// If the runtime cannot be created, or the template does not match the functions.
pub fn run<A: Application>(plan: &Plan) -> Outcome {
    on_virtual_time(plan.seed, async {
        let platform = Simulated::new(plan.seed, plan.faults, A::is_step);
        let simulation = Simulation::<A>::begin(&plan.template, platform);
        simulation.run(plan.units).await
    })
}

/// Runs a future on virtual time, on the current thread.
///
/// # Panics
///
/// If the runtime cannot be created.
pub(crate) fn on_virtual_time<F: Future>(seed: u64, work: F) -> F::Output {
    // The SDK takes its jitter from the thread's generator, and no other work runs on this thread.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => panic!("creating the runtime failed: {error}"),
    }
}

impl<A: Application> Simulation<A> {
    /// Starts the system of a template.
    ///
    /// # Panics
    ///
    /// If the template does not match the functions.
    pub fn begin(template: &Template, platform: Simulated) -> Self {
        let platform = Arc::new(platform);
        let application = A::new(template, platform.clone());
        let parts = Parts {
            functions: application.functions(),
            platform: platform.clone(),
            ..Parts::default()
        };
        let system = match Composition::start(template, parts) {
            Ok(system) => system,
            Err(error) => panic!("starting the system failed: {error}"),
        };
        let tables = Tables::new(template);
        let registry = A::system();
        let read_models = registry.read_models().iter();
        let simulation = Self {
            api: Api::new(system.gateway(), platform.clone()),
            application,
            system,
            platform,
            projections: read_models
                .map(|model| Projection::new(*model, &tables))
                .collect(),
            sagas: registry.sagas().to_vec(),
            tables,
        };
        simulation.listen();
        simulation
    }

    async fn run(self, units: u32) -> Outcome {
        let (application, api, window) = (&self.application, &self.api, PER_UNIT * units);
        application.prepare(api, units).await;
        let clients = (0..units).map(|number| application.client(api, number, window));
        let others = application.others(api, units, window);
        join3(join_all(clients), others, self.operators(window)).await;
        self.judge().await
    }

    /// Waits until everything has ended and checks the invariants. Then ends the faults, fixes the
    /// broken functions, performs the operators' actions, and checks all invariants.
    pub async fn judge(self) -> Outcome {
        self.ended().await;
        let application = &self.application;
        let mut seen = self.observed();
        let mut broken = at_rest(application, &seen);
        self.platform.set_faults(FaultProfile::NONE);
        if broken.is_empty() {
            self.help(Remedy::Either).await;
            seen = self.observed();
            broken.extend(at_rest(application, &seen));
            broken.extend(at_the_end(application, &seen));
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
        let audit = async {
            let audit = self
                .system
                .operator()
                .audit(&A::system(), self.platform.now())?;
            Ok::<_, Failure>(audit.within(limits).run(None).await?)
        };
        let violations = match audit.await {
            Ok(report) => unexplained(seen, &report),
            Err(error) => vec![violation("the audit", error.to_string())],
        };
        BrokenInvariant::new("the audit has no findings", violations)
    }

    /// Adds every event on the bus to the trace.
    fn listen(&self) {
        let (mut seen, platform) = (self.system.aws.bus.watch(), self.platform.clone());
        let stuck: Vec<_> = self.sagas.iter().map(|saga| saga.stuck).collect();
        // The task ends with the bus.
        tokio::spawn(async move {
            while let Ok(event) = seen.recv().await {
                let detail: Value = serde_json::from_str(&event.detail).unwrap_or_default();
                let id = detail.get("id").and_then(Value::as_str).unwrap_or_default();
                let next = detail.pointer("/data/next").map(Value::to_string);
                let next = next.unwrap_or_default();
                if event.kind == "StepRetried" {
                    platform.count("steps retried");
                }
                if stuck.contains(&event.kind.as_str()) {
                    platform.count("sagas stuck");
                }
                platform.say("bus", format_args!("{} {id} {next}", event.kind));
            }
        });
    }

    /// Performs the operators' actions: redrives the dead letters, and resolves stuck sagas.
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
            if self.deadlines("parked") == 0 {
                return;
            }
            self.unstick(remedy).await;
        }
        self.ended().await;
    }

    /// Performs the operators' actions during the faults, under which they can fail.
    async fn operators(&self, window: Duration) {
        for turn in 0..TURNS {
            sleep(window / TURNS).await;
            A::operate(self, turn).await;
            self.redrive().await;
            if self.deadlines("parked") > 0 {
                self.unstick(Remedy::Either).await;
            }
        }
    }

    /// Redrives the dead letters, and returns whether all were handled.
    async fn redrive(&self) -> bool {
        let report = self.invoke(A::RESOURCES.redrive, &json!({})).await;
        report.is_some_and(|report| report.contains("\"complete\":true"))
    }

    /// Resumes each stuck saga, or abandons the step that was settled manually.
    async fn unstick(&self, remedy: Remedy) {
        for (stream, saga) in self.observed().sagas {
            let Some(step) = saga.stuck_at() else {
                continue;
            };
            let is_settled = match remedy {
                Remedy::Resume => false,
                Remedy::Settle => true,
                Remedy::Either => self.platform.below(2) == 0,
            };
            // Only effects outside the system are settled manually; a compensation within the
            // system can always succeed.
            let help = if is_settled && self.application.settle(&stream, step) {
                json!({ "abandon": stream.key(), "reason": "settled by hand" })
            } else {
                json!({ "resume": stream.key() })
            };
            self.invoke(A::RESOURCES.watchdog, &help).await;
        }
    }

    pub fn observed(&self) -> Observed {
        Observed::new(self, A::RESOURCES.dead_letters)
    }
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
