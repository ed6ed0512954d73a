//! Compares the event store with its alternatives in one run.
#![recursion_limit = "256"] // The futures of five frameworks, one inside the other.

use std::{fmt::Display, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::{
    report::{Row, broken_promises, table},
    scenarios::LENGTHS,
    systems::{
        System,
        cairn::Cairn,
        dynamo_es::{DynamoEs, DynamoEsSnapshots},
        event_store_adapter::{EventStoreAdapter, EventStoreAdapterSnapshots},
    },
};

mod bill;
mod instructions;
mod interval;
mod order;
mod readers;
mod rebuild;
mod report;
mod scenarios;
mod service;
mod systems;

/// Compare the event store with its alternatives: calls, request units, cost and time of a command.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    json: bool,
    /// Round-trip time to the services, in milliseconds.
    #[arg(long, default_value_t = 5, value_name = "MILLISECONDS")]
    rtt_ms: u64,
    /// Run only the scenarios whose names start with this.
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// Skip the scenarios whose names end with one of these.
    #[arg(long, value_name = "SUFFIX", value_delimiter = ',')]
    skip: Vec<String>,
    /// Exit with status 1 if a row of Cairn exceeds its limits.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Instructions {
        /// Only repeat the work; this runs under callgrind.
        #[arg(long, hide = true)]
        repeat: Option<u64>,
        #[arg(long, hide = true, default_value = "ours")]
        what: instructions::What,
    },
    /// Print the cost of a command by the interval between snapshots.
    Interval,
    /// Measure the rebuild of a read model, and an audit: events per second, memory, units.
    Rebuild {
        /// Measure only this and print JSON; this runs in a process of its own.
        #[arg(long, hide = true, requires = "events")]
        what: Option<rebuild::What>,
        /// The number of events.
        #[arg(long, hide = true)]
        events: Option<u64>,
    },
}

/// A scenario or a command that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Another commit took the version.
    #[error("another commit was first")]
    Conflict,
    #[error("{0}")]
    Otherwise(String),
}

impl Failed {
    pub(crate) fn new(error: impl Display) -> Self {
        Self::Otherwise(error.to_string())
    }

    /// Describes the failure of a scenario without concurrent writers.
    fn without_rival(self) -> String {
        match self {
            Self::Conflict => {
                "wrong: every command conflicts, because it loads only the first 1 MB".to_owned()
            }
            Self::Otherwise(error) => format!("fails: {error}"),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let rtt = Duration::from_millis(arguments.rtt_ms);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime.map_err(Failed::new).and_then(|runtime| {
        runtime.block_on(async {
            match arguments.command {
                None => compare(&arguments).await,
                Some(Command::Interval) => interval::print().await,
                Some(Command::Rebuild {
                    what: Some(what),
                    events: Some(events),
                }) => rebuild::measure(what, events, rtt).await,
                Some(Command::Rebuild { .. }) => rebuild::print(rtt),
                Some(Command::Instructions {
                    repeat: Some(times),
                    what,
                }) => instructions::repeat(what, times),
                Some(Command::Instructions { repeat: None, .. }) => instructions::count(),
            }
        })
    });
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare(arguments: &Arguments) -> Result<ExitCode, Failed> {
    let mut run = Run {
        rtt: Duration::from_millis(arguments.rtt_ms),
        only: arguments.only.as_deref().unwrap_or_default(),
        skip: &arguments.skip,
        rows: vec![],
    };
    run.all::<Cairn>().await?;
    run.all::<DynamoEs>().await?;
    run.all::<DynamoEsSnapshots>().await?;
    run.all::<EventStoreAdapter>().await?;
    run.all::<EventStoreAdapterSnapshots>().await?;
    if run.wants("relay") {
        run.rows.push(readers::relay(run.rtt).await?);
    }
    if run.wants("rebuild") {
        run.rows.extend(readers::rebuild()?);
    }
    let rows = by_scenario(run.rows);
    if arguments.json {
        let json = serde_json::to_string_pretty(&rows).map_err(Failed::new)?;
        println!("{json}");
    } else {
        println!("{}", table(&rows));
    }
    if !arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    let broken = broken_promises(&rows);
    for promise in &broken {
        eprintln!("limit exceeded: {promise}");
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Run<'a> {
    rtt: Duration,
    only: &'a str,
    skip: &'a [String],
    rows: Vec<Row>,
}

impl Run<'_> {
    /// Runs every scenario for commands.
    async fn all<S: System>(&mut self) -> Result<(), Failed> {
        let rtt = self.rtt;
        self.row("create", S::NAME, scenarios::create::<S>(rtt))
            .await?;
        for length in LENGTHS {
            for warm in [false, true] {
                let name = format!("{}-{}", if warm { "warm" } else { "cold" }, length.name);
                let row = scenarios::command::<S>(rtt, length, warm);
                self.row(&name, S::NAME, row).await?;
            }
        }
        self.row("five-events", S::NAME, scenarios::five_events::<S>(rtt))
            .await?;
        self.row("lost-answer", S::NAME, scenarios::lost_answer::<S>(rtt))
            .await?;
        self.row("sent-again", S::NAME, scenarios::sent_again::<S>(rtt))
            .await?;
        self.row("conflict", S::NAME, scenarios::conflict::<S>(rtt))
            .await?;
        self.row("32-writers", S::NAME, scenarios::writers::<S>(rtt))
            .await?;
        for length in LENGTHS {
            let name = format!("load-{}", length.name);
            let row = scenarios::load::<S>(rtt, length);
            self.row(&name, S::NAME, row).await?;
        }
        Ok(())
    }

    async fn row(
        &mut self,
        scenario: &str,
        system: &str,
        row: impl Future<Output = Result<Row, Failed>>,
    ) -> Result<(), Failed> {
        if !self.wants(scenario) {
            return Ok(());
        }
        eprintln!("{scenario}: {system}");
        self.rows.push(row.await?);
        Ok(())
    }

    fn wants(&self, scenario: &str) -> bool {
        let skipped = self.skip.iter().any(|suffix| scenario.ends_with(suffix));
        scenario.starts_with(self.only) && !skipped
    }
}

/// Groups the rows by scenario, in the order of the first appearance.
fn by_scenario(rows: Vec<Row>) -> Vec<Row> {
    let names: Vec<_> = rows.iter().map(|row| row.scenario.clone()).collect();
    let mut rows = rows;
    rows.sort_by_key(|row| names.iter().position(|name| *name == row.scenario));
    rows
}
