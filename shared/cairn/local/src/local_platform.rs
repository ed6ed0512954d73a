//! The local platform, with faults that can be switched on while it runs.

use std::{ops::Range, sync::Arc, time::Duration};

use cairn::Timestamp;
use uuid::Uuid;

use crate::{
    faults::{Fault, FaultProfile},
    platform::{FaultDecision, InvocationFault, Note, Observer, Platform},
    printer::Printer,
};

/// The local platform. Minutes on AWS become seconds.
#[derive(Clone, Debug, Default)]
pub struct LocalPlatform {
    pub faults: FaultProfile,
    observer: Option<Arc<dyn Observer>>,
    /// The function that [`Fault::BrokenFunction`] breaks, and its error.
    broken: Option<(&'static str, &'static str)>,
    /// The printer of the lines of processes; without it they go to the log.
    printer: Option<Printer>,
    /// The time that a call to a service takes on its way.
    round_trip: Duration,
}

impl LocalPlatform {
    /// The factor by which waits are shorter than on AWS.
    pub const PACE: u32 = 60;
    /// The longest delay of a delivery with [`Fault::Disorder`], in milliseconds.
    const DISORDER_MS: u64 = 40;
    /// The delay of a delivery with [`Fault::Delays`], in milliseconds.
    const DELAY_MS: Range<u64> = 1_000..2_000;

    /// Creates the platform on which `faults` switches faults on and off.
    pub fn new(faults: FaultProfile) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }

    pub fn with(faults: &[Fault]) -> Self {
        let local = Self::default();
        local.faults.set(faults);
        local
    }

    /// Passes everything that it observes to `observer`.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        let observer = Some(observer);
        Self { observer, ..self }
    }

    /// Prints the lines of functions that run as processes.
    #[must_use]
    pub fn printing(self, printer: Printer) -> Self {
        let printer = Some(printer);
        Self { printer, ..self }
    }

    /// Sets the time that each call to a service takes on its way. By default it takes none.
    #[must_use]
    pub fn with_round_trip(self, round_trip: Duration) -> Self {
        Self { round_trip, ..self }
    }

    /// Chooses the function that fails with this error while [`Fault::BrokenFunction`] is on.
    #[must_use]
    pub fn breaking(self, function: &'static str, error: &'static str) -> Self {
        let broken = Some((function, error));
        Self { broken, ..self }
    }

    fn late(&self) -> Duration {
        let mut late_ms = 0;
        if self.faults.has(Fault::Disorder) {
            late_ms += fastrand::u64(0..Self::DISORDER_MS);
        }
        if self.faults.has(Fault::Delays) {
            late_ms += fastrand::u64(Self::DELAY_MS);
        }
        Duration::from_millis(late_ms)
    }
}

impl Platform for LocalPlatform {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn chance(&self) -> f64 {
        fastrand::f64()
    }

    fn pace(&self, wait: Duration) -> Duration {
        wait / Self::PACE
    }

    fn emit(&self, function: &str, line: &str) {
        if let Some(observer) = &self.observer {
            observer.emit(function, line);
        }
    }

    fn log(&self, function: &str, line: &str) {
        if let Some(printer) = &self.printer {
            printer.line(format!("{function}  {line}"));
        } else {
            tracing::info!(function, line, "output of a process");
        }
    }

    fn note(&self, note: &Note<'_>) {
        if let Some(observer) = &self.observer {
            observer.note(note);
        }
    }

    fn call(&self, _: &str, _: &str) -> FaultDecision {
        let half = self.round_trip / 2;
        FaultDecision {
            there: half,
            back: half,
            fault: None,
        }
    }

    fn copies(&self, _: &str, _: &str) -> Vec<Duration> {
        let copies = if self.faults.has(Fault::Duplicates) {
            2
        } else {
            1
        };
        (0..copies).map(|_| self.late()).collect()
    }

    fn invocation(&self, function: &str, _: &[u8]) -> InvocationFault {
        match self.broken {
            Some((broken, error))
                if broken == function && self.faults.has(Fault::BrokenFunction) =>
            {
                InvocationFault::Fails(error.to_owned())
            }
            _ => InvocationFault::None,
        }
    }
}
