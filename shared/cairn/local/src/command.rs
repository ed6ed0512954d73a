//! The command `cairn local`: runs the functions of a template as processes.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use cairn_aws::lambda::logged;
use clap::{ArgMatches, Args, FromArgMatches};
use serde::Deserialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    aws::bus::Seen,
    http::AllowedHost,
    local_platform::LocalPlatform,
    printer::Printer,
    programs::Search,
    signals::{AtSignal, Signals},
    system::{Options, System},
    template::Template,
};

/// Run a SAM template locally, with its functions as processes and an emulated AWS
///
/// Starts the HTTP API and an AWS endpoint, and prints the lines of the functions and the events on
/// the buses. A function in Rust is built with Cargo. `docs/how-to/run-any-template-locally.md` lists
/// the supported programs.
#[derive(Debug, Args)]
struct Arguments {
    /// SAM template
    #[arg(long, value_name = "FILE", default_value = "template.yaml")]
    template: PathBuf,
    /// Value for a template parameter
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    parameter: Vec<(String, String)>,
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
    /// Print neither events nor lines of functions
    #[arg(long)]
    quiet: bool,
    /// Use a function's program as soon as it changes
    #[arg(long)]
    watch: bool,
    /// Use the binaries of the last build with Cargo
    #[arg(long)]
    no_build: bool,
}

/// The time that the end of the program waits for the readers of its output.
const LAST_LINES: Duration = Duration::from_millis(300);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Parses `NAME=VALUE`.
pub fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Returns the command line of the command.
pub fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("local"))
}

/// Runs the command until a signal ends it.
pub fn run(matches: &ArgMatches) -> ExitCode {
    let printers = (
        Printer::new("stdout", io::stdout()),
        Printer::new("stderr", io::stderr()),
    );
    let (Ok(out), Ok(err)) = printers else {
        // Without a thread, the error cannot be printed.
        return ExitCode::from(2);
    };
    let status = match try_run(matches, &out, &err) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            err.line(format!("cairn local: {error}"));
            ExitCode::from(2)
        }
    };
    out.flush(LAST_LINES);
    err.flush(LAST_LINES);
    status
}

fn try_run(matches: &ArgMatches, out: &Printer, err: &Printer) -> Result<(), BoxError> {
    let arguments = Arguments::from_arg_matches(matches)?;
    let signals = Signals::listen(AtSignal::Stop)?;
    tracing_subscriber::registry()
        .with(tracing_subscriber::fmt::layer().with_writer(err.clone()))
        .with(logged())
        .init();
    let parameters = arguments.parameter.iter().cloned().collect();
    let template = Template::load_with(&arguments.template, &parameters)?;
    let search = Search {
        builds: !arguments.no_build,
        watches: arguments.watch,
    };
    let functions = search.functions(&template)?;
    let mut platform = LocalPlatform::default();
    if !arguments.quiet {
        platform = platform.printing(out.clone());
    }
    let options = Options {
        port: arguments.port,
        aws_port: arguments.aws_port,
        allow_hosts: arguments.allow_host,
        data: arguments.data,
        functions,
        platform: std::sync::Arc::new(platform),
        ..Options::default()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let stopped = runtime.block_on(async {
        let system = System::start(&template, &options).await?;
        let events = system.watch();
        let mut stop = signals.stop();
        let (http, endpoint) = (system.http, system.endpoint);
        out.line(format!(
            "HTTP API      http://{http}\nAWS endpoint  http://{endpoint}\n"
        ));
        tokio::select! {
            // It fails only without its sender, which this function holds.
            _ = stop.wait_for(|stop| *stop) => {}
            () = print_events(events, out), if !arguments.quiet => {}
        }
        err.line("stopping");
        system.stop().await;
        Ok(())
    });
    // Work in progress is no longer needed.
    runtime.shutdown_background();
    stopped
}

/// Prints each event on a bus, with its id if its detail has one.
async fn print_events(mut events: Receiver<Seen>, out: &Printer) {
    #[derive(Deserialize)]
    struct Detail {
        id: String,
    }
    loop {
        match events.recv().await {
            Ok(seen) => {
                let at = seen.at.to_string();
                let clock = at.get(11..23).unwrap_or_default();
                let detail: Result<Detail, _> = serde_json::from_str(&seen.detail);
                let id = detail.map_or_else(|_| String::new(), |detail| detail.id);
                out.line(format!("{clock}  {:<28} {id}", seen.kind));
            }
            Err(RecvError::Lagged(missed)) => {
                out.line(format!("({missed} events were not printed)"));
            }
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}
