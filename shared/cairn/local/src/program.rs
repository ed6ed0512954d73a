//! Programs that run a template: their arguments, their output and their end.
//!
//! [`Program`] is the whole program of an application. A program with more commands combines
//! [`Arguments`], [`run`] and [`Terminal::serve`].

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Write},
    io, panic,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use cairn::error::BoxError;
use cairn_aws::lambda::logged;
use clap::{Args, CommandFactory, Parser};
use console::style;
use serde::Deserialize;
use tokio::{
    runtime::Runtime,
    sync::broadcast::{Receiver, error::RecvError},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Identity, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::{
    aws::{Seen, secrets::Secrets},
    faults::{Fault, FaultProfile},
    host::{Functions, kill_all},
    http::AllowedHost,
    local_platform::LocalPlatform,
    platform::Platform,
    printer::Printer,
    programs::Search,
    signals::{AtSignal, Signals},
    system::{Options, System},
    template::{Parameters, Template},
};

/// The arguments of each program that runs a template.
#[derive(Clone, Debug, Args)]
// A group has the name of its struct, which the program of an application may use too.
#[group(skip)]
pub struct Arguments {
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
    /// Deliver every event twice and out of order
    #[arg(long)]
    disturb: bool,
    /// SAM template [default: nearest template.yaml]
    #[arg(long, value_name = "FILE", global = true)]
    template: Option<PathBuf>,
    /// Value for a template parameter
    #[arg(long, value_name = "NAME=VALUE", global = true, value_parser = pair)]
    parameter: Vec<(String, String)>,
    /// Secrets Manager secret: its ARN, and the file with its text
    #[arg(long, value_name = "ARN=FILE", value_parser = pair)]
    secret: Vec<(String, String)>,
}

/// The arguments of an application, whose functions run in its own process by default.
#[derive(Clone, Copy, Debug, Args)]
#[group(skip)]
pub struct Hosting {
    /// Run the functions as processes, over the Lambda Runtime API
    #[arg(long)]
    processes: bool,
    /// With --processes: use a function's program as soon as it changes
    #[arg(long, requires = "processes")]
    watch: bool,
    /// With --processes: use the binaries of the last build
    #[arg(long, requires = "processes")]
    no_build: bool,
}

impl Hosting {
    /// Returns the search for the programs of processes, or `None` for functions in process.
    pub fn search(self) -> Option<Search> {
        self.processes.then_some(Search {
            builds: !self.no_build,
            watches: self.watch,
        })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Arguments {
    /// Loads the template with the given parameters, and these values for others that it has.
    ///
    /// # Errors
    /// Returns an error if there is no template, or it is invalid.
    pub fn template(&self, local: &[(&str, &str)]) -> Result<Template, BoxError> {
        let path = self.template.clone().or_else(nearest_template);
        let path = path
            .ok_or("no template.yaml here or above: run this in the project, or use --template")?;
        let known = Template::parameters_of(&path)?;
        let pairs = local.iter();
        let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut parameters: Parameters = pairs.filter(|(name, _)| known.contains(name)).collect();
        parameters.extend(self.parameter.iter().cloned());
        Ok(Template::load_with(&path, &parameters)?)
    }

    /// Returns options with these arguments.
    ///
    /// # Errors
    /// Returns an error if the file of a secret cannot be read.
    pub fn options(&self, options: Options) -> Result<Options, BoxError> {
        let mut secrets = Secrets::default();
        for (arn, file) in &self.secret {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("the secret in {file}: {error}"))?;
            secrets.add(arn.clone(), text.trim_end().to_owned());
        }
        Ok(Options {
            port: self.port,
            aws_port: self.aws_port,
            allow_hosts: self.allow_host.clone(),
            data: self.data.clone(),
            secrets,
            ..options
        })
    }

    /// Returns the faults that are switched on at the start.
    pub fn faults(&self) -> FaultProfile {
        let faults = FaultProfile::default();
        if self.disturb {
            faults.set(&[Fault::Duplicates, Fault::Disorder]);
        }
        faults
    }

    /// Returns the printer of the lines of processes, unless the program is to be quiet.
    pub fn printer(&self, terminal: &Terminal) -> Option<Printer> {
        (!self.quiet).then(|| terminal.out.clone())
    }
}

fn nearest_template() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|directory: &Path| directory.join("template.yaml"))
        .find(|file| file.is_file())
}

/// Parses the command line of a program. Returns `None` after the help or the version.
///
/// # Errors
/// Returns the problem in one line.
pub fn parse<T: Parser>(command: clap::Command) -> Result<Option<T>, BoxError> {
    let parsed = command
        .try_get_matches()
        .and_then(|matches| T::from_arg_matches(&matches));
    match parsed {
        Ok(arguments) => Ok(Some(arguments)),
        Err(asked) if !asked.use_stderr() => {
            // The reader of the help may be gone.
            let _ = asked.print();
            Ok(None)
        }
        Err(error) => {
            let text = error.to_string();
            Err(format!("{}; see --help", problem(&text)).into())
        }
    }
}

/// Returns the first line of an error of clap, with the names that follow a colon at its end.
fn problem(text: &str) -> String {
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    if !line.ends_with(':') {
        return line.to_owned();
    }
    let names = lines.map(str::trim).take_while(|line| !line.is_empty());
    format!("{line} {}", names.collect::<Vec<_>>().join(", "))
}

/// The time that the end of the program waits for the readers of its output.
const LAST_LINES: Duration = Duration::from_millis(300);

/// The output of a program. A slow reader does not delay the system.
#[derive(Debug)]
pub struct Terminal {
    pub out: Printer,
    pub err: Printer,
}

/// Runs a program. An error is one line on stderr, after the name of the program, and status 2.
pub fn run(name: &str, body: impl FnOnce(&Terminal) -> Result<ExitCode, BoxError>) -> ExitCode {
    let printers = (
        Printer::new("stdout", io::stdout()),
        Printer::new("stderr", io::stderr()),
    );
    let (Ok(out), Ok(err)) = printers else {
        // Without a thread, the error cannot be printed.
        return ExitCode::from(2);
    };
    let terminal = Terminal { out, err };
    let status = body(&terminal).unwrap_or_else(|error| {
        terminal.err.line(format!("{name}: {error}"));
        ExitCode::from(2)
    });
    terminal.out.flush(LAST_LINES);
    terminal.err.flush(LAST_LINES);
    kill_all();
    status
}

impl Terminal {
    /// Starts what each program needs: signals, the log, and a runtime.
    ///
    /// # Errors
    /// Returns an error if the operating system refuses one of them.
    pub fn start(&self, at_signal: AtSignal) -> Result<(Signals, Runtime), BoxError> {
        self.start_with(at_signal, Identity::new())
    }

    /// Does the same as [`start`](Self::start), and adds a layer to the log, with its own filter.
    ///
    /// # Errors
    /// Returns an error if the operating system refuses one of them.
    pub fn start_with(
        &self,
        at_signal: AtSignal,
        layer: impl Layer<Registry> + Send + Sync,
    ) -> Result<(Signals, Runtime), BoxError> {
        let signals = Signals::listen(at_signal)
            .map_err(|error| format!("listening for signals failed: {error}"))?;
        let lines = tracing_subscriber::fmt::layer().with_writer(self.err.clone());
        tracing_subscriber::registry()
            .with(layer)
            .with(lines.with_filter(logged()))
            .init();
        let err = self.err.clone();
        // Like the log, a panic does not wait for a reader.
        panic::set_hook(Box::new(move |panic| {
            let trace = Backtrace::capture();
            err.line(match trace.status() {
                BacktraceStatus::Captured => format!("{panic}\n{trace}"),
                _ => panic.to_string(),
            });
        }));
        Ok((signals, Runtime::new()?))
    }

    /// Runs the system of a template until a signal, and prints its events.
    ///
    /// # Errors
    /// Returns an error if the system does not start.
    pub async fn serve(
        &self,
        template: &Template,
        options: &Options,
        arguments: &Arguments,
        signals: &Signals,
        greeting: impl FnOnce(&System) -> Greeting,
    ) -> Result<ExitCode, BoxError> {
        let system = System::start(template, options).await?;
        let events = system.watch();
        let mut stop = signals.stop();
        self.out.line(greeting(&system).text(&system));
        tokio::select! {
            // It fails only without its sender, which the caller holds.
            _ = stop.wait_for(|stop| *stop) => {}
            () = print_events(events, &self.out), if !arguments.quiet => {}
        }
        self.err.line(match options.data {
            Some(_) => "stopping: the next start with this --data continues what is under way",
            None => "stopping",
        });
        system.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}

/// The application's part of the first lines.
#[derive(Debug, Default)]
pub struct Greeting {
    /// The address of a page, if the application has one.
    pub page: Option<String>,
    /// Requests to try.
    pub examples: String,
}

impl Greeting {
    fn text(&self, system: &System) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let mut address = |name: &str, address: &dyn fmt::Display| {
            let _ = writeln!(text, "{}  {address}", style(format!("{name:<12}")).bold());
        };
        address("HTTP API", &format_args!("http://{}", system.http));
        address("AWS endpoint", &format_args!("http://{}", system.endpoint));
        if let Some(page) = &self.page {
            address("Web page", page);
        }
        let resumed = system.composition.resumed;
        if resumed > 0 {
            let _ = writeln!(text, "Continuing {resumed} deliveries that were under way.");
        }
        if !self.examples.is_empty() {
            let _ = writeln!(text, "\nTry, in another terminal:\n\n{}", self.examples);
        }
        text + "\nCtrl-C ends it."
    }
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

/// Returns `12:00:00.000  OrderPlaced  order-...@1`. The id is that of the event's detail.
fn line(seen: &Seen) -> String {
    #[derive(Deserialize)]
    struct Detail {
        id: String,
    }
    let at = seen.at.to_string();
    let clock = at.get(11..23).unwrap_or_default();
    let detail: Option<Detail> = serde_json::from_str(&seen.detail).ok();
    let id = detail.map_or_else(String::new, |detail| detail.id);
    format!(
        "{}  {:<28} {}",
        style(clock).dim(),
        seen.kind,
        style(id).dim()
    )
}

/// The program of an application, with its functions in process.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    functions: Functions,
    parameters: &'static [(&'static str, &'static str)],
    examples: fn(&str) -> String,
}

/// Run the system locally, with an emulated AWS
#[derive(Debug, Parser)]
#[command(version)]
struct ApplicationArguments {
    #[command(flatten)]
    system: Arguments,
    #[command(flatten)]
    hosting: Hosting,
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
        run(self.name, |terminal| self.serve(terminal))
    }

    fn serve(&self, terminal: &Terminal) -> Result<ExitCode, BoxError> {
        let command = ApplicationArguments::command().name(self.name);
        let Some(ApplicationArguments { system, hosting }) = parse(command)? else {
            return Ok(ExitCode::SUCCESS);
        };
        let (signals, runtime) = terminal.start(AtSignal::Stop)?;
        let template = system.template(self.parameters)?;
        let functions = match hosting.search() {
            Some(search) => search.functions(&template)?,
            None => self.functions.clone(),
        };
        let options = system.options(Options {
            functions,
            platform: platform(&system, terminal),
            ..Options::default()
        })?;
        let greeting = |system: &System| Greeting {
            page: None,
            examples: (self.examples)(&format!("http://{}", system.http)),
        };
        let served = terminal.serve(&template, &options, &system, &signals, greeting);
        let ended = runtime.block_on(served);
        // Work in progress is no longer needed.
        runtime.shutdown_background();
        ended
    }
}

/// Returns the local platform with the faults of the arguments, which prints the lines of processes
/// unless the program is quiet.
pub(crate) fn platform(arguments: &Arguments, terminal: &Terminal) -> Arc<dyn Platform> {
    let platform = LocalPlatform::new(arguments.faults());
    Arc::new(match arguments.printer(terminal) {
        Some(printer) => platform.printing(printer),
        None => platform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_delivers_events_twice_and_late_with_disturb() {
        let copies = |arguments: &[&str]| {
            let parsed = ApplicationArguments::try_parse_from(arguments).unwrap();
            let platform = LocalPlatform::new(parsed.system.faults());
            platform.copies("Function", "{}").len()
        };
        assert_eq!(copies(&["program"]), 1);
        assert_eq!(copies(&["program", "--disturb"]), 2);
    }

    #[test]
    fn an_error_of_the_command_line_has_the_names_of_missing_arguments() {
        let error = ApplicationArguments::try_parse_from(["program", "--watch"]).unwrap_err();
        let line = "the following required arguments were not provided: --processes";
        assert_eq!(problem(&error.to_string()), line);
    }
}
