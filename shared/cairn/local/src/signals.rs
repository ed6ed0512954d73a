//! Handles the signals that end the program: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal.
//!
//! A dedicated thread waits for them, so that the program reacts while every other thread is busy,
//! or waits for a disk or a reader.

use std::{io, process, thread, time::Duration};

use tokio::{sync::watch, time::timeout};

use crate::host::kill_all;

/// The time from a signal to the end of the program. The contract allows two seconds.
const LIMIT: Duration = Duration::from_millis(1_500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtSignal {
    /// A signal is the normal end: exit status 0.
    Stop,
    /// A signal interrupts the work: exit status 128 plus the signal's number, as in a shell.
    CutOff,
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Signals(watch::Sender<bool>);

impl Signals {
    /// Starts to listen. Without a receiver of [`stop`](Self::stop), a signal ends the program
    /// immediately. With receivers, the program may end by itself within 1.5 seconds or until the next
    /// signal. The contents of a data directory survive any end.
    pub fn listen(at_signal: AtSignal) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut signals = {
            let _context = runtime.enter();
            Listener::new()?
        };
        let stop = watch::Sender::new(false);
        let stopping = stop.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let number = runtime.block_on(async {
                    let number = signals.next().await;
                    stopping.send_replace(true);
                    if stopping.receiver_count() > 0 {
                        // A second signal and the timeout have the same effect.
                        let _ = timeout(LIMIT, signals.next()).await;
                    }
                    number
                });
                kill_all();
                process::exit(match at_signal {
                    AtSignal::Stop => 0,
                    AtSignal::CutOff => 128 + number,
                });
            })?;
        Ok(Self(stop))
    }

    /// Becomes true at a signal.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

#[cfg(unix)]
struct Listener {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None` under `nohup`.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Listener {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if ignores_hangup() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    async fn next(&mut self) -> i32 {
        use tokio::signal::unix::SignalKind;
        let Self {
            interrupt,
            terminate,
            hangup,
        } = self;
        let hangup = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = hangup => SignalKind::hangup().as_raw_value(),
        }
    }
}

/// True if the program was started with SIGHUP ignored, as `nohup` does. Only Linux reports it.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok());
    // The lowest bit is that of signal 1.
    ignored.is_some_and(|signals| signals & 1 == 1)
}

#[cfg(windows)]
struct Listener(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Listener {
    fn new() -> io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?))
    }

    /// Waits for the next Ctrl-C, and returns the number of SIGINT.
    async fn next(&mut self) -> i32 {
        self.0.recv().await;
        2
    }
}
