//! `cairn`: the command-line tool for operators.
//!
//! Each command has a file. [`stack`] finds the system, [`output`] prints tables or JSON, and
//! [`failure`] sets the exit status. The tool reaches AWS only through the kit, as the functions
//! do.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

mod audit;
mod completions;
mod cost;
mod dead_letters;
mod diff;
mod doctor;
mod export;
mod failure;
mod forget;
#[cfg(test)]
#[path = "../../local/tests/system/generated.rs"]
mod generated;
mod history;
mod lag;
mod output;
mod rebuild;
#[cfg(test)]
mod reference;
mod republish;
mod restore;
mod sagas;
mod stack;
mod state;
mod tail;

use failure::{Failure, Verdict};
use output::Output;

/// Inspect and repair a Cairn deployment
///
/// Works with AWS, AWS emulators and the local system (`cargo run`).
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  cairn --endpoint-url http://127.0.0.1:4566 history stock-TEA-01
  AWS_PROFILE=shop cairn --stack cairn sagas --stuck

Exit status: 0 success; 1 problems found; 2 usage error or system unreachable"
)]
struct Arguments {
    #[command(flatten)]
    access: stack::Access,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Audit(audit::Audit),
    Doctor(doctor::Doctor),
    History(history::History),
    State(state::State),
    Diff(diff::Diff),
    Tail(tail::Tail),
    Lag(lag::Lag),
    Sagas(sagas::Sagas),
    Saga(sagas::OneSaga),
    DeadLetters(dead_letters::DeadLetters),
    Rebuild(rebuild::Rebuild),
    Republish(republish::Republish),
    Restore(restore::Restore),
    Cost(cost::Cost),
    Forget(forget::Forget),
    Completions(completions::Completions),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(asked) if !asked.use_stderr() => {
            // Help or the version. If stdout is closed, no reader is left.
            let _ = asked.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return told(&error, 2),
    };
    match runtime.block_on(run(&arguments)) {
        Ok(Verdict::Well) | Err(Failure::Output) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::FAILURE,
        Ok(Verdict::Unknown) => ExitCode::from(2),
        Err(Failure::Found(problem)) => told(&problem, 1),
        Err(Failure::Refused(problem)) => told(&problem, 2),
    }
}

async fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let mut out = Output::new(arguments.json);
    if let Command::Completions(completions) = &arguments.command {
        return completions.run();
    }
    let stack = arguments.access.connect().await?;
    match &arguments.command {
        Command::Audit(audit) => audit.run(&stack, &mut out).await,
        Command::Doctor(doctor) => doctor.run(&stack, &mut out).await,
        Command::History(history) => history.run(&stack, &mut out).await,
        Command::State(state) => state.run(&stack, &mut out).await,
        Command::Diff(diff) => diff.run(&stack, &mut out).await,
        Command::Tail(tail) => tail.run(&stack, &mut out).await,
        Command::Lag(lag) => lag.run(&stack, &mut out).await,
        Command::Sagas(sagas) => sagas.run(&stack, &mut out).await,
        Command::Saga(saga) => saga.run(&stack, &mut out).await,
        Command::DeadLetters(letters) => letters.run(&stack, &mut out).await,
        Command::Rebuild(rebuild) => rebuild.run(&stack, &mut out).await,
        Command::Republish(republish) => republish.run(&stack, &mut out).await,
        Command::Restore(restore) => restore.run(&stack, &mut out).await,
        Command::Cost(cost::Cost {}) => cost::run(&stack, &mut out).await,
        Command::Forget(forget) => forget.run(&stack, &mut out).await,
        Command::Completions(completions) => completions.run(),
    }
}

fn told(problem: &dyn std::fmt::Display, status: u8) -> ExitCode {
    // If stderr is closed, no reader is left.
    let _ = writeln!(io::stderr(), "cairn: {problem}");
    ExitCode::from(status)
}
