//! Crashes every handler at every await, in scenarios of an application. Each crash must leave the
//! ending unchanged. Awaits between which a handler changes nothing are one case.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use cairn_local::Template;

use crate::{
    application::Application,
    faults::FaultProfile,
    guarantees::{at_rest, at_the_end},
    observed::Observed,
    platform::{Crash, Simulated},
    simulation::{Remedy, Simulation, on_virtual_time},
};

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

/// A scenario without a crash.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Undisturbed {
    pub ending: Ending,
    /// The crashes to try. One of them covers all awaits between which its invocation changes
    /// nothing, because a crash at any of them leaves the same system.
    pub crashes: Vec<Crash>,
    /// The number of awaits that the crashes cover.
    pub awaits: usize,
}

/// Runs a scenario without a crash. Hundreds of invocations of the watchdog change nothing; only
/// the first of them is to be crashed.
pub fn undisturbed<A: Scenarios>(
    scenario: &Scenario<A::Story>,
    template: &Template,
) -> Result<Undisturbed, Box<Difference>> {
    let (ending, platform) = play::<A>(scenario, template, None)?;
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
        ending,
        crashes,
        awaits,
    })
}

/// Runs a scenario with a crash. It is an error if the ending differs.
pub fn crashed<A: Scenarios>(
    scenario: &Scenario<A::Story>,
    template: &Template,
    expected: &Ending,
    crash: &Crash,
) -> Result<(), Box<Difference>> {
    let (ending, platform) = play::<A>(scenario, template, Some(crash))?;
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

fn play<A: Scenarios>(
    scenario: &Scenario<A::Story>,
    template: &Template,
    crash: Option<&Crash>,
) -> Result<(Ending, Arc<Simulated>), Box<Difference>> {
    on_virtual_time(1, async {
        let platform = Simulated::new(1, scenario.faults, A::is_step);
        if let Some(crash) = crash {
            platform.crash_at(crash.clone());
        }
        let simulation = Simulation::<A>::begin(template, platform);
        A::act(&simulation, &scenario.story).await;
        simulation.ended().await;
        simulation.platform.set_faults(FaultProfile::NONE);
        simulation.help(scenario.remedy).await;
        let (application, seen) = (&simulation.application, simulation.observed());
        let mut broken = at_rest(application, &seen);
        broken.extend(at_the_end(application, &seen));
        match broken.first() {
            None => Ok((application.ending(&seen), simulation.platform.clone())),
            Some(broken) => Err(Box::new(Difference {
                crash: crash.cloned(),
                problem: format!("broken: {}: {:?}", broken.invariant, broken.violations),
                trace: simulation.platform.trace(),
            })),
        }
    })
}
