//! The instructions of one command's decision and codec, counted by callgrind. The count is the
//! same in every run.

use std::{
    process::{Command as Process, ExitCode, Stdio},
    str::FromStr,
};

use cairn::{Decider, event::Event as _};

use store_bench::{
    Failed,
    order::Event,
    systems::cairn::{Command, DEFAULT_INTERVAL, Order},
};

type Ours = Order<DEFAULT_INTERVAL>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// Decide, encode, decode and evolve.
    Ours,
    /// Serializing and parsing the event with serde alone.
    Bare,
}

impl FromStr for What {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ours" => Ok(Self::Ours),
            "bare" => Ok(Self::Bare),
            _ => Err("ours or bare"),
        }
    }
}

/// Repeats the work; this runs under callgrind.
pub(crate) fn repeat(what: What, times: u64) -> Result<ExitCode, Failed> {
    let fold = |state, events: &[Event]| events.iter().fold(state, Ours::evolve);
    let placed = Ours::decide(&Ours::initial(), &Command::Place).map_err(Failed::new)?;
    let mut state = fold(Ours::initial(), &placed);
    let changed = Ours::decide(&state, &Command::Change(1)).map_err(Failed::new)?;
    for _ in 0..times {
        match what {
            What::Ours => {
                let events = Ours::decide(&state, &Command::Change(1)).map_err(Failed::new)?;
                for event in events {
                    let stored = event.encode().map_err(Failed::new)?;
                    let event = Event::decode(&stored).map_err(Failed::new)?;
                    state = Ours::evolve(state, &event);
                }
            }
            What::Bare => {
                for event in &changed {
                    let json = serde_json::to_string(event).map_err(Failed::new)?;
                    let event: Event = serde_json::from_str(&json).map_err(Failed::new)?;
                    std::hint::black_box(event);
                }
            }
        }
    }
    std::hint::black_box(state);
    Ok(ExitCode::SUCCESS)
}

/// Runs this program under callgrind and prints the instructions of one command.
pub(crate) fn count() -> Result<ExitCode, Failed> {
    const FEW: u64 = 100;
    const MANY: u64 = 1_100;
    for (what, name) in [
        ("ours", "decide, encode, decode, evolve"),
        ("bare", "serde_json: the event to text and back"),
    ] {
        let each = (under_callgrind(what, MANY)? - under_callgrind(what, FEW)?) / (MANY - FEW);
        println!("{each:>8} instructions  {name}");
    }
    Ok(ExitCode::SUCCESS)
}

fn under_callgrind(what: &str, times: u64) -> Result<u64, Failed> {
    let program = std::env::current_exe().map_err(Failed::new)?;
    let ran = Process::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([
            "instructions",
            "--what",
            what,
            "--repeat",
            &times.to_string(),
        ])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failed::new(format!(
                "starting valgrind failed: {error}; install it (Debian: apt-get install valgrind)"
            ))
        })?;
    let said = String::from_utf8_lossy(&ran.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| Failed::new(format!("no count in the output of valgrind: {said}")))
}
