//! `cairn-local` as a separate process.

use std::{
    io::{BufRead, BufReader, Lines, Read},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use cairn_local::client::Client;

use crate::fixture::{TIMEOUT, template_file};

/// The program with the project's template, on free ports.
pub(crate) fn command() -> Command {
    with_template(Command::new(env!("CARGO_BIN_EXE_cairn-local")))
}

/// The same, after a line of shell such as `ulimit -f 8`.
#[cfg(unix)]
pub(crate) fn command_after(line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{line}; exec \"$0\" \"$@\""));
    with_template({
        shell.arg(env!("CARGO_BIN_EXE_cairn-local"));
        shell
    })
}

fn with_template(mut command: Command) -> Command {
    command.arg("--template").arg(template_file());
    command.args(["--port", "0", "--aws-port", "0"]);
    command
}

/// A running process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Keeps the rest of the output open.
    _out: Lines<BufReader<ChildStdout>>,
    errors: Option<JoinHandle<String>>,
    pub(crate) client: Client,
}

/// A process that ended before it answered any request.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit status; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Process {
    pub(crate) fn start(data: &Path) -> Self {
        let mut command = command();
        command.args(["--quiet", "--data"]).arg(data);
        Self::spawn(command).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    /// Runs a command until it is ready for requests or has ended.
    pub(crate) fn spawn(mut command: Command) -> Result<Self, Ended> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = vec![];
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let Some(first) = out.next() else {
            let code = wait(&mut child).code();
            let stderr = errors.join().unwrap();
            return Err(Ended { code, stderr });
        };
        let address = first.unwrap().split("http://").nth(1).unwrap().parse();
        Ok(Self {
            child,
            _out: out,
            errors: Some(errors),
            client: Client::new(address.unwrap()),
        })
    }

    /// Sends SIGKILL, so that the process cannot clean up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, such as `INT`.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success(), "{kill}");
    }

    pub(crate) fn end(self) -> ExitStatus {
        self.end_with_errors().0
    }

    /// Waits for the end of the process, and returns its output on stderr.
    pub(crate) fn end_with_errors(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child);
        let errors = self.errors.take().unwrap().join().unwrap();
        (status, errors)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits a bounded time for the end of a process.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > TIMEOUT {
            child.kill().unwrap();
            panic!("the process does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
