//! The command `cairn local`: runs the functions of a template as processes.

use std::process::ExitCode;

use cairn::error::BoxError;
use clap::{ArgMatches, Args, FromArgMatches};

use crate::{
    http::ApiErrors,
    program::{self, Arguments, Greeting, Terminal, platform},
    programs::Search,
    signals::AtSignal,
    system::Options,
};

/// Run a SAM template locally, with its functions as processes and an emulated AWS
///
/// Starts the HTTP API and an AWS endpoint, and prints the lines of the functions and the events on
/// the buses. A function in Rust is built with Cargo. `docs/how-to/run-any-template-locally.md` lists
/// the supported programs.
#[derive(Debug, Args)]
struct Local {
    #[command(flatten)]
    system: Arguments,
    /// Use a function's program as soon as it changes
    #[arg(long)]
    watch: bool,
    /// Use the binaries of the last build with Cargo
    #[arg(long)]
    no_build: bool,
}

/// Returns the command line of the command.
pub fn command() -> clap::Command {
    Local::augment_args(clap::Command::new("local").after_help(
        "\
Examples:
  cairn local
  cairn local --template app/template.yaml --watch

Exit status: 0 stopped by a signal; 2 usage error, invalid template, or a program that does not exist",
    ))
}

/// Runs the command until a signal ends it.
pub fn run(matches: &ArgMatches) -> ExitCode {
    program::run("cairn local", |terminal| serve(matches, terminal))
}

fn serve(matches: &ArgMatches, terminal: &Terminal) -> Result<ExitCode, BoxError> {
    let Local {
        system,
        watch,
        no_build,
    } = Local::from_arg_matches(matches)?;
    let (signals, runtime) = terminal.start(AtSignal::Stop)?;
    let template = system.template(&[])?;
    let search = Search {
        builds: !no_build,
        watches: watch,
    };
    let options = system.options(Options {
        functions: search.functions(&template)?,
        platform: platform(&system, terminal),
        errors: ApiErrors::ApiGateway,
        ..Options::default()
    })?;
    let greeting = |_: &_| Greeting::default();
    let served = terminal.serve(&template, &options, &system, &signals, greeting);
    let ended = runtime.block_on(served);
    // Work in progress is no longer needed.
    runtime.shutdown_background();
    ended
}
