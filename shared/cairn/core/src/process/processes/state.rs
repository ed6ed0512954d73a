//! The state of a process: gates, timers and commands, and the state of its own events.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IssuedCommand, Process, Record, RecordedCause, RunningTimer, Watch};
use crate::{stream::StreamId, timestamp::Timestamp};

/// The state of a process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "")]
#[schemars(bound = "P: Process")]
pub struct ProcessState<P: Process> {
    /// The state of the own events.
    pub own: P::State,
    /// The version of the last event that was received from each source.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub gates: BTreeMap<StreamId, u64>,
    /// The running timers.
    pub timers: Vec<RunningTimer<P::Timer>>,
    /// The commands without an outcome, in the order of their numbers.
    pub commands: Vec<IssuedCommand<P::Command>>,
    /// The reason for each command that needs manual action, by its number.
    pub stuck: BTreeMap<u64, String>,
    /// The number of issued commands.
    pub issued: u64,
    /// The deadline.
    pub watch: Watch,
}

impl<P: Process> Default for ProcessState<P> {
    fn default() -> Self {
        Self {
            own: P::State::default(),
            gates: BTreeMap::new(),
            timers: vec![],
            commands: vec![],
            stuck: BTreeMap::new(),
            issued: 0,
            watch: Watch::Closed,
        }
    }
}

impl<P: Process> ProcessState<P> {
    /// Returns the version of the last event that was received from a source; 0 before the first.
    pub fn gate(&self, source: &StreamId) -> u64 {
        self.gates.get(source).copied().unwrap_or_default()
    }

    /// Returns the timer that fires first.
    pub fn next_timer(&self) -> Option<&RunningTimer<P::Timer>> {
        self.timers.iter().min_by_key(|timer| timer.at)
    }

    /// Returns the commands that are executed, without those that need manual action.
    pub fn pending(&self) -> impl Iterator<Item = &IssuedCommand<P::Command>> {
        let is_stuck = |number| self.stuck.contains_key(number);
        let commands = self.commands.iter();
        commands.filter(move |issued| !is_stuck(&issued.number))
    }

    /// Returns the time of the next timer or retry.
    pub fn next_check(&self) -> Option<Timestamp> {
        let retries = self.pending().map(|issued| issued.until);
        retries
            .chain(self.timers.iter().map(|timer| timer.at))
            .min()
    }

    /// Returns the deadline if it has to change. An earlier one than necessary stays until its
    /// time, because a check costs less than a write for each decision.
    pub(super) fn new_watch(&self, now: Timestamp) -> Option<Watch> {
        let next = match self.next_check() {
            _ if !self.stuck.is_empty() => Watch::Stuck,
            Some(at) => Watch::Until(at),
            None => Watch::Closed,
        };
        let suffices = match (self.watch, next) {
            (Watch::Closed, Watch::Closed) => true,
            (Watch::Until(known), Watch::Until(at)) => known <= at && now < known,
            // Each decision of a stuck process makes the watchdog check it in its next run.
            (Watch::Closed | Watch::Until(_) | Watch::Stuck, _) => false,
        };
        (!suffices).then_some(next)
    }

    pub(super) fn after_record(mut self, record: &Record<P>) -> Self {
        match &record.cause {
            RecordedCause::Received { stream, version } => {
                self.gates.insert(stream.clone(), *version);
            }
            RecordedCause::Fired(timer) => self.cancel(timer),
            RecordedCause::Ended { number, .. } => {
                self.commands.retain(|issued| issued.number != *number);
                self.stuck.remove(number);
            }
            RecordedCause::Stuck { number, reason } => {
                self.stuck.insert(*number, reason.clone());
            }
            RecordedCause::Retried | RecordedCause::Resumed => {}
        }
        for timer in &record.cancelled {
            self.cancel(timer);
        }
        for set in &record.timers {
            self.cancel(&set.timer);
            self.timers.push(set.clone());
        }
        for issued in &record.issued {
            self.stuck.remove(&issued.number);
            let mut known = self.commands.iter_mut();
            match known.find(|one| one.number == issued.number) {
                Some(known) => *known = issued.clone(),
                None => self.commands.push(issued.clone()),
            }
            self.issued = self.issued.max(issued.number);
        }
        self.watch = record.watch.unwrap_or(self.watch);
        self
    }

    fn cancel(&mut self, timer: &P::Timer) {
        self.timers.retain(|running| running.timer != *timer);
    }
}
