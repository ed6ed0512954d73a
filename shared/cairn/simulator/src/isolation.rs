//! A run beside a disturbance, compared with the same run without it.
//!
//! A disturbance keeps invocations busy, and the account is so small that it uses up its
//! concurrency. With reservations the API answers every request, and every other unit of work ends
//! in time. There are no faults.

use std::{collections::BTreeMap, future::Future, time::Duration};

use cairn::Timestamp;
use cairn_local::{Platform, Template, template::TemplateError};
use futures_util::future::{join_all, join3};
use tokio::time::sleep;

use crate::{
    api::Api,
    application::Application,
    faults::FaultProfile,
    invariants::{BrokenInvariant, Violation, violation},
    observed::Observed,
    platform::Simulated,
    simulation::{Outcome, Simulation, on_virtual_time},
};

/// An application with disturbances.
pub trait Disturbances: Application {
    /// The actions of a disturbance's clients.
    type Story: Sync + 'static;

    const DISTURBANCES: &'static [Disturbance<Self::Story>];
    /// The account's quota of concurrent invocations; on AWS the default is 1,000.
    const CONCURRENCY: usize;
    /// The longest travel time of a transaction.
    const TRANSACTION: Duration;
    /// The number of other units of work, and the time in which they begin.
    const OTHERS: u32;
    const WINDOW: Duration;

    /// Returns the template with or without reserved concurrency.
    fn reserved(is_reserved: bool) -> Result<Template, TemplateError>;

    /// Begins another unit of work, and returns the key of its stream.
    fn begin(&self, api: &Api, number: u32) -> impl Future<Output = Option<String>>;

    /// Performs the actions of a disturbance.
    fn disturb(&self, api: &Api, story: &Self::Story) -> impl Future<Output = ()>;

    /// Sends one query.
    fn read(&self, api: &Api) -> impl Future<Output = ()>;

    /// Returns the end of a unit of work, if it ended as expected.
    fn ended_at(seen: &Observed, key: &str) -> Option<Timestamp>;
}

/// Units of work that begin within seconds and compete with the others.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance<S> {
    pub name: &'static str,
    pub story: S,
    /// Its number of units of work.
    pub units: u32,
    /// The time for which one of its units keeps a reservation full.
    pub full: Duration,
    /// The steps of another unit at which the reservation can be full.
    pub steps: u32,
}

impl<S> Disturbance<S> {
    /// Returns the longest delay of another unit of work.
    ///
    /// Lambda retries a throttled event after 1, 3, 7, 15, ... seconds. The first retry after the
    /// reservation was full for a time is therefore at most twice that time and a second later.
    fn delay(&self) -> Duration {
        2 * self.full * self.units + Duration::from_secs(1) * self.steps
    }
}

/// The interval of reads.
const READ: Duration = Duration::from_millis(100);

/// A run with a disturbance, compared with the same run without it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Report {
    /// The run with the disturbance, and all invariants that it breaks.
    pub outcome: Outcome,
    /// The longest time from the request for another unit of work to its end.
    pub longest: Duration,
    /// The same without the disturbance.
    pub undisturbed: Duration,
    pub allowed: Duration,
}

/// Runs a disturbance with reservations to its end.
pub fn compare<A: Disturbances>(
    seed: u64,
    disturbance: &Disturbance<A::Story>,
) -> Result<Report, TemplateError> {
    let template = A::reserved(true)?;
    let run = |disturbing| run::<A>(seed, &template, disturbance.units, disturbing);
    let (_, undisturbed) = run(None);
    let (mut outcome, longest) = run(Some(disturbance));
    let allowed = undisturbed.saturating_add(disturbance.delay());
    if longest > allowed {
        let late = violation(A::UNITS, format!("another took {longest:.1?}"));
        let broken = BrokenInvariant::new("others end in time", vec![late]);
        outcome.broken.extend(broken);
    }
    Ok(Report {
        outcome,
        longest,
        undisturbed,
        allowed,
    })
}

/// Returns the requests that the API does not answer during a disturbance.
pub fn refusals<A: Disturbances>(
    seed: u64,
    disturbance: &Disturbance<A::Story>,
    is_reserved: bool,
) -> Result<Vec<Violation>, TemplateError> {
    let template = A::reserved(is_reserved)?;
    Ok(on_virtual_time(seed, async {
        let units = disturbance.units;
        let (simulation, _) = begin_all::<A>(seed, &template, units, Some(disturbance)).await;
        refused(&simulation.observed())
    }))
}

/// Returns the outcome, and the longest time of another unit of work.
fn run<A: Disturbances>(
    seed: u64,
    template: &Template,
    units: u32,
    disturbance: Option<&Disturbance<A::Story>>,
) -> (Outcome, Duration) {
    on_virtual_time(seed, async {
        let (simulation, others) = begin_all::<A>(seed, template, units, disturbance).await;
        simulation.ended().await;
        let ended = simulation.observed();
        let mut outcome = simulation.judge().await;
        let refused = BrokenInvariant::new("the API answers every request", refused(&ended));
        outcome.broken.extend(refused);
        let times = others.iter().map(|(key, asked)| {
            let took = A::ended_at(&ended, key).map(|end| end.as_millis() - asked.as_millis());
            let took = took.and_then(|took| u64::try_from(took).ok());
            took.map_or(Duration::MAX, Duration::from_millis)
        });
        (outcome, times.max().unwrap_or(Duration::MAX))
    })
}

/// Starts a system and begins all units of work. Returns the keys of the others with the times of
/// their requests.
async fn begin_all<A: Disturbances>(
    seed: u64,
    template: &Template,
    units: u32,
    disturbance: Option<&Disturbance<A::Story>>,
) -> (Simulation<A>, BTreeMap<String, Timestamp>) {
    let platform = Simulated::new(seed, FaultProfile::NONE, A::is_step);
    let platform = platform.narrow(A::CONCURRENCY, A::TRANSACTION);
    let simulation = Simulation::<A>::begin(template, platform);
    let (application, api) = (&simulation.application, &simulation.api);
    application.prepare(api, A::OTHERS + units).await;
    let others = (0..A::OTHERS).map(async |number| {
        sleep(A::WINDOW / A::OTHERS * number).await;
        let asked = simulation.platform.now();
        Some((application.begin(api, number).await?, asked))
    });
    let disturbing = async {
        if let Some(disturbance) = disturbance {
            application.disturb(api, &disturbance.story).await;
        }
    };
    let reading = async {
        let end = simulation.platform.elapsed() + A::WINDOW;
        while simulation.platform.elapsed() < end {
            application.read(api).await;
            sleep(READ).await;
        }
    };
    let (others, (), ()) = join3(join_all(others), disturbing, reading).await;
    let others = others.into_iter().flatten().collect();
    (simulation, others)
}

fn refused(seen: &Observed) -> Vec<Violation> {
    let commands = seen.asked.iter().flat_map(|asked| {
        let statuses = asked.answers.iter().map(|(status, _)| *status);
        statuses.map(|status| (asked.command.operation, status))
    });
    let queries = seen.looked.iter();
    let queries = queries.map(|looked| (looked.path.as_str(), looked.answer.0));
    commands
        .chain(queries)
        .filter(|(_, status)| *status >= 500)
        .map(|(request, status)| violation(request, status.to_string()))
        .collect()
}
