//! Bounded waits: each returns the awaited value, or fails and shows the last observation.

use std::{
    fmt::Debug,
    future::Future,
    io::Read,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

/// Far longer than any step on a loaded machine: a test that reaches it has found a deadlock.
pub(crate) const BOUND: Duration = Duration::from_mins(2);

/// The pause between two observations of a state that sends no notification.
const PAUSE: Duration = Duration::from_millis(10);

/// Awaits the output of a future within [`BOUND`].
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let output = timeout(BOUND, future).await;
    output.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

/// Repeats an observation until it succeeds. A failed observation returns the observed state.
pub(crate) async fn until<T, S: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let mut last = None;
    let found = timeout(BOUND, async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) => last = Some(seen),
            }
            sleep(PAUSE).await;
        }
    });
    let found = found.await;
    found.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}; seen last: {last:?}"))
}

pub(crate) fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = whole(child.stdout.take().unwrap());
    let stderr = whole(child.stderr.take().unwrap());
    let status = ended(&mut child);
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn whole(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = vec![];
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Waits for the end of a process, and kills it after [`BOUND`].
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > BOUND {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the process did not end within {BOUND:?}");
        }
        thread::sleep(PAUSE);
    }
}
