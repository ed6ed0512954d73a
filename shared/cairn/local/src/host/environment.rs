//! An execution environment: the function, the place of its invocation, and its clock.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn::Timestamp;
use cairn_aws::lambda::{Handler, Invocation, Runtime};
use uuid::Uuid;

use super::{
    invoke_error::InvokeError,
    log::Log,
    places::{Place, Places, Rank},
    process::Process,
};
use crate::platform::Platform;

pub(super) struct Execution {
    pub(super) function: Running,
    pub(super) seat: Arc<Seat>,
}

pub(super) enum Running {
    InProcess(Handler),
    Process(Process),
}

impl Running {
    /// Waits for the part of the start that takes no time of the invocation.
    pub(super) async fn started(&self) {
        match self {
            Self::InProcess(_) => {}
            Self::Process(process) => process.started().await,
        }
    }

    pub(super) async fn invoke(
        &self,
        payload: Vec<u8>,
        invocation: Invocation,
    ) -> Result<Vec<u8>, InvokeError> {
        match self {
            Self::InProcess(function) => {
                let answer = function.invoke(payload, invocation).await;
                answer.map_err(|error| InvokeError::Failed(error.to_string()))
            }
            Self::Process(process) => process.invoke(payload, &invocation).await,
        }
    }

    /// Copies the lines of the process to a log, until [`end_log`](Self::end_log). A function in this
    /// process logs to the subscriber of its invocation.
    pub(super) fn begin_log(&self, log: &Log) {
        if let Self::Process(process) = self {
            process.begin_log(log);
        }
    }

    /// Waits until the log has every line that the process has printed, and ends the log.
    pub(super) async fn end_log(&self) {
        if let Self::Process(process) = self {
            process.end_log().await;
        }
    }

    /// True if the next invocation may use the environment.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            Self::InProcess(_) => true,
            Self::Process(process) => process.is_usable(),
        }
    }
}

/// The place of the current invocation of an environment.
pub(super) struct Seat {
    places: Places,
    held: Mutex<Held>,
}

/// Empty if the invocation needs no place.
#[derive(Default)]
struct Held {
    rank: Option<Rank>,
    place: Option<Place>,
}

impl Seat {
    pub(super) fn new(places: Places) -> Self {
        let held = Mutex::default();
        Self { places, held }
    }

    /// Holds a place until the returned guard is dropped.
    pub(super) fn sit(self: &Arc<Self>, rank: Rank, place: Place) -> Seated {
        *self.held() = Held {
            rank: Some(rank),
            place: Some(place),
        };
        Seated(self.clone())
    }

    /// Releases the place to other work.
    pub(super) fn leave(&self) {
        drop(self.take());
    }

    /// Takes the place out of the seat.
    pub(super) fn take(&self) -> Option<Place> {
        self.held().place.take()
    }

    /// Takes a place again if the invocation had one.
    async fn sit_again(&self) {
        let rank = self.held().rank;
        if let Some(rank) = rank {
            let place = self.places.take(rank).await;
            let before = self.held().place.replace(place);
            drop(before);
        }
    }

    fn clear(&self) {
        let held = std::mem::take(&mut *self.held());
        drop(held);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An invocation that holds a seat until it is dropped.
pub(super) struct Seated(Arc<Seat>);

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// The runtime services of an execution environment.
pub(super) struct Clock {
    pub(super) seat: Arc<Seat>,
    pub(super) function: String,
    pub(super) skew_ms: i64,
    pub(super) platform: Arc<dyn Platform>,
}

impl Runtime for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.platform.now().as_millis() + self.skew_ms)
    }

    fn new_id(&self) -> Uuid {
        self.platform.new_id()
    }

    fn emit(&self, line: &str) {
        self.platform.emit(&self.function, line);
    }

    fn begin_wait(&self) {
        self.seat.leave();
    }

    fn end_wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.seat.sit_again())
    }
}
