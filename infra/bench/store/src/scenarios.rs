//! The scenarios and their measurement.

use std::time::{Duration, Instant};

use cairn::retry::Backoff;
use futures_util::future::join_all;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    Failed,
    bill::{READ_USD, WRITE_USD},
    report::Row,
    service::{Client, Service},
    systems::System,
};

/// Commands on streams around a length. Their number and lengths are chosen so that the average
/// includes the snapshots of every store.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    pub name: u64,
    streams: u64,
    from: u64,
    commands: u64,
}

/// Each has 400 commands, a multiple of every store's snapshot interval.
pub const LENGTHS: [Length; 4] = [
    Length {
        name: 10,
        streams: 25,
        from: 2,
        commands: 16,
    },
    Length {
        name: 100,
        streams: 4,
        from: 50,
        commands: 100,
    },
    Length {
        name: 1_000,
        streams: 1,
        from: 800,
        commands: 400,
    },
    Length {
        name: 10_000,
        streams: 1,
        from: 9_800,
        commands: 400,
    },
];

/// The number of commands if each costs the same, and much.
const FEW: u64 = 20;
/// The number of commands of the scenarios for one kind of command.
const SOME: u64 = 50;
const WRITERS: u64 = 32;
const COMMANDS_OF_EACH_WRITER: u64 = 10;

/// Places orders.
pub async fn create<S: System>(rtt: Duration) -> Result<Row, Failed> {
    let stage = Stage::<S>::set(rtt, 0, 0).await?;
    let mut meter = stage.meter();
    for n in 0..2 * SOME {
        let id = format!("new-{n}");
        meter.measure(stage.far.cold().place(&id, &id)).await?;
    }
    meter.row("create", S::NAME, stage.growth(2 * SOME).await?)
}

/// Runs commands on streams of a length, with the stream cached (warm) or not (cold). A failing
/// store gets a row with its failure.
pub async fn command<S: System>(rtt: Duration, length: Length, warm: bool) -> Result<Row, Failed> {
    let stage = Stage::<S>::set(rtt, length.streams, length.from).await?;
    let commands = if S::READS_WHOLE_STREAMS && length.commands > 4 * FEW {
        FEW
    } else {
        length.commands
    };
    if warm {
        for stream in 0..length.streams {
            // The first measured command reports any failure.
            let _ = stage
                .far
                .change(&id(stream), &format!("warm-{stream}"), 1)
                .await;
        }
    }
    let scenario = format!("{}-{}", if warm { "warm" } else { "cold" }, length.name);
    let mut meter = stage.meter();
    for stream in 0..length.streams {
        for n in 0..commands {
            let process = if warm {
                stage.far.clone()
            } else {
                stage.far.cold()
            };
            let (id, command) = (id(stream), format!("command-{stream}-{n}"));
            let changed = process.change(&id, &command, 1);
            if let Err(error) = meter.measure(changed).await {
                return Ok(Row::failed(&scenario, S::NAME, error.without_rival()));
            }
        }
        let expected = length.from + commands + u64::from(warm);
        stage.expect(&id(stream), expected).await?;
    }
    let growth = stage.growth(length.streams * commands).await?;
    meter.row(&scenario, S::NAME, growth)
}

/// Loads streams, about half an interval after the last snapshot of each store.
pub async fn load<S: System>(rtt: Duration, length: Length) -> Result<Row, Failed> {
    let events = if length.name > 10 {
        length.name - 45
    } else {
        length.name
    };
    let stage = Stage::<S>::set(rtt, 1, events).await?;
    let mut meter = stage.meter();
    let mut loaded = 0;
    for _ in 0..if S::READS_WHOLE_STREAMS { FEW } else { SOME } {
        let process = stage.far.cold();
        meter
            .measure(async {
                loaded = process.load(&id(0)).await?;
                Ok(())
            })
            .await?;
    }
    let scenario = format!("load-{}", length.name);
    if loaded != events {
        let found = format!("wrong: loads {loaded} of {events} events, the first 1 MB");
        return Ok(Row::failed(&scenario, S::NAME, found));
    }
    meter.row(&scenario, S::NAME, None)
}

/// Runs commands of five events on streams of ten.
pub async fn five_events<S: System>(rtt: Duration) -> Result<Row, Failed> {
    let stage = Stage::<S>::set(rtt, FEW, 10).await?;
    let mut meter = stage.meter();
    for stream in 0..FEW {
        let id = id(stream);
        meter.measure(stage.far.cold().change(&id, &id, 5)).await?;
        stage.expect(&id, 15).await?;
    }
    meter.row("five-events", S::NAME, stage.growth(5 * FEW).await?)
}

/// Runs commands whose response is lost, so that the SDK retries. The stream is cached.
pub async fn lost_answer<S: System>(rtt: Duration) -> Result<Row, Failed> {
    let stage = Stage::<S>::set(rtt, FEW, 10).await?;
    for stream in 0..FEW {
        stage
            .far
            .change(&id(stream), &format!("warm-{stream}"), 1)
            .await?;
    }
    let mut meter = stage.meter();
    for stream in 0..FEW {
        let id = id(stream);
        stage.client.lose(1);
        meter.measure(stage.far.change(&id, &id, 1)).await?;
        stage.expect(&id, 12).await?;
    }
    let row = meter.row("lost-answer", S::NAME, None)?;
    Ok(row.note("both calls counted"))
}

/// Sends a command again from a client that did not get the first response.
pub async fn sent_again<S: System>(rtt: Duration) -> Result<Row, Failed> {
    let stage = Stage::<S>::set(rtt, FEW, 10).await?;
    for stream in 0..FEW {
        stage.far.change(&id(stream), &id(stream), 1).await?;
    }
    let mut meter = stage.meter();
    for stream in 0..FEW {
        let id = id(stream);
        meter.measure(stage.far.cold().change(&id, &id, 1)).await?;
    }
    let row = meter.row("sent-again", S::NAME, None)?;
    match stage.near.load(&id(0)).await? {
        11 => Ok(row.note("first response repeated, nothing written")),
        12 => Ok(row.note("wrong: executed twice")),
        other => Err(Failed::new(format!("{other} events instead of 11 or 12"))),
    }
}

/// Runs commands that lose to another commit between read and write.
pub async fn conflict<S: System>(rtt: Duration) -> Result<Row, Failed> {
    let stage = Stage::<S>::set(rtt, FEW, 10).await?;
    let mut meter = stage.meter();
    for stream in 0..FEW {
        let (rival, id) = (stage.near.cold(), id(stream));
        let rivals = id.clone();
        stage.client.before_write(async move {
            // If it fails, an event is missing, and the count below reports that.
            let _ = rival.change(&rivals, "rival", 1).await;
        });
        let process = stage.far.cold();
        meter
            .measure(with_retries(|| process.change(&id, "loser", 1)))
            .await?;
        stage.expect(&id, 12).await?;
    }
    // The other writer runs on the same thread.
    Ok(meter.row("conflict", S::NAME, None)?.without_cpu())
}

/// Runs 32 processes that each change one order ten times.
pub async fn writers<S: System>(rtt: Duration) -> Result<Row, Failed> {
    let stage = Stage::<S>::set(rtt, 1, 10).await?;
    let mut meter = stage.meter();
    let (begun, cpu) = (Instant::now(), thread_cpu());
    let writers = (0..WRITERS).map(|writer| {
        let process = stage.far.cold();
        async move {
            let (id, mut latencies) = (id(0), vec![]);
            for n in 0..COMMANDS_OF_EACH_WRITER {
                let command = format!("writer-{writer}-{n}");
                let begun = Instant::now();
                with_retries(|| process.change(&id, &command, 1)).await?;
                latencies.push(begun.elapsed());
            }
            Ok::<_, Failed>(latencies)
        }
    });
    for latencies in join_all(writers).await {
        meter.latencies.extend(latencies?);
    }
    meter.cpu = thread_cpu().saturating_sub(cpu);
    let commands = WRITERS * COMMANDS_OF_EACH_WRITER;
    stage.expect(&id(0), 10 + commands).await?;
    let row = meter.row("32-writers", S::NAME, None)?;
    if rtt.is_zero() {
        return Ok(row.note("none lost"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let per_trip = commands as f64 * rtt.as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(row.note(&format!("none lost; {per_trip:.2} commits per round trip")))
}

/// Retries after a conflict with the same time budget for every store. Only Cairn retries by
/// itself.
async fn with_retries<F>(mut command: impl FnMut() -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    let mut backoff = Backoff::new(Duration::from_mins(1));
    loop {
        match command().await {
            Err(Failed::Conflict) => backoff.wait().await.map_err(Failed::new)?,
            done => return done,
        }
    }
}

fn id(stream: u64) -> String {
    // As long as a UUID.
    format!("6f9619ff-8b86-4011-b42d-{stream:012}")
}

/// A store with prepared streams.
struct Stage<S> {
    service: Service,
    client: Client,
    /// The unmeasured client, without a delay.
    near: S,
    /// The measured client, with the round-trip time.
    far: S,
    bytes_before: usize,
}

impl<S: System> Stage<S> {
    async fn set(rtt: Duration, streams: u64, events: u64) -> Result<Self, Failed> {
        let service = Service::start(&S::tables(), rtt)?;
        let client = service.client();
        let near = S::open(&service.near()).await?;
        for stream in 0..streams {
            near.seed(&id(stream), events).await?;
        }
        let far = S::open(&client).await?;
        // The first call of a client has costs of its own.
        near.place("another", "another").await?;
        far.load("another").await?;
        let bytes_before = service.bytes(&S::tables()).await?;
        Ok(Self {
            service,
            client,
            near,
            far,
            bytes_before,
        })
    }

    /// Starts a measurement.
    fn meter(&self) -> Meter<'_> {
        self.client.bill();
        Meter {
            client: &self.client,
            latencies: vec![],
            cpu: Duration::ZERO,
        }
    }

    async fn expect(&self, id: &str, events: u64) -> Result<(), Failed> {
        let found = self.near.load(id).await?;
        if found == events {
            return Ok(());
        }
        let system = S::NAME;
        Err(Failed::new(format!(
            "{system}: {found} events instead of {events}"
        )))
    }

    /// Returns the growth of the tables per event, in bytes.
    async fn growth(&self, events: u64) -> Result<Option<f64>, Failed> {
        let grown = self.service.bytes(&S::tables()).await? - self.bytes_before;
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let each = grown as f64 / events as f64;
        Ok(Some(each))
    }
}

struct Meter<'a> {
    client: &'a Client,
    latencies: Vec<Duration>,
    cpu: Duration,
}

impl Meter<'_> {
    async fn measure(
        &mut self,
        command: impl Future<Output = Result<(), Failed>>,
    ) -> Result<(), Failed> {
        let (begun, cpu) = (Instant::now(), thread_cpu());
        command.await?;
        self.cpu += thread_cpu().saturating_sub(cpu);
        self.latencies.push(begun.elapsed());
        Ok(())
    }

    fn row(mut self, scenario: &str, system: &str, growth: Option<f64>) -> Result<Row, Failed> {
        self.latencies.sort_unstable();
        let bill = self.client.bill();
        let at = |share: usize| {
            let index = (self.latencies.len() * share / 100).min(self.latencies.len() - 1);
            self.latencies.get(index).map(|latency| millis(*latency))
        };
        if self.latencies.is_empty() {
            return Err(Failed::new("nothing was measured"));
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundreds of commands")]
        let (commands, calls) = (self.latencies.len() as f64, bill.total() as f64);
        Ok(Row {
            scenario: scenario.to_owned(),
            system: system.to_owned(),
            calls: Some(calls / commands),
            read_units: Some(bill.read / commands),
            write_units: Some(bill.write / commands),
            usd_per_million: Some((bill.read * READ_USD + bill.write * WRITE_USD) / commands),
            bytes_per_event: growth,
            p50_ms: at(50),
            p99_ms: at(99),
            cpu_us: Some(1000.0 * millis(self.cpu) / commands),
            note: None,
        })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Returns the processor time of this thread, on which everything except the services runs.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
