//! `cargo run`: the whole system, locally.

use std::{error::Error, process::ExitCode};

use cairn_local::{
    faults::{Fault, FaultProfile},
    program::{self, Greeting, Hosting, Terminal},
    signals::AtSignal,
    system::System,
};
use clap::{CommandFactory, Parser, Subcommand};
use orders_local::{console::has_page, demo, measure, options_with_page};

/// Run the Cairn order system locally, with an emulated AWS
#[derive(Debug, Parser)]
#[command(name = NAME, version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    system: program::Arguments,
    #[command(flatten)]
    hosting: Hosting,
    /// Deliver every event twice and out of order
    #[arg(long)]
    disturb: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run sample orders that succeed and fail, each to its end
    Demo,
    /// Measure confirmation time, orders per second and calls per order, without the template's
    /// throttling
    Measure {
        /// Number of orders under load
        #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        orders: u32,
        /// Number of clients
        #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
        clients: u32,
    },
}

/// Local values of parameters: shorter timeouts, and no tokens, because only local clients can
/// call.
const HERE: [(&str, &str); 4] = [
    ("StepTimeoutSeconds", "3"),
    ("Authorization", "none"),
    ("Prices", "caller"),
    ("Console", "on"),
];

const NAME: &str = "cairn-local";

fn main() -> ExitCode {
    program::run(NAME, run)
}

fn run(terminal: &Terminal) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let Some(arguments) = program::parse::<Arguments>(Arguments::command())? else {
        return Ok(ExitCode::SUCCESS);
    };
    let (signals, runtime) = terminal.start(match arguments.command {
        None => AtSignal::Stop,
        Some(Command::Demo | Command::Measure { .. }) => AtSignal::CutOff,
    })?;
    let template = arguments.system.template(&HERE)?;
    let ended = match arguments.command {
        None => {
            let faults = FaultProfile::default();
            if arguments.disturb {
                faults.set(&[Fault::Duplicates, Fault::Disorder]);
            }
            let printer = arguments.system.printer(terminal);
            let mut options = arguments
                .system
                .options(options_with_page(&faults, printer))?;
            if let Some(search) = arguments.hosting.search() {
                options.functions = search.functions(&template)?;
            }
            let served = terminal.serve(&template, &options, &arguments.system, &signals, greeting);
            runtime.block_on(served)
        }
        Some(Command::Demo) => runtime.block_on(demo::run(&template)),
        Some(Command::Measure { orders, clients }) => {
            runtime.block_on(measure::run(&template, orders, clients))
        }
    };
    // Work in progress is no longer needed.
    runtime.shutdown_background();
    ended
}

fn greeting(system: &System) -> Greeting {
    let http = system.http;
    Greeting {
        page: has_page(system).then(|| format!("http://{http}/")),
        examples: format!(
            "  curl -s http://{http}/stock/TEA-01/receipts --json '{{\"quantity\":100}}'
  curl -s http://{http}/orders --json '{{\"customerId\":\"c-42\",\"lines\":[{{\"sku\":\"TEA-01\",\"quantity\":2,\"unitPrice\":{{\"amount\":1250,\"currency\":\"EUR\"}}}}],\"payment\":{{\"token\":\"tok_visa\"}},\"shipTo\":{{\"name\":\"A. Lovelace\",\"line1\":\"1 Main St\",\"city\":\"Berlin\",\"postalCode\":\"10115\",\"country\":\"DE\"}}}}'
  curl -s http://{http}/customers/c-42/orders"
        ),
    }
}
