//! The command line: looks for broken guarantees of an application.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    marker::PhantomData,
    panic::resume_unwind,
    process::ExitCode,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use cairn_local::template::TemplateError;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    application::{Application, Failure},
    crashes::{Case, Scenarios, Unit, crashed, undisturbed},
    invariants::BrokenInvariant,
    isolation::{Disturbances, compare},
    load::{self, Progress},
    platform::Counts,
    simulation::{Outcome, Plan, run},
};

/// Simulate the whole system in virtual time, with faults, by seed
///
/// Exit status: 0 every invariant holds for every seed; 1 an invariant is broken, with its seed and
/// trace; 2 an error.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Number of seeds, from 1
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// Run only this seed, and print its trace
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    // The application names the units.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    units: u32,
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "seed", "units"], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    load: Option<u32>,
    // The application names the units.
    #[arg(long, conflicts_with_all = ["units", "load"])]
    crashes: bool,
    #[arg(long, conflicts_with_all = ["seeds", "units", "load", "crashes"])]
    isolation: bool,
    /// Number of concurrent clients of the load test
    #[arg(long, default_value_t = 32, value_name = "N", requires = "load", value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Number of concurrent seeds [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
}

type Test = fn(&Arguments) -> Result<bool, Failure>;

/// The program of an application.
#[derive(Debug)]
pub struct Program<A> {
    name: &'static str,
    crashes: Vec<Test>,
    /// The isolation test, and its disturbances.
    isolation: Option<(Test, String)>,
    application: PhantomData<A>,
}

impl<A: Application> Program<A> {
    /// Returns a program with the name of its package.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            crashes: vec![crash_units::<A>],
            isolation: None,
            application: PhantomData,
        }
    }

    /// Adds the application's scenarios to the crash test.
    #[must_use]
    pub fn scenarios(mut self) -> Self
    where
        A: Scenarios,
    {
        self.crashes.push(|arguments| match arguments.seed {
            // The unit of one seed.
            Some(_) => Ok(true),
            None => crash_everywhere::<A, _>(arguments, A::SCENARIOS),
        });
        self
    }

    /// Adds the isolation test.
    #[must_use]
    pub fn isolation(self) -> Self
    where
        A: Disturbances,
    {
        let names: Vec<_> = A::DISTURBANCES.iter().map(|each| each.name).collect();
        let isolation: Option<(Test, String)> = Some((isolate::<A>, names.join(" and ")));
        Self { isolation, ..self }
    }

    /// Runs the test that the command line selects.
    pub fn run(&self) -> ExitCode {
        let done = self.arguments().and_then(|arguments| {
            if arguments.crashes {
                let tests = self.crashes.iter();
                let passed: Vec<_> = tests
                    .map(|test| test(&arguments))
                    .collect::<Result<_, _>>()?;
                return Ok(passed.into_iter().all(|passed| passed));
            }
            if arguments.isolation {
                let isolation = self.isolation.as_ref();
                let (test, _) = isolation.ok_or("the application has no disturbances")?;
                return test(&arguments);
            }
            match (arguments.seed, arguments.load) {
                (Some(seed), _) => self.replay(seed, arguments.units),
                (None, Some(units)) => under_load::<A>(units, arguments.clients),
                (None, None) => self.explore(&arguments),
            }
        });
        match done {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                // An error of stderr itself cannot be reported.
                let _ = writeln!(io::stderr(), "{}: {error}", self.name);
                ExitCode::from(2)
            }
        }
    }

    /// Parses the command line, with the flags that the application has.
    fn arguments(&self) -> Result<Arguments, Failure> {
        let units = A::UNITS;
        let mut title = units.to_owned();
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let crashes = format!(
            "Crash test: crash every handler at every await, for each distinct history of one of \
             the {units} of a seed"
        );
        let load = format!("Load test: place N {units} over HTTP with faults, in real time");
        let disturbances = self.isolation.as_ref().map(|(_, names)| names.as_str());
        let isolation = format!(
            "Isolation test: compare other {units} beside {}",
            disturbances.unwrap_or_default()
        );
        let command = Arguments::command()
            .name(self.name)
            .mut_arg("units", |arg| {
                arg.long(units).help(format!("{title} per seed"))
            })
            .mut_arg("load", |arg| arg.help(load))
            .mut_arg("crashes", |arg| arg.help(crashes))
            .mut_arg("isolation", |arg| {
                arg.hide(disturbances.is_none()).help(isolation)
            });
        let matches: ArgMatches = command.get_matches();
        Ok(Arguments::from_arg_matches(&matches)?)
    }

    /// Runs one seed and prints its trace, which is the same in every run.
    fn replay(&self, seed: u64, units: u32) -> Result<bool, Failure> {
        let outcome = run::<A>(&Plan::new::<A>(seed, units)?);
        let mut out = io::stdout().lock();
        for line in &outcome.trace {
            writeln!(out, "{line}")?;
        }
        writeln!(out)?;
        metrics(&mut out, &outcome.counts, outcome.elapsed)?;
        writeln!(out, "  {:<26} {}", "digest of all commits", outcome.digest)?;
        if outcome.broken.is_empty() {
            writeln!(out, "\nSeed {seed}: every invariant holds.")?;
        } else {
            self.report(&mut out, seed, units, &outcome)?;
        }
        Ok(outcome.broken.is_empty())
    }

    /// Runs seeds on all cores until one breaks an invariant, or all have run.
    fn explore(&self, arguments: &Arguments) -> Result<bool, Failure> {
        let bar = ProgressBar::new(arguments.seeds);
        bar.set_style(ProgressStyle::with_template(
            "{bar:40} {pos}/{len} seeds, {elapsed}, {eta} to go",
        )?);
        let begun = Instant::now();
        let next = AtomicU64::new(1);
        let broken = AtomicBool::new(false);
        let sum = Mutex::new((Counts::new(), Duration::ZERO, 0_u64));
        let worst = Mutex::new(BTreeMap::<u64, Outcome>::new());
        let worker = || -> Result<(), TemplateError> {
            while !broken.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > arguments.seeds {
                    break;
                }
                let outcome = run::<A>(&Plan::new::<A>(seed, arguments.units)?);
                advance(&bar, "seeds");
                let mut sum = lock(&sum);
                for (name, count) in &outcome.counts {
                    *sum.0.entry(name).or_default() += count;
                }
                sum.1 += outcome.elapsed;
                sum.2 += 1;
                if !outcome.broken.is_empty() {
                    broken.store(true, Ordering::Relaxed);
                    lock(&worst).insert(seed, outcome);
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs(arguments)).map(|_| scope.spawn(worker)).collect();
            let mut done = workers.into_iter().map(ScopedJoinHandle::join);
            done.try_for_each(|done| done.unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        bar.finish_and_clear();

        let (counts, elapsed, seeds) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut out = io::stdout().lock();
        metrics(&mut out, &counts, elapsed)?;
        let real = begun.elapsed();
        let rate = f64::from(u32::try_from(seeds)?) / real.as_secs_f64();
        writeln!(out, "  {:<26} {rate:.2}", "seeds per second")?;
        let first = lock(&worst).pop_first();
        let Some((seed, outcome)) = first else {
            writeln!(
                out,
                "\n{seeds} seeds of {} {}: every invariant holds.",
                arguments.units,
                A::UNITS
            )?;
            return Ok(true);
        };
        let plan = Plan::new::<A>(seed, arguments.units)?;
        let (units, outcome) = shrunk::<A>(&plan, outcome);
        self.report(&mut out, seed, units, &outcome)?;
        Ok(false)
    }

    fn report(
        &self,
        out: &mut impl Write,
        seed: u64,
        units: u32,
        outcome: &Outcome,
    ) -> io::Result<()> {
        for broken in &outcome.broken {
            writeln!(out, "\nSeed {seed} breaks: {}", broken.invariant)?;
            violations(out, broken)?;
        }
        let mut violations = outcome.broken.iter().flat_map(|broken| &broken.violations);
        if let Some(violation) = violations.next() {
            let about = &violation.about;
            writeln!(out, "\nTrace of {about}:")?;
            for line in outcome.trace.iter().filter(|line| line.contains(about)) {
                writeln!(out, "  {line}")?;
            }
        }
        let (name, flag) = (self.name, A::UNITS);
        writeln!(
            out,
            "\nPrint the complete trace:\n  cargo run --release -p {name} -- --seed {seed} --{flag} {units}"
        )
    }
}

/// Halves the number of units as long as the same seed breaks the same invariant.
fn shrunk<A: Application>(plan: &Plan, outcome: Outcome) -> (u32, Outcome) {
    let wanted = outcome.broken.first().map(|broken| broken.invariant);
    let mut smallest = (plan.units, outcome);
    let mut units = plan.units / 2;
    while units > 0 {
        let outcome = run::<A>(&Plan {
            units,
            ..plan.clone()
        });
        let mut broken = outcome.broken.iter();
        if broken.any(|broken| Some(broken.invariant) == wanted) {
            smallest = (units, outcome);
        }
        units /= 2;
    }
    smallest
}

/// Crashes the handlers for one unit of each seed.
fn crash_units<A: Application>(arguments: &Arguments) -> Result<bool, Failure> {
    let seeds = arguments
        .seed
        .map_or(1..=arguments.seeds, |seed| seed..=seed);
    crash_everywhere::<A, _>(arguments, &seeds.map(Unit).collect::<Vec<_>>())
}

/// Crashes each handler at each await. Cases with the same history are one. The cores share the
/// crashes of all cases.
fn crash_everywhere<A: Application, C: Case<A>>(
    arguments: &Arguments,
    cases: &[C],
) -> Result<bool, Failure> {
    let template = A::template(0)?;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} crashes, {elapsed}, {eta} to go",
    )?);
    let differences = Mutex::new(BTreeMap::new());
    let differs = |number, difference| {
        lock(&differences).entry(number).or_insert(difference);
    };
    let known = Mutex::new(BTreeMap::new());
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    on_all_cores(arguments, &numbered, |&(number, case)| {
        match undisturbed(case, &template) {
            Ok(found) => {
                lock(&known).insert(number, found);
            }
            Err(difference) => differs(number, difference),
        }
    });
    let mut known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut histories = BTreeSet::new();
    known.retain(|_, found| histories.insert(found.history.clone()));
    let crashes: Vec<_> = known
        .iter()
        .flat_map(|(number, found)| {
            found
                .crashes
                .iter()
                .map(move |crash| (*number, found, crash))
        })
        .collect();
    bar.set_length(crashes.len() as u64);
    on_all_cores(arguments, &crashes, |&(number, found, crash)| {
        if let Some(case) = cases.get(number)
            && let Err(difference) = crashed(case, &template, &found.ending, crash)
        {
            differs(number, difference);
        }
        advance(&bar, "crashes");
    });
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    let differences = lock(&differences);
    for (number, case) in numbered {
        let name = case.name();
        if let Some(difference) = differences.get(&number) {
            writeln!(out, "\n{name}: {difference}")?;
            for line in &difference.trace {
                writeln!(out, "  {line}")?;
            }
        } else if let Some(found) = known.get(&number) {
            let (crashes, awaits) = (found.crashes.len(), found.awaits);
            writeln!(
                out,
                "  {name}: correct after each of {crashes} crashes, which cover {awaits} awaits"
            )?;
            if found.history != name {
                writeln!(out, "    {}", found.history)?;
            }
        }
    }
    Ok(differences.is_empty())
}

/// Compares each disturbance with the same run without it.
fn isolate<A: Disturbances>(arguments: &Arguments) -> Result<bool, Failure> {
    let seed = arguments.seed.unwrap_or(1);
    let reports = Mutex::new(vec![]);
    on_all_cores(arguments, A::DISTURBANCES, |disturbance| {
        let report = compare::<A>(seed, disturbance);
        lock(&reports).push((disturbance.name, report));
    });
    let mut out = io::stdout().lock();
    let mut holds = true;
    for (name, report) in reports.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let (report, units) = (report?, A::UNITS);
        writeln!(
            out,
            "{name}: other {units} take up to {:.1?}; {:.1?} without it, and {:.1?} are allowed",
            report.longest, report.undisturbed, report.allowed
        )?;
        holds &= finish(&mut out, &report.outcome, report.outcome.elapsed)?;
    }
    Ok(holds)
}

fn under_load<A: Application>(units: u32, clients: u32) -> Result<bool, Failure> {
    let unit = A::UNITS;
    let bar = ProgressBar::new(units.into());
    bar.set_style(ProgressStyle::with_template(&format!(
        "{{bar:40}} {{pos}}/{{len}} {unit}, {{elapsed}}{{msg}}"
    ))?);
    bar.enable_steady_tick(Duration::from_secs(1));
    let told = |progress| match progress {
        Progress::Begun => bar.inc(1),
        Progress::Open(open, outstanding) => {
            let text = format!("{open} {unit} unfinished, {outstanding} deliveries in progress");
            // Without a terminal, print lines instead of the bar.
            if bar.is_hidden() {
                let _ = writeln!(io::stderr(), "{text}");
            }
            bar.set_message(format!("; {text}"));
        }
    };
    let begun = Instant::now();
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(load::run::<A>(units, clients, told))?;
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    let holds = finish(&mut out, &outcome, begun.elapsed())?;
    if holds {
        writeln!(
            out,
            "\n{units} {unit} from {clients} clients: every invariant holds."
        )?;
    }
    Ok(holds)
}

/// Advances the bar by one. Without a terminal, prints a line for each tenth instead.
fn advance(bar: &ProgressBar, what: &str) {
    bar.inc(1);
    let (done, all) = (bar.position(), bar.length().unwrap_or(0).max(1));
    if bar.is_hidden() && done * 10 / all > (done - 1) * 10 / all {
        let _ = writeln!(io::stderr(), "{done} of {all} {what}");
    }
}

fn on_all_cores<T: Sync>(arguments: &Arguments, items: &[T], each: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..jobs(arguments) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(item);
                }
            });
        }
    });
}

fn jobs(arguments: &Arguments) -> u64 {
    let cores = || thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    arguments.jobs.unwrap_or_else(cores)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the result of a run, and returns whether every invariant holds.
fn finish(out: &mut impl Write, outcome: &Outcome, elapsed: Duration) -> io::Result<bool> {
    metrics(out, &outcome.counts, elapsed)?;
    for broken in &outcome.broken {
        writeln!(out, "\nBroken: {}", broken.invariant)?;
        violations(out, broken)?;
    }
    Ok(outcome.broken.is_empty())
}

/// The maximum number of violations that are shown of one invariant.
const SHOWN: usize = 3;

fn violations(out: &mut impl Write, broken: &BrokenInvariant) -> io::Result<()> {
    for violation in broken.violations.iter().take(SHOWN) {
        writeln!(out, "  {}: {}", violation.about, violation.problem)?;
    }
    match broken.violations.len().checked_sub(SHOWN) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(out, "  and {more} more"),
    }
}

fn metrics(out: &mut impl Write, counts: &Counts, elapsed: Duration) -> io::Result<()> {
    for (name, count) in counts {
        writeln!(out, "  {name:<26} {count}")?;
    }
    writeln!(out, "  {:<26} {}", "seconds", elapsed.as_secs())
}
