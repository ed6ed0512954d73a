//! `cargo run`: the whole system, locally.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Write,
    io, panic,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use cairn::cloudevent::CloudEvent;
use cairn_aws::lambda::logged;
use cairn_local::{
    Options, Parameters, Search, System, Template,
    aws::{bus::Seen, secrets::Secrets},
    command::parameter,
    faults::{Fault, FaultProfile},
    http::AllowedHost,
    printer::Printer,
    signals::{AtSignal, Signals},
    template::TemplateError,
};
use clap::{Parser, Subcommand};
use console::style;
use orders_local::{console::has_page, demo, measure, options_with_page};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// Run the Cairn order system locally, with an emulated AWS
#[derive(Debug, Parser)]
#[command(name = "cairn-local", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// HTTP API port (0: any free port)
    #[arg(long, default_value_t = 3000, value_name = "N")]
    port: u16,
    /// AWS endpoint port (0: any free port)
    #[arg(long, default_value_t = 4566, value_name = "N")]
    aws_port: u16,
    /// Accept this host too, on both ports: NAME with the port's own number, or NAME:PORT
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<AllowedHost>,
    /// Keep state in this directory across restarts; without it, state is in memory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Do not print events
    #[arg(long)]
    quiet: bool,
    /// Deliver every event twice and out of order
    #[arg(long)]
    disturb: bool,
    /// Run the functions as processes, over the Lambda Runtime API
    #[arg(long)]
    processes: bool,
    /// With --processes: use a function's program as soon as it changes
    #[arg(long, requires = "processes")]
    watch: bool,
    /// With --processes: use the binaries of the last build
    #[arg(long, requires = "processes")]
    no_build: bool,
    /// SAM template [default: nearest template.yaml]
    #[arg(long, value_name = "FILE", global = true)]
    template: Option<PathBuf>,
    /// Value for a template parameter
    #[arg(long, value_name = "NAME=VALUE", global = true, value_parser = parameter)]
    parameter: Vec<(String, String)>,
    /// Secrets Manager secret: its ARN, and the file with its text
    #[arg(long, value_name = "ARN=FILE", value_parser = parameter)]
    secret: Vec<(String, String)>,
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

/// The time that the end of the program waits for the readers of its output.
const LAST_LINES: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let printers = (
        Printer::new("stdout", io::stdout()),
        Printer::new("stderr", io::stderr()),
    );
    let (Ok(out), Ok(err)) = printers else {
        // Without a thread, the error cannot be printed.
        return ExitCode::from(2);
    };
    let status = run(&out, &err);
    out.flush(LAST_LINES);
    err.flush(LAST_LINES);
    status
}

fn run(out: &Printer, err: &Printer) -> ExitCode {
    let refuse = |error: &dyn std::fmt::Display| refuse(err, error);
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(asked) if !asked.use_stderr() => {
            // Prints the help or the version; its reader may be gone.
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let line = line.strip_prefix("error: ").unwrap_or(line);
            return refuse(&format!("{line}; see --help"));
        }
    };
    let at_signal = match arguments.command {
        None => AtSignal::Stop,
        Some(Command::Demo | Command::Measure { .. }) => AtSignal::CutOff,
    };
    let signals = match Signals::listen(at_signal) {
        Ok(signals) => signals,
        Err(error) => return refuse(&format!("listening for signals failed: {error}")),
    };
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(err.clone()))
        .with(logged())
        .init();
    report_panics(err.clone());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error),
    };
    let found = arguments.template.clone().or_else(find_template);
    let Some(path) = found else {
        return refuse(
            &"no template.yaml here or above: run this in the project, or use --template",
        );
    };
    let given = arguments.parameter.iter().cloned().collect();
    let template = match load(&path, &given) {
        Ok(template) => template,
        Err(error) => return refuse(&error),
    };
    let finished = runtime.block_on(async {
        match arguments.command {
            None => serve(&template, &arguments, &signals, out, err).await,
            Some(Command::Demo) => demo::run(&template).await,
            Some(Command::Measure { orders, clients }) => {
                measure::run(&template, orders, clients).await
            }
        }
    });
    // Work in progress is no longer needed.
    runtime.shutdown_background();
    finished.unwrap_or_else(|error| refuse(&error))
}

/// Prints panics as the log is printed: without waiting for a reader.
fn report_panics(err: Printer) {
    panic::set_hook(Box::new(move |panic| {
        let trace = Backtrace::capture();
        err.line(match trace.status() {
            BacktraceStatus::Captured => format!("{panic}\n{trace}"),
            _ => panic.to_string(),
        });
    }));
}

/// Loads the template with the given parameters and local values for the others.
fn load(path: &Path, given: &Parameters) -> Result<Template, TemplateError> {
    let known = Template::parameters_of(path)?;
    let here = HERE
        .into_iter()
        .filter(|(name, _)| known.iter().any(|known| known == name));
    let mut parameters: Parameters = here
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    parameters.extend(given.clone());
    Template::load_with(path, &parameters)
}

async fn serve(
    template: &Template,
    arguments: &Arguments,
    signals: &Signals,
    out: &Printer,
    err: &Printer,
) -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    let faults = FaultProfile::default();
    if arguments.disturb {
        faults.set(&[Fault::Duplicates, Fault::Disorder]);
    }
    let mut options = options_with_page(&faults);
    if arguments.processes {
        let search = Search {
            builds: !arguments.no_build,
            watches: arguments.watch,
        };
        options.functions = search.functions(template)?;
    }
    let options = Options {
        port: arguments.port,
        aws_port: arguments.aws_port,
        allow_hosts: arguments.allow_host.clone(),
        secrets: secrets(&arguments.secret)?,
        data: arguments.data.clone(),
        ..options
    };
    let system = System::start(template, &options).await?;
    let events = system.watch();
    let mut stop = signals.stop();
    out.line(greeting(&system));
    tokio::select! {
        // It fails only without its sender, which the caller holds.
        _ = stop.wait_for(|stop| *stop) => {}
        () = print_events(events, out), if !arguments.quiet => {}
    }
    err.line(match arguments.data {
        Some(_) => "stopping: the next start with this --data continues what is under way",
        None => "stopping",
    });
    system.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn secrets(given: &[(String, String)]) -> io::Result<Secrets> {
    let mut secrets = Secrets::default();
    for (arn, file) in given {
        let text = std::fs::read_to_string(file).map_err(|error| {
            io::Error::new(error.kind(), format!("the secret in {file}: {error}"))
        })?;
        secrets.add(arn.clone(), text.trim_end().to_owned());
    }
    Ok(secrets)
}

fn greeting(system: &System) -> String {
    let (http, endpoint) = (system.http, system.endpoint);
    let mut text = format!(
        "{}  http://{http}\n{}  http://{endpoint}\n",
        style("HTTP API    ").bold(),
        style("AWS endpoint").bold()
    );
    // Writing to a `String` cannot fail.
    if has_page(system) {
        let _ = writeln!(text, "{}  http://{http}/", style("Web page    ").bold());
    }
    let resumed = system.composition.resumed;
    if resumed > 0 {
        let _ = writeln!(text, "Continuing {resumed} deliveries that were under way.");
    }
    let _ = writeln!(
        text,
        "
Try, in another terminal:

  curl -s http://{http}/stock/TEA-01/receipts --json '{{\"quantity\":100}}'
  curl -s http://{http}/orders --json '{{\"customerId\":\"c-42\",\"lines\":[{{\"sku\":\"TEA-01\",\"quantity\":2,\"unitPrice\":{{\"amount\":1250,\"currency\":\"EUR\"}}}}],\"payment\":{{\"token\":\"tok_visa\"}},\"shipTo\":{{\"name\":\"A. Lovelace\",\"line1\":\"1 Main St\",\"city\":\"Berlin\",\"postalCode\":\"10115\",\"country\":\"DE\"}}}}'
  curl -s http://{http}/customers/c-42/orders

Ctrl-C ends it."
    );
    text
}

async fn print_events(mut events: Receiver<Seen>, out: &Printer) {
    loop {
        match events.recv().await {
            Ok(seen) => out.line(line(&seen)),
            Err(RecvError::Lagged(missed)) => {
                out.line(format!("({missed} events were not printed)"));
            }
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// `12:00:00.000  OrderPlaced  order-...@1`
fn line(seen: &Seen) -> String {
    let at = seen.at.to_string();
    let clock = at.get(11..23).unwrap_or_default();
    let event: Result<CloudEvent, _> = serde_json::from_str(&seen.detail);
    let id = event.map_or_else(|_| "unknown event".to_owned(), |event| event.id);
    format!(
        "{}  {:<28} {}",
        style(clock).dim(),
        seen.kind,
        style(id).dim()
    )
}

fn find_template() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|directory: &Path| directory.join("template.yaml"))
        .find(|file| file.is_file())
}

/// Prints one line on stderr: exit status 2.
fn refuse(err: &Printer, error: &dyn std::fmt::Display) -> ExitCode {
    err.line(format!("cairn-local: {error}"));
    ExitCode::from(2)
}
