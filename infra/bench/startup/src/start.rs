//! One start of a program, from its execution to its first request to the Lambda Runtime API.
//!
//! The API never responds. The program waits for its first event while its memory and processor
//! time are read, and is then killed.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::{
    fs,
    net::Ipv4Addr,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    time::ClockId,
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::{
    Failed,
    programs::{ENVIRONMENT, Program},
};

/// The request for the next event.
const NEXT: &[u8] = b"GET /2018-06-01/runtime/invocation/next ";
const VALGRIND: &str = "valgrind";
/// The time limit of a start; under callgrind it takes a few seconds.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// From the execution to the first request.
    pub time: Duration,
    /// The processor time of all threads until then, user and system.
    pub processor: Duration,
    /// The peak of resident memory until then, in KiB.
    pub peak_kib: u32,
}

/// Starts a program once.
pub(crate) async fn start(program: &Program) -> Result<Start, Failed> {
    let waiting = wait_for(program, Command::new(&program.path)).await?;
    let (pid, mut child) = (waiting.pid, waiting.child);
    let processor = ClockId::pid_cpu_clock_id(pid)
        .and_then(ClockId::now)
        .map_err(Failed::new)?;
    let peak_kib = peak_kib(pid)?;
    child.kill().await.map_err(Failed::new)?;
    Ok(Start {
        time: waiting.time,
        processor: Duration::from(processor),
        peak_kib,
    })
}

/// Returns the instructions of one start in millions, counted by callgrind without the kernel's.
pub(crate) async fn instructions(program: &Program) -> Result<f64, Failed> {
    let mut valgrind = Command::new(VALGRIND);
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(&program.path);
    let waiting = wait_for(program, valgrind).await?;
    // On SIGTERM valgrind prints its count.
    kill(waiting.pid, Signal::SIGTERM).map_err(Failed::new)?;
    let ended = tokio::time::timeout(TIMEOUT, waiting.child.wait_with_output())
        .await
        .map_err(|_| Failed::new("valgrind did not exit"))?
        .map_err(Failed::new)?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected
        .and_then(|(_, count)| count.trim().parse::<f64>().ok())
        .map(|count| count / 1e6)
        .ok_or_else(|| Failed::new(format!("no count in the output of valgrind: {said}")))
}

/// A program that waits for its first event. Dropping it kills the program.
struct Waiting {
    child: Child,
    pid: Pid,
    time: Duration,
    /// Keeps the request open.
    _request: TcpStream,
}

async fn wait_for(program: &Program, mut command: Command) -> Result<Waiting, Failed> {
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(Failed::new)?;
    let address = api.local_addr().map_err(Failed::new)?;
    command
        .env_clear()
        .envs(ENVIRONMENT.iter().copied())
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let began = Instant::now();
    let mut child = command.spawn().map_err(|error| {
        let executed = command.as_std().get_program().to_string_lossy();
        let remedy = if executed == VALGRIND {
            "; install it (Debian: apt-get install valgrind)"
        } else {
            ""
        };
        Failed::new(format!("executing {executed} failed: {error}{remedy}"))
    })?;
    let asked = tokio::select! {
        asked = tokio::time::timeout(TIMEOUT, first_request(&api)) => asked,
        ended = child.wait() => {
            let status = ended.map_err(Failed::new)?;
            return Err(ended_early(program, child, &status.to_string()).await);
        }
    };
    let (request, asked_at) = asked.map_err(|_| {
        Failed::new(format!(
            "{} did not request an event within {TIMEOUT:?}",
            program.name
        ))
    })??;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| Failed::new(format!("{} exited", program.name)))?;
    Ok(Waiting {
        child,
        pid: Pid::from_raw(pid),
        time: asked_at - began,
        _request: request,
    })
}

async fn first_request(api: &TcpListener) -> Result<(TcpStream, Instant), Failed> {
    let (mut stream, _) = api.accept().await.map_err(Failed::new)?;
    let mut received = vec![];
    while received.len() < NEXT.len() {
        if stream.read_buf(&mut received).await.map_err(Failed::new)? == 0 {
            break;
        }
    }
    let asked_at = Instant::now();
    if !received.starts_with(NEXT) {
        return Err(Failed::new(format!(
            "the first request is not for the next event: {}",
            String::from_utf8_lossy(&received)
        )));
    }
    Ok((stream, asked_at))
}

async fn ended_early(program: &Program, child: Child, status: &str) -> Failed {
    let output = child.wait_with_output().await.map_or_else(
        |error| error.to_string(),
        |output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        },
    );
    Failed::new(format!(
        "{} ended before it requested an event ({status}). An environment variable may be missing in \
         infra/bench/startup/src/programs.rs. Its output: {output}",
        program.name
    ))
}

fn peak_kib(pid: Pid) -> Result<u32, Failed> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| {
        Failed::new(format!("reading {path} failed: {error}; this needs Linux"))
    })?;
    peak_in(&status).ok_or_else(|| Failed::new(format!("{path} has no VmHWM")))
}

fn peak_in(status: &str) -> Option<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Program, Command) {
        let program = Program {
            name: "a script".to_owned(),
            path: "/bin/sh".into(),
            is_ours: false,
        };
        let mut command = Command::new(&program.path);
        command.args(["-c", script]);
        (program, command)
    }

    #[test]
    fn the_peak_is_found_in_a_process_status() {
        let status =
            "Name:\tplace-order\nVmPeak:\t  90000 kB\nVmHWM:\t    5432 kB\nVmRSS:\t 5000 kB\n";
        assert_eq!(peak_in(status), Some(5432));
    }

    #[tokio::test]
    async fn a_program_that_ends_says_why() {
        let (program, command) = shell("echo no table >&2; exit 3");
        let error = wait_for(&program, command).await.err().unwrap().to_string();
        assert!(
            error.contains("no table") && error.contains("exit status: 3"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_request_for_something_else_is_not_a_start() {
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(api.local_addr().unwrap()).await.unwrap();
        let error = b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, error)
            .await
            .unwrap();
        assert!(first_request(&api).await.is_err());
    }
}
