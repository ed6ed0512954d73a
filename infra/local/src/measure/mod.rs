//! Measures the speed of the local system and the cost of an order on AWS.

mod bill;
mod growth;
mod orders;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cairn_local::{LocalPlatform, Options, System, Template};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

pub use self::bill::LogMeter;
use self::{
    bill::{Bill, Usage, WAITING},
    growth::Growth,
    orders::{MOST_LINES, Shop, concurrently},
};
use crate::options;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The orders to measure.
#[derive(Clone, Copy, Debug, Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Number of orders under load
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,
    /// Number of orders placed one at a time, before the load
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    alone: u32,
    /// Number of clients
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Number of products. Each is sold once before the first counted order
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    skus: u32,
    /// Number of lines of an order, each of another product
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_LINES)))]
    lines: u32,
    /// Order one product only
    #[arg(long, conflicts_with_all = ["skus", "lines"])]
    hot: bool,
    /// Time that each call to AWS takes on its way, in milliseconds. Concurrent writes conflict only
    /// if calls take time
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(..=1_000))]
    rtt_ms: u64,
    /// Give each order an email address, to which SES sends
    #[arg(long)]
    email: bool,
    /// Print the result as JSON
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

impl Workload {
    /// Returns the parameters of the template to measure. The others have their defaults.
    pub fn parameters(&self) -> Vec<(&'static str, &'static str)> {
        let mut parameters = vec![("Authorization", "none")];
        if self.email {
            parameters.extend([("Mail", "ses"), ("MailFrom", "shop@example.com")]);
        }
        parameters
    }

    fn skus(&self) -> u32 {
        if self.hot { 1 } else { self.skus }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    workload: Workload,
    /// From `POST` to confirmed, one order at a time.
    p50_ms: f64,
    p99_ms: f64,
    orders_per_second: f64,
    /// The processor time of the whole program for an order under load; `None` if the operating
    /// system does not report it as Linux does.
    cpu_ms_per_order: Option<f64>,
    peak_memory_mib: Option<f64>,
    /// The calls for an order, one at a time, by operation.
    calls: BTreeMap<String, f64>,
    /// The bill of an order, one at a time, and under load.
    alone: Bill,
    under_load: Bill,
    growth: Growth,
}

/// Measures a system of its own, in memory. `logs` counts what functions log.
///
/// # Errors
/// Returns an error if an order is not confirmed, or the audit finds a problem.
pub async fn run(
    template: &Template,
    workload: Workload,
    logs: &LogMeter,
) -> Result<ExitCode, Failure> {
    let Workload {
        orders,
        alone,
        clients,
        lines,
        ..
    } = workload;
    if lines > workload.skus() {
        return Err(
            "each line of an order has another product: --skus must be at least --lines".into(),
        );
    }
    // The system is measured, not the throttling of the template.
    let template = template.clone().unthrottled();
    // The real length of a window decides how many events are one batch.
    let template = template.with_windows(LocalPlatform::PACE);
    let platform = LocalPlatform::default()
        .observed_by(Arc::new(logs.clone()))
        .with_round_trip(Duration::from_millis(workload.rtt_ms));
    let options = Options {
        platform: Arc::new(platform),
        ..options()
    };
    let system = System::start(&template, &options).await?;
    let shop = Shop::open(&system, workload).await?;
    let before = Growth::so_far(&system, &template).await?;

    let meter = &system.composition.aws.meter;
    let usage = |placed: u32| Usage::so_far(&system, logs, u64::from(placed));
    let (counts, begun) = (meter.counts(), usage(0));
    let times = Mutex::new(vec![]);
    concurrently(1, alone, "orders, one at a time", async |_| {
        let begun = Instant::now();
        shop.order().await?;
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        times.push(begun.elapsed());
        Ok(())
    })
    .await?;
    system.settled().await;
    let calls = per_order(&counts, &meter.counts(), alone);
    let after = usage(alone);
    let bill_alone = after.bill(&begun, alone);

    let (begun, cpu) = (Instant::now(), cpu());
    concurrently(clients, orders, "orders", async |_| shop.order().await).await?;
    let under_load = begun.elapsed();
    system.settled().await;
    let cpu_ms_per_order = cpu.and_then(|before| {
        let used = self::cpu()?.saturating_sub(before);
        Some(millis(used) / f64::from(orders))
    });
    let bill_under_load = usage(alone + orders).bill(&after, orders);
    let peak_memory_mib = peak_memory_mib();
    let growth = Growth::so_far(&system, &template).await?;
    system.stop().await;

    let mut times = times.into_inner().unwrap_or_else(PoisonError::into_inner);
    times.sort();
    let at = |share: usize| {
        let time = times.get(times.len() * share / 100);
        millis(time.copied().unwrap_or_default())
    };
    let report = Report {
        workload,
        p50_ms: at(50),
        p99_ms: at(99),
        orders_per_second: f64::from(orders) / under_load.as_secs_f64(),
        cpu_ms_per_order,
        peak_memory_mib,
        calls,
        alone: bill_alone,
        under_load: bill_under_load,
        growth: growth.each(&before, alone + orders),
    };
    let mut out = io::stdout().lock();
    if workload.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        report.print(&mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Workload {
            orders,
            alone,
            clients,
            lines,
            rtt_ms,
            ..
        } = self.workload;
        let skus = self.workload.skus();
        writeln!(
            out,
            "POST to confirmed, one order at a time ({alone} orders):"
        )?;
        writeln!(
            out,
            "  p50 {:.1} ms, p99 {:.1} ms",
            self.p50_ms, self.p99_ms
        )?;
        writeln!(
            out,
            "Orders fulfilled with {clients} clients ({orders} orders, lines: {lines}, products: {skus}, round trip: {rtt_ms} ms):"
        )?;
        writeln!(out, "  {:.0} a second", self.orders_per_second)?;
        if let Some(cpu) = self.cpu_ms_per_order {
            writeln!(out, "  {cpu:.1} ms of processor time for an order")?;
        }
        if let Some(memory) = self.peak_memory_mib {
            writeln!(out, "  {memory:.0} MiB of memory at the peak")?;
        }
        writeln!(
            out,
            "Calls for one order, from POST to confirmed, read models included:"
        )?;
        for (operation, count) in &self.calls {
            writeln!(out, "  {operation:<20} {count:.1}")?;
        }
        writeln!(
            out,
            "Billed by AWS for one order, one at a time, and in dollars for a million:"
        )?;
        self.alone.print(out)?;
        writeln!(out, "The same with {clients} clients:")?;
        self.under_load.print(out)?;
        self.growth.print(out)
    }
}

type Counts = BTreeMap<(String, String), u64>;

/// Returns the calls per order, by operation. Queries that only wait are not counted. Nor are reads
/// of the stream, which Lambda makes itself and AWS does not bill.
fn per_order(before: &Counts, after: &Counts, orders: u32) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::<String, u64>::new();
    for ((caller, operation), count) in after {
        if caller == WAITING || caller == "stream" {
            continue;
        }
        let earlier = before
            .get(&(caller.clone(), operation.clone()))
            .copied()
            .unwrap_or(0);
        *sums.entry(operation.clone()).or_default() += count - earlier;
    }
    sums.into_iter()
        .map(|(operation, count)| (operation, float(count) / f64::from(orders)))
        .collect()
}

/// Creates a progress bar on stderr, which is invisible if stderr is not a terminal.
fn progress(what: &'static str, count: u64) -> Result<ProgressBar, Failure> {
    let bar = ProgressBar::new(count).with_message(what);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {msg}, {elapsed}",
    )?);
    Ok(bar)
}

/// Returns the processor time of this process, if the operating system reports it as Linux does.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
fn cpu() -> Option<Duration> {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name in parentheses, may have spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mut lines = status.lines();
    let kib = lines.find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib = kib.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()?;
    Some(kib / 1024.0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of calls are far below 2^52"
)]
fn float(count: u64) -> f64 {
    count as f64
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
