//! `cargo run --release -p cairn-simulator -- --seeds 1000`: looks for broken guarantees.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cairn_simulator::{
    crashes::{SCENARIOS, crashed, undisturbed},
    isolation::{DISTURBANCES, compare},
    load::{self, Progress},
    platform::Counts,
    simulation::{BrokenInvariant, Outcome, Plan, run},
};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// A simulation is single-threaded and allocates constantly; mimalloc saves a quarter of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulate the whole system in virtual time, with faults, by seed
///
/// Exit status: 0 every invariant holds for every seed; 1 an invariant is broken, with its seed and
/// trace; 2 an error.
#[derive(Debug, Parser)]
#[command(name = "cairn-simulator", version)]
struct Arguments {
    /// Number of seeds, from 1
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// Run only this seed, and print its trace
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Orders per seed
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    orders: u32,
    /// Load test: place N orders over HTTP with faults, in real time
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "seed", "orders"], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    load: Option<u32>,
    /// Crash test: crash every handler at every await point
    #[arg(long, conflicts_with_all = ["seeds", "seed", "orders", "load"])]
    crashes: bool,
    /// Isolation test: compare other orders beside a hot product and a hanging payment provider
    #[arg(long, conflicts_with_all = ["seeds", "orders", "load", "crashes"])]
    isolation: bool,
    /// Number of concurrent clients of the load test
    #[arg(long, default_value_t = 32, value_name = "N", requires = "load", value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Number of concurrent seeds [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.crashes {
        return status(crash_everywhere(&arguments));
    }
    if arguments.isolation {
        return status(isolate(&arguments));
    }
    let done = match (arguments.seed, arguments.load) {
        (Some(seed), _) => replay(seed, arguments.orders),
        (None, Some(orders)) => under_load(orders, arguments.clients),
        (None, None) => explore(&arguments),
    };
    status(done)
}

fn status(done: Result<bool, Failure>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // An error of stderr itself cannot be reported.
            let _ = writeln!(io::stderr(), "cairn-simulator: {error}");
            ExitCode::from(2)
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs one seed and prints its trace, which is the same in every run.
fn replay(seed: u64, orders: u32) -> Result<bool, Failure> {
    let outcome = run(&Plan::new(seed, orders)?);
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
        report(&mut out, seed, orders, &outcome)?;
    }
    Ok(outcome.broken.is_empty())
}

/// Crashes each handler at each await. The cores share the crashes of all scenarios.
fn crash_everywhere(arguments: &Arguments) -> Result<bool, Failure> {
    let template = Plan::new(0, 1)?.template;
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} crashes, {elapsed}, {eta} to go",
    )?);
    let differences = Mutex::new(BTreeMap::new());
    let scenarios: Vec<_> = SCENARIOS.iter().enumerate().collect();
    let differs = |number, difference| {
        let mut differences = differences.lock().unwrap_or_else(PoisonError::into_inner);
        differences.entry(number).or_insert(difference);
    };
    let known = Mutex::new(BTreeMap::new());
    on_all_cores(
        arguments,
        &scenarios,
        |&(number, scenario)| match undisturbed(scenario, &template) {
            Ok(found) => {
                bar.inc_length(found.crashes.len() as u64);
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(number, (scenario, found));
            }
            Err(difference) => differs(number, difference),
        },
    );
    let known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
    let crashes: Vec<_> = known
        .iter()
        .flat_map(|(number, (scenario, found))| {
            let crashes = found.crashes.iter();
            crashes.map(move |crash| (*number, *scenario, &found.ending, crash))
        })
        .collect();
    on_all_cores(arguments, &crashes, |(number, scenario, ending, crash)| {
        if let Err(difference) = crashed(scenario, &template, ending, crash) {
            differs(*number, difference);
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    let differences = differences
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    for (number, scenario) in scenarios {
        if let Some(difference) = differences.get(&number) {
            writeln!(out, "\n{}: {difference}", scenario.name)?;
            for line in &difference.trace {
                writeln!(out, "  {line}")?;
            }
        } else if let Some((_, found)) = known.get(&number) {
            writeln!(
                out,
                "  {}: same ending after each of {} crashes, which cover {} awaits",
                scenario.name,
                found.crashes.len(),
                found.awaits
            )?;
        }
    }
    Ok(differences.is_empty())
}

/// Compares each disturbance with the same run without it.
fn isolate(arguments: &Arguments) -> Result<bool, Failure> {
    let seed = arguments.seed.unwrap_or(1);
    let reports = Mutex::new(vec![]);
    on_all_cores(arguments, &DISTURBANCES, |disturbance| {
        let report = compare(seed, disturbance);
        let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.push((disturbance.name, report));
    });
    let mut out = io::stdout().lock();
    let mut holds = true;
    for (name, report) in reports.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let report = report?;
        writeln!(
            out,
            "{name}: other orders take up to {:.1?}; {:.1?} without it, and {:.1?} are allowed",
            report.longest, report.undisturbed, report.allowed
        )?;
        metrics(&mut out, &report.outcome.counts, report.outcome.elapsed)?;
        for broken in &report.outcome.broken {
            writeln!(out, "\nBroken: {}", broken.invariant)?;
            shown(&mut out, broken)?;
        }
        holds &= report.outcome.broken.is_empty();
    }
    Ok(holds)
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

fn under_load(orders: u32, clients: u32) -> Result<bool, Failure> {
    let bar = ProgressBar::new(orders.into());
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} orders, {elapsed}{msg}",
    )?);
    bar.enable_steady_tick(Duration::from_secs(1));
    let told = |progress| match progress {
        Progress::Placed => bar.inc(1),
        Progress::Open(open, under_way) => {
            let text = format!("{open} orders unfinished, {under_way} deliveries in progress");
            // Without a terminal, print lines instead of the bar.
            if bar.is_hidden() {
                let _ = writeln!(io::stderr(), "{text}");
            }
            bar.set_message(format!("; {text}"));
        }
    };
    let begun = Instant::now();
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(load::run(orders, clients, told))?;
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    metrics(&mut out, &outcome.counts, begun.elapsed())?;
    for broken in &outcome.broken {
        writeln!(out, "\nBroken: {}", broken.invariant)?;
        shown(&mut out, broken)?;
    }
    if outcome.broken.is_empty() {
        writeln!(
            out,
            "\n{orders} orders from {clients} clients: every invariant holds."
        )?;
    }
    Ok(outcome.broken.is_empty())
}

/// Runs seeds on all cores until one breaks an invariant, or all have run.
fn explore(arguments: &Arguments) -> Result<bool, Failure> {
    let plan = Plan::new(0, arguments.orders)?;
    let bar = ProgressBar::new(arguments.seeds);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} seeds, {elapsed}, {eta} to go",
    )?);
    let begun = Instant::now();
    let next = AtomicU64::new(1);
    let broken = AtomicBool::new(false);
    let sum = Mutex::new((Counts::new(), Duration::ZERO, 0_u64));
    let worst = Mutex::new(BTreeMap::<u64, Outcome>::new());
    thread::scope(|scope| {
        for _ in 0..jobs(arguments) {
            scope.spawn(|| {
                while !broken.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > arguments.seeds {
                        return;
                    }
                    let outcome = run(&Plan {
                        seed,
                        ..plan.clone()
                    });
                    bar.inc(1);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    for (name, count) in &outcome.counts {
                        *sum.0.entry(name).or_default() += count;
                    }
                    sum.1 += outcome.elapsed;
                    sum.2 += 1;
                    if !outcome.broken.is_empty() {
                        broken.store(true, Ordering::Relaxed);
                        let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
                        worst.insert(seed, outcome);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();

    let (counts, elapsed, seeds) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut out = io::stdout().lock();
    metrics(&mut out, &counts, elapsed)?;
    let real = begun.elapsed();
    let rate = f64::from(u32::try_from(seeds)?) / real.as_secs_f64();
    writeln!(out, "  {:<26} {rate:.2}", "seeds per second")?;
    let worst = worst.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some((seed, outcome)) = worst.into_iter().next() else {
        writeln!(
            out,
            "\n{seeds} seeds of {} orders: every invariant holds.",
            arguments.orders
        )?;
        return Ok(true);
    };
    let (orders, outcome) = shrunk(&plan, seed, outcome);
    report(&mut out, seed, orders, &outcome)?;
    Ok(false)
}

/// Halves the number of orders as long as the same seed breaks the same invariant.
fn shrunk(plan: &Plan, seed: u64, outcome: Outcome) -> (u32, Outcome) {
    let wanted = outcome.broken.first().map(|broken| broken.invariant);
    let mut smallest = (plan.orders, outcome);
    let mut orders = plan.orders / 2;
    while orders > 0 {
        let outcome = run(&Plan {
            seed,
            orders,
            ..plan.clone()
        });
        if outcome
            .broken
            .iter()
            .any(|broken| Some(broken.invariant) == wanted)
        {
            smallest = (orders, outcome);
        }
        orders /= 2;
    }
    smallest
}

/// The maximum number of violations that are shown of one invariant.
const SHOWN: usize = 3;

fn report(out: &mut impl Write, seed: u64, orders: u32, outcome: &Outcome) -> io::Result<()> {
    for broken in &outcome.broken {
        writeln!(out, "\nSeed {seed} breaks: {}", broken.invariant)?;
        shown(out, broken)?;
    }
    let first = outcome
        .broken
        .first()
        .and_then(|broken| broken.violations.first());
    if let Some(violation) = first {
        writeln!(out, "\nTrace of {}:", violation.about)?;
        for line in outcome
            .trace
            .iter()
            .filter(|line| line.contains(&violation.about))
        {
            writeln!(out, "  {line}")?;
        }
    }
    writeln!(
        out,
        "\nPrint the complete trace:\n  cargo run --release -p cairn-simulator -- --seed {seed} --orders {orders}"
    )
}

fn shown(out: &mut impl Write, broken: &BrokenInvariant) -> io::Result<()> {
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
