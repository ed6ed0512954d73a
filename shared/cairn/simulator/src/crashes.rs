//! Crashes every handler at every await. Awaits between which a handler changes nothing are one
//! crash.
//!
//! Any application has [`Unit`]s: one unit of its clients' work per seed. Every invariant must hold
//! after each crash. An application can add [`Scenarios`] with fixed actions, whose ending no crash
//! may change.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use cairn_local::Template;

use crate::{
    application::Application,
    faults::FaultProfile,
    guarantees::{at_rest, at_the_end},
    observed::Observed,
    platform::{Crash, Simulated},
    simulation::{PER_UNIT, Remedy, Simulation, on_virtual_time},
};

/// The actions during which handlers are crashed.
#[doc(hidden)]
pub trait Case<A: Application>: Sync {
    fn name(&self) -> String;

    /// Returns the same text for cases of which one is enough.
    fn history(&self, _seen: &Observed) -> String {
        self.name()
    }

    fn seed(&self) -> u64 {
        1
    }

    /// Returns the faults, which end with the clients' actions.
    fn faults(&self) -> FaultProfile {
        FaultProfile::NONE
    }

    fn remedy(&self) -> Remedy {
        Remedy::Either
    }

    /// Performs the clients' actions.
    fn act(&self, simulation: &Simulation<A>) -> impl Future<Output = ()>;

    /// Summarizes what no crash may change in the final state, without times and ids.
    fn ending(&self, application: &A, seen: &Observed) -> Ending;
}

/// One unit of work of a seed. A crash delays it, and its client may then act differently, so only
/// the invariants are checked.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Unit(pub u64);

impl<A: Application> Case<A> for Unit {
    fn name(&self) -> String {
        format!("seed {}", self.0)
    }

    /// Returns the event types of each stream.
    fn history(&self, seen: &Observed) -> String {
        let streams = seen.streams.iter().map(|(stream, events)| {
            let types = events.iter().map(|event| event.event.name.as_str());
            let types: Vec<_> = types.collect();
            format!("{}: {}", stream.category(), types.join(", "))
        });
        let streams: Vec<_> = streams.collect();
        streams.join("; ")
    }

    fn seed(&self) -> u64 {
        self.0
    }

    async fn act(&self, simulation: &Simulation<A>) {
        let (application, api) = (&simulation.application, &simulation.api);
        application.prepare(api, 1).await;
        application.client(api, 0, PER_UNIT).await;
    }

    fn ending(&self, _: &A, _: &Observed) -> Ending {
        Ending::new()
    }
}

/// An application with scenarios for crashes.
pub trait Scenarios: Application {
    /// The clients' actions in a scenario.
    type Story: Sync + 'static;

    const SCENARIOS: &'static [Scenario<Self::Story>];

    /// Performs the clients' actions.
    fn act(simulation: &Simulation<Self>, story: &Self::Story) -> impl Future<Output = ()>;

    /// Summarizes the final state, without times and ids.
    fn ending(&self, seen: &Observed) -> Ending;
}

#[derive(Clone, Copy, Debug)]
pub struct Scenario<S> {
    pub name: &'static str,
    pub story: S,
    /// The faults, which end with the clients' actions.
    pub faults: FaultProfile,
    pub remedy: Remedy,
}

impl<A: Scenarios> Case<A> for Scenario<A::Story> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn faults(&self) -> FaultProfile {
        self.faults
    }

    fn remedy(&self) -> Remedy {
        self.remedy
    }

    fn act(&self, simulation: &Simulation<A>) -> impl Future<Output = ()> {
        A::act(simulation, &self.story)
    }

    fn ending(&self, application: &A, seen: &Observed) -> Ending {
        application.ending(seen)
    }
}

/// A crash that changes the ending.
#[doc(hidden)]
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

/// A case without a crash.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Undisturbed {
    pub history: String,
    pub ending: Ending,
    /// The crashes to try. One of them covers all awaits between which its invocation changes
    /// nothing, because a crash at any of them leaves the same system.
    pub crashes: Vec<Crash>,
    /// The number of awaits that the crashes cover.
    pub awaits: usize,
}

/// Runs a case without a crash. Hundreds of invocations of the watchdog change nothing; only
/// the first of them is to be crashed.
pub fn undisturbed<A: Application>(
    case: &impl Case<A>,
    template: &Template,
) -> Result<Undisturbed, Box<Difference>> {
    let (history, ending, platform) = play(case, template, None)?;
    let (mut crashes, mut awaits) = (vec![], 0);
    for (function, invocations) in platform.waits() {
        let mut has_idled = false;
        for (invocation, waits) in invocations.iter().enumerate() {
            let is_idle = function == A::RESOURCES.watchdog && waits.first() == waits.last();
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
        history,
        ending,
        crashes,
        awaits,
    })
}

/// Runs a case with a crash. It is an error if the ending differs.
pub fn crashed<A: Application>(
    case: &impl Case<A>,
    template: &Template,
    expected: &Ending,
    crash: &Crash,
) -> Result<(), Box<Difference>> {
    let (_, ending, platform) = play(case, template, Some(crash))?;
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

fn play<A: Application>(
    case: &impl Case<A>,
    template: &Template,
    crash: Option<&Crash>,
) -> Result<(String, Ending, Arc<Simulated>), Box<Difference>> {
    on_virtual_time(case.seed(), async {
        let platform = Simulated::new(case.seed(), case.faults(), A::is_step);
        if let Some(crash) = crash {
            platform.crash_at(crash.clone());
        }
        let simulation = Simulation::<A>::begin(template, platform);
        case.act(&simulation).await;
        simulation.ended().await;
        simulation.platform.set_faults(FaultProfile::NONE);
        simulation.help(case.remedy()).await;
        let (application, seen) = (&simulation.application, simulation.observed());
        let mut broken = at_rest(application, &seen);
        broken.extend(at_the_end(application, &seen));
        match broken.first() {
            None => Ok((
                case.history(&seen),
                case.ending(application, &seen),
                simulation.platform.clone(),
            )),
            Some(broken) => Err(Box::new(Difference {
                crash: crash.cloned(),
                problem: format!("broken: {}: {:?}", broken.invariant, broken.violations),
                trace: simulation.platform.trace(),
            })),
        }
    })
}
