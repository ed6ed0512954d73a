//! The end of the log of one invocation.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{Dispatch, Event, Subscriber, dispatcher};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::{Context, SubscriberExt},
};

/// The bytes of log tail that an invocation returns.
/// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
const TAIL_BYTES: usize = 4 * 1024;

/// The last lines of one invocation. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Adds a line, and drops the lines before the tail.
    pub(super) fn add(&self, line: &[u8]) {
        let mut lines = self.lines();
        lines.extend(line);
        let surplus = lines.len().saturating_sub(TAIL_BYTES);
        lines.drain(..surplus);
    }

    /// Returns a subscriber that copies the lines of a function in this process, in the format and
    /// at the level of the function on AWS. All functions in this process share one log, so the
    /// subscriber also forwards the lines to it.
    pub(super) fn subscriber(
        &self,
        level: Option<&String>,
    ) -> impl Subscriber + Send + Sync + use<> {
        let level = level.and_then(|level| level.parse::<Targets>().ok());
        let level = level.unwrap_or_else(|| Targets::new().with_default(LevelFilter::ERROR));
        let log = self.clone();
        let lines = fmt::layer().json().with_span_list(false);
        let lines = lines.with_writer(move || log.clone()).with_filter(level);
        let process = Forward(dispatcher::get_default(Clone::clone));
        tracing_subscriber::registry().with(lines).with(process)
    }

    /// Returns the end of the log, after its first and before its last lines.
    pub(crate) fn tail(&self, first: &str, last: &str) -> Vec<u8> {
        let log = [first.as_bytes(), &self.lines(), last.as_bytes()].concat();
        let start = log.len().saturating_sub(TAIL_BYTES);
        log.get(start..).unwrap_or_default().to_vec()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Forward(Dispatch);

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if self.0.enabled(event.metadata()) {
            self.0.event(event);
        }
    }
}
