//! The command line that runs an application locally.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{Display, Write},
    io, panic,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use cairn::cloudevent::CloudEvent;
use cairn_aws::lambda::logged;
use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    aws::{bus::Seen, secrets::Secrets},
    host::Functions,
    http::AllowedHost,
    printer::Printer,
    signals::{AtSignal, Signals},
    system::{Options, System},
    template::{Parameters, Template, TemplateError},
};

/// Run the system locally, with an emulated AWS
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
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
    /// SAM template [default: nearest template.yaml]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Value for a template parameter
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    parameter: Vec<(String, String)>,
    /// Secrets Manager secret: its ARN, and the file with its text
    #[arg(long, value_name = "ARN=FILE", value_parser = pair)]
    secret: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("expected NAME=VALUE".to_owned()),
    }
}

/// The time that the end of the program waits for the readers of its output.
const LAST_LINES: Duration = Duration::from_millis(300);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The program of an application.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    functions: Functions,
    parameters: &'static [(&'static str, &'static str)],
    examples: fn(&str) -> String,
}

impl Program {
    /// Returns a program with the name of its package.
    pub fn new(name: &'static str, functions: Functions) -> Self {
        Self {
            name,
            functions,
            parameters: &[],
            examples: |_| String::new(),
        }
    }

    /// Sets local values of template parameters. Those of the command line replace them.
    #[must_use]
    pub fn parameters(self, parameters: &'static [(&'static str, &'static str)]) -> Self {
        Self { parameters, ..self }
    }

    /// Sets the requests to try, given the URL of the HTTP API.
    #[must_use]
    pub fn examples(self, examples: fn(&str) -> String) -> Self {
        Self { examples, ..self }
    }

    /// Runs the system until a signal stops it.
    pub fn run(self) -> ExitCode {
        let printers = (
            Printer::new("stdout", io::stdout()),
            Printer::new("stderr", io::stderr()),
        );
        let (Ok(out), Ok(err)) = printers else {
            // Without a thread, the error cannot be printed.
            return ExitCode::from(2);
        };
        let name = self.name;
        let status = match self.serve(&out, &err) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                err.line(format!("{name}: {error}"));
                ExitCode::from(2)
            }
        };
        out.flush(LAST_LINES);
        err.flush(LAST_LINES);
        status
    }

    fn serve(self, out: &Printer, err: &Printer) -> Result<(), Failure> {
        let Some(arguments) = self.arguments()? else {
            return Ok(());
        };
        let signals = Signals::listen(AtSignal::Stop)
            .map_err(|error| format!("listening for signals failed: {error}"))?;
        tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_writer(err.clone()))
            .with(logged())
            .init();
        report_panics(err.clone());
        let path = arguments.template.clone().or_else(find_template);
        let path = path
            .ok_or("no template.yaml here or above: run this in the project, or use --template")?;
        let template = self.template(&path, &arguments.parameter)?;
        let runtime = tokio::runtime::Runtime::new()?;
        let served = runtime.block_on(async {
            let options = Options {
                port: arguments.port,
                aws_port: arguments.aws_port,
                allow_hosts: arguments.allow_host,
                secrets: secrets(&arguments.secret)?,
                data: arguments.data,
                functions: self.functions,
                ..Options::default()
            };
            let system = System::start(&template, &options).await?;
            let events = system.watch();
            let mut stop = signals.stop();
            out.line(greeting(&system, self.examples));
            tokio::select! {
                // It fails only without its sender, which the caller holds.
                _ = stop.wait_for(|stop| *stop) => {}
                () = print_events(events, out), if !arguments.quiet => {}
            }
            err.line(if options.data.is_some() {
                "stopping: the next start with this --data continues what is under way"
            } else {
                "stopping"
            });
            system.stop().await;
            Ok(())
        });
        // Work in progress is no longer needed.
        runtime.shutdown_background();
        served
    }

    /// Parses the command line; `None` after the help or the version.
    fn arguments(&self) -> Result<Option<Arguments>, Failure> {
        let parsed = Arguments::command().name(self.name).try_get_matches();
        match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
            Ok(arguments) => Ok(Some(arguments)),
            Err(asked) if !asked.use_stderr() => {
                // The reader of the help may be gone.
                let _ = asked.print();
                Ok(None)
            }
            Err(error) => {
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                let line = line.strip_prefix("error: ").unwrap_or(line);
                Err(format!("{line}; see --help").into())
            }
        }
    }

    /// Loads the template with the given parameters and local values for the others.
    fn template(&self, path: &Path, given: &[(String, String)]) -> Result<Template, TemplateError> {
        let known = Template::parameters_of(path)?;
        let local = self.parameters.iter();
        let local = local.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut parameters: Parameters = local.filter(|(name, _)| known.contains(name)).collect();
        parameters.extend(given.iter().cloned());
        Template::load_with(path, &parameters)
    }
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

fn greeting(system: &System, examples: fn(&str) -> String) -> String {
    let (http, endpoint) = (format!("http://{}", system.http), system.endpoint);
    let mut text = format!("HTTP API      {http}\nAWS endpoint  http://{endpoint}\n");
    let resumed = system.composition.resumed;
    // Writing to a `String` cannot fail.
    if resumed > 0 {
        let _ = writeln!(text, "Continuing {resumed} deliveries that were under way.");
    }
    let examples = examples(&http);
    if !examples.is_empty() {
        let _ = writeln!(text, "\nTry, in another terminal:\n\n{examples}");
    }
    text + "\nCtrl-C ends it."
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
fn line(seen: &Seen) -> impl Display {
    let at = seen.at.to_string();
    let clock = at.get(11..23).unwrap_or_default();
    let event: Result<CloudEvent, _> = serde_json::from_str(&seen.detail);
    let id = event.map_or_else(|_| "unknown event".to_owned(), |event| event.id);
    format!("{clock}  {:<28} {id}", seen.kind)
}

fn find_template() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|directory| directory.join("template.yaml"))
        .find(|file| file.is_file())
}
