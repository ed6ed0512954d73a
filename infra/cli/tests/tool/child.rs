//! The tool as a process that runs beside the test.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use crate::waiting::{BOUND, ended};

/// A child process. Each wait for it is bounded, and it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a command. A thread reads its standard output, so that a full pipe does not stop it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // A test may end before the process does.
                let _ = send.send(line);
            }
        });
        Self { child, lines }
    }

    /// The next line of its standard output.
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(BOUND);
        line.unwrap_or_else(|error| panic!("the process printed no line: {error}"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child)
    }
}

impl Drop for Process {
    /// SIGKILL: the process has no chance to tidy up.
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
