//! Compares the event store with its alternatives in one run.
#![recursion_limit = "256"] // The futures of five frameworks, one inside the other.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use store_bench::{Failed, Run, broken_limits, systems::cairn::Cairn};

use crate::{
    systems::{
        dynamo_es::{DynamoEs, DynamoEsSnapshots},
        event_store_adapter::{EventStoreAdapter, EventStoreAdapterSnapshots},
    },
    table::table,
};

mod instructions;
mod interval;
mod rebuild;
mod systems;
mod table;

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
    run.commands::<Cairn>().await?;
    run.commands::<DynamoEs>().await?;
    run.commands::<DynamoEsSnapshots>().await?;
    run.commands::<EventStoreAdapter>().await?;
    run.commands::<EventStoreAdapterSnapshots>().await?;
    run.readers().await?;
    let rows = run.by_scenario();
    if arguments.json {
        let json = serde_json::to_string_pretty(&rows).map_err(Failed::new)?;
        println!("{json}");
    } else {
        println!("{}", table(&rows));
    }
    if !arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    let broken = broken_limits(&rows);
    for limit in &broken {
        eprintln!("limit exceeded: {limit}");
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
