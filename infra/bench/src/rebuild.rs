//! The throughput, memory and cost of a rebuild of a read model through DynamoDB, and of an audit.
//!
//! Each measurement runs in a process of its own, so that the peak memory is its own. The database
//! is in a file, because it would otherwise share that memory. Linux only: it reads `/proc`.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use cairn::{Commit, Metadata, RecordedEvent, Timestamp, audit::Limits, store::EventStore};
use cairn_aws::{
    dynamodb::{Projection, Rebuild},
    lambda::AppContext,
};
use cairn_local::{Parameters, Template};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use futures_util::future::try_join_all;
use orders::read_models::{orders::Orders, sales::Sales};
use orders_local::audit::audit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use store_bench::{
    Failed,
    bill::{READ_USD, WRITE_USD},
    readers::{history, placed},
    service::{Client, Service},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The rows of the read model `orders`.
    Orders,
    /// The counters of the read model `sales`.
    Sales,
    /// An audit of both.
    Audit,
}

/// The minimum lengths of the histories, in events; orders are complete.
const EVENTS: [u64; 2] = [10_000, 100_000];
/// One segment. On AWS eight are backfilled concurrently. Here the database has one thread, and
/// finding a segment means sorting the whole table.
const SEGMENTS: u32 = 1;
/// The interval between two orders, in milliseconds.
const PACE: i64 = 600;

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    events: u64,
    seconds: f64,
    calls: u64,
    read_units: f64,
    write_units: f64,
    /// Resident memory before the measurement, and at its peak.
    before_kib: u64,
    peak_kib: u64,
}

/// Runs each measurement in a process of its own, and prints the results.
pub(crate) fn print(rtt: Duration) -> Result<ExitCode, Failed> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "what",
        "events",
        "events per second",
        "calls per event",
        "RRU per event",
        "WRU per event",
        "$ per million events",
        "MiB before",
        "MiB peak",
    ]);
    for what in What::value_variants() {
        for events in EVENTS {
            let name = what.to_possible_value();
            let name = name.map_or_else(String::new, |name| name.get_name().to_owned());
            eprintln!("{name}: {events} events");
            let measured = in_a_process(&name, events, rtt)?;
            #[expect(clippy::cast_precision_loss, reason = "some hundred thousand")]
            let float = |number: u64| number as f64;
            let count = float(measured.events);
            let mib = |kib: u64| format!("{:.1}", float(kib) / 1024.0);
            let usd = measured.read_units * READ_USD + measured.write_units * WRITE_USD;
            table.add_row([
                name,
                measured.events.to_string(),
                format!("{:.0}", count / measured.seconds),
                format!("{:.3}", float(measured.calls) / count),
                format!("{:.3}", measured.read_units / count),
                format!("{:.3}", measured.write_units / count),
                format!("{:.3}", usd / count),
                mib(measured.before_kib),
                mib(measured.peak_kib),
            ]);
        }
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

fn in_a_process(what: &str, events: u64, rtt: Duration) -> Result<Measured, Failed> {
    let program = std::env::current_exe().map_err(Failed::new)?;
    let output = Command::new(program)
        .args(["--rtt-ms", &rtt.as_millis().to_string(), "rebuild"])
        .args(["--what", what, "--events", &events.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(Failed::new)?;
    if !output.status.success() {
        return Err(Failed::new(format!(
            "measuring {what} with {events} events failed"
        )));
    }
    serde_json::from_slice(&output.stdout).map_err(Failed::new)
}

/// Runs one measurement and prints JSON; this runs in a process of its own.
pub(crate) async fn measure(what: What, events: u64, rtt: Duration) -> Result<ExitCode, Failed> {
    let directory = Scratch::new()?;
    let service = Service::in_file(&directory.0.join("tables.sqlite"), &tables()?, rtt)?;
    let events = seed(&app(&service.near()), events).await?;
    let client = service.client();
    let far = app(&client);
    let rows = far.rows::<Orders>().map_err(Failed::new)?;
    let counters = far.counters::<Sales>().map_err(Failed::new)?;
    let store = far.event_store().map_err(Failed::new)?;
    let orders = Rebuild::new(store.clone(), rows);
    let sales = Rebuild::new(store, counters);
    if what == What::Audit {
        let near = app(&service.near());
        let store = near.event_store().map_err(Failed::new)?;
        let rows = near.rows::<Orders>().map_err(Failed::new)?;
        let counters = near.counters::<Sales>().map_err(Failed::new)?;
        show(&Rebuild::new(store.clone(), rows), events).await?;
        show(&Rebuild::new(store, counters), events).await?;
    }
    client.bill();
    forget_peak()?;
    let before_kib = resident("VmRSS:")?;
    let started = Instant::now();
    match what {
        What::Orders => backfill(&orders, events).await?,
        What::Sales => backfill(&sales, events).await?,
        What::Audit => {
            let limits = Limits::default();
            let audit = audit(&far, Timestamp::now(), limits).map_err(Failed::new)?;
            let report = audit.run(None).await.map_err(Failed::new)?;
            if report.found > 0 || report.events != events {
                return Err(Failed::new(format!("{report:?}")));
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let bill = client.bill();
    let measured = Measured {
        events,
        seconds,
        calls: bill.total(),
        read_units: bill.read,
        write_units: bill.write,
        before_kib,
        peak_kib: resident("VmHWM:")?,
    };
    let json = serde_json::to_string(&measured).map_err(Failed::new)?;
    println!("{json}");
    Ok(ExitCode::SUCCESS)
}

async fn backfill<P: Projection>(rebuild: &Rebuild<P>, events: u64) -> Result<(), Failed> {
    let started = rebuild.start(Timestamp::now(), SEGMENTS).await;
    let started = started.map_err(Failed::new)?;
    let mut parts = vec![];
    for segment in started.segments {
        parts.push(rebuild.backfill(segment, || true));
    }
    let read_parts = try_join_all(parts).await.map_err(Failed::new)?;
    let read: u64 = read_parts.iter().map(|part| part.events).sum();
    if read == events {
        return Ok(());
    }
    Err(Failed::new(format!("{read} events instead of {events}")))
}

async fn show<P: Projection>(rebuild: &Rebuild<P>, events: u64) -> Result<(), Failed> {
    backfill(rebuild, events).await?;
    rebuild.promote().await.map_err(Failed::new)?;
    rebuild.prune(|| true).await.map_err(Failed::new)?;
    Ok(())
}

/// The template's tables. The event table has no DynamoDB Stream, which nothing reads here.
fn tables() -> Result<Vec<Value>, Failed> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");
    let parameters = Parameters::from([("Authorization".to_owned(), "none".to_owned())]);
    let template = Template::load_with(file.as_ref(), &parameters).map_err(Failed::new)?;
    let tables = template.tables.into_iter().map(|table| {
        let mut create = table.create;
        if let Some(create) = create.as_object_mut() {
            create.remove("StreamSpecification");
        }
        create
    });
    Ok(tables.collect())
}

fn app(client: &Client) -> AppContext {
    // The table of `ORDERS_TABLE` is `OrdersTable`.
    let settings = |name: &str| {
        let words = name.strip_suffix("_TABLE")?.split('_');
        let words = words.map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase()));
        Some(words.collect::<String>() + "Table")
    };
    AppContext::new(settings, client.config())
}

/// Stores fulfilled orders, one event per commit and a hundred orders per minute, and returns the
/// number of events.
async fn seed(near: &AppContext, events: u64) -> Result<u64, Failed> {
    let store = near.event_store().map_err(Failed::new)?;
    let placed = placed()?;
    let (mut stored, mut number) = (0, 0);
    while stored < events {
        let at = Timestamp::from_millis(1_700_000_000_000 + number * PACE);
        for event in history(&number.to_string(), &placed)? {
            let appended = store.append(&[commit(&event, at)]).await;
            appended.map_err(Failed::new)?;
            stored += 1;
        }
        number += 1;
    }
    Ok(stored)
}

fn commit(event: &RecordedEvent, at: Timestamp) -> Commit {
    let events = vec![event.event.clone()];
    Commit {
        metadata: Metadata::new(&event.metadata.correlation),
        ..Commit::new(event.stream.clone(), event.version, event.id(), at, events)
    }
}

/// Returns a value of `/proc/self/status` in KiB.
fn resident(what: &str) -> Result<u64, Failed> {
    let status = fs::read_to_string("/proc/self/status").map_err(Failed::new)?;
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.ok_or_else(|| Failed::new(format!("/proc/self/status has no {what}")))
}

/// Resets the peak. <https://docs.kernel.org/filesystems/proc.html>
fn forget_peak() -> Result<(), Failed> {
    fs::write("/proc/self/clear_refs", "5").map_err(Failed::new)
}

/// A directory that is removed with the process.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failed> {
        let name = format!("cairn-bench-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(Failed::new)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Temporary files that cannot be removed are left to the system.
        let _ = fs::remove_dir_all(&self.0);
    }
}
