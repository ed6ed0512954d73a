//! The tool as a child process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use crate::waiting::{BOUND, ended};

/// A child process. Every wait has a time limit, and dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a command. A thread reads its stdout, so that a full pipe does not block the process.
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

    /// Waits for the next line of its stdout.
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(BOUND);
        line.unwrap_or_else(|error| panic!("the process printed no line: {error}"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child)
    }
}

impl Drop for Process {
    /// Sends SIGKILL, so that the process cannot clean up.
    fn drop(&mut self) {
        // Killing an ended process returns an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
