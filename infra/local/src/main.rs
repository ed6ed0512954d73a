//! `cargo run`: the whole system, locally.

use std::{error::Error, process::ExitCode};

use cairn_aws::lambda::on_lambda;
use cairn_local::{
    program::{self, Greeting, Hosting, Terminal},
    signals::AtSignal,
    system::System,
};
use clap::{CommandFactory, Parser, Subcommand};
use orders_local::{
    console::has_page,
    demo,
    measure::{self, LogMeter, Workload},
    options_with_page,
};

/// An order is some seventy calls of the SDK in this process, which allocate much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run sample orders that succeed and fail, each to its end
    Demo,
    /// Measure the speed of the local system and the cost of an order on AWS, without the
    /// template's throttling
    Measure(Workload),
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
    let logs = LogMeter::default();
    let (signals, runtime) = match arguments.command {
        None => terminal.start(AtSignal::Stop)?,
        Some(Command::Demo) => terminal.start(AtSignal::CutOff)?,
        Some(Command::Measure(_)) => {
            terminal.start_with(AtSignal::CutOff, on_lambda(logs.clone()))?
        }
    };
    let template = match &arguments.command {
        None | Some(Command::Demo) => arguments.system.template(&HERE)?,
        Some(Command::Measure(workload)) => arguments.system.template(&workload.parameters())?,
    };
    let ended = match arguments.command {
        None => {
            let faults = arguments.system.faults();
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
        Some(Command::Measure(workload)) => {
            runtime.block_on(measure::run(&template, workload, &logs))
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
