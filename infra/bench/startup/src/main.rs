//! Measures the start time, memory and size of functions, and compares them with hello-world.
//!
//! Linux only: it reads `/proc`.

use std::{fmt::Display, process::ExitCode};

use clap::{Parser, ValueEnum};

use crate::{
    programs::Program,
    report::{Row, broken_promises, table},
    start::Start,
};

mod package;
mod programs;
mod report;
mod start;

/// Compare the start of functions with hello-world: time, memory and size.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of starts of each program.
    #[arg(long, default_value_t = 31, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
    /// Programs to build first: those that are started, also all other functions for their sizes,
    /// or none.
    #[arg(long, value_enum, default_value = "started")]
    build: Build,
    /// Count the instructions of one start of each program, under callgrind.
    #[arg(long)]
    instructions: bool,
    /// Exit with status 1 if a limit is exceeded.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Build {
    Started,
    All,
    Nothing,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(String);

impl Failed {
    pub(crate) fn new(error: impl Display) -> Self {
        Self(error.to_string())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Failed::new)
        .and_then(|runtime| runtime.block_on(measure(&arguments)));
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<ExitCode, Failed> {
    let functions = programs::functions()?;
    match arguments.build {
        Build::Started => programs::build(&[])?,
        Build::All => programs::build(&functions)?,
        Build::Nothing => {}
    }
    let programs = programs::started();
    let unpacked = programs::unpacked(&programs)?;
    let starts = all_starts(&unpacked, arguments.starts).await?;
    let mut rows = vec![];
    for (program, starts) in unpacked.iter().zip(&starts) {
        let mut instructions = None;
        if arguments.instructions {
            eprintln!("counting instructions: {}", program.name);
            instructions = Some(start::instructions(program).await?);
        }
        let zip = package::zipped(&program.path)?;
        rows.push(Row::started(program, starts, instructions, zip));
    }
    rows.extend(only_packed(&functions, &programs)?);
    println!("{}", table(&rows));
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

/// Starts the programs in turns, so that other load on the machine affects all alike.
async fn all_starts(programs: &[Program], times: u16) -> Result<Vec<Vec<Start>>, Failed> {
    // The first start reads the binary from disk and does not count.
    eprintln!("starting each of {} programs once", programs.len());
    for program in programs {
        start::start(program).await?;
    }
    let mut starts = vec![vec![]; programs.len()];
    for turn in 1..=times {
        eprintln!("turn {turn} of {times}");
        for (program, starts) in programs.iter().zip(&mut starts) {
            starts.push(start::start(program).await?);
        }
    }
    Ok(starts)
}

/// Returns a row for each function's binary that exists and was not started.
fn only_packed(functions: &[String], started: &[Program]) -> Result<Vec<Row>, Failed> {
    let (mut rows, mut missing) = (vec![], vec![]);
    for function in functions {
        let binaries = programs::binaries(function);
        if binaries.is_empty() {
            missing.push(function.as_str());
        }
        for (name, path) in binaries {
            if !started.iter().any(|program| program.path == path) {
                rows.push(Row::packed(&name, package::zipped(&path)?));
            }
        }
    }
    if !missing.is_empty() {
        eprintln!(
            "{} functions are not built and not in the table; `--build all` builds them: {}",
            missing.len(),
            missing.join(", ")
        );
    }
    Ok(rows)
}
