//! A process as a decider: it orders the causes, and records each with the outputs of its decision.

use std::{marker::PhantomData, mem, time::Duration};

use super::{
    Cause, CommandOutcome, IssuedCommand, Outputs, Process, ProcessState, Record, RecordedCause,
    Watch,
};
use crate::{
    commit::RecordedEvent,
    deadlines::Monitored,
    decider::{Aggregate, Decider},
    event::CodecError,
    guard::{Guard, holds},
    stream::StreamId,
    timestamp::Timestamp,
};

/// The streams of a process.
#[derive(Debug)]
pub struct ProcessStream<P>(PhantomData<P>);

/// A command of the kit to a process.
#[derive(Clone, Debug)]
pub struct ProcessCommand<P: Process> {
    /// The current time.
    pub now: Timestamp,
    /// The time budget of commands without one of their own.
    pub step_timeout: Duration,
    /// The action.
    pub action: ProcessAction<P>,
}

/// The action of a command of the kit.
#[derive(Clone, Debug)]
pub enum ProcessAction<P: Process> {
    /// Receives events, earliest first, each after the timers before it.
    Receive(Vec<Arrival<P>>),
    /// Receives all events of the sources, fires the timers until now, and requests commands
    /// without an outcome again.
    Wake(Vec<Arrival<P>>),
    /// Records the outcome of a command.
    End {
        /// The number of the command.
        number: u64,
        /// The attempt that ended.
        attempt: u32,
        /// The outcome.
        outcome: CommandOutcome,
    },
    /// Requests the commands again that need manual action.
    Resume,
    /// Ends the commands that need manual action, for this reason.
    Abandon(String),
}

/// An event of a source, in the form that the rules use.
#[derive(Clone, Debug)]
pub struct Arrival<P: Process> {
    /// The source.
    pub stream: StreamId,
    /// The version of the event.
    pub version: u64,
    /// The commit time of the event.
    pub at: Timestamp,
    /// The event.
    pub message: P::Message,
}

/// The reason for the rejection of a command of the kit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessRejection {
    /// The command has ended, is stuck, or was resumed.
    #[error("the command is not pending")]
    NotPending,
    /// No command needs manual action.
    #[error("the process is not stuck")]
    NotStuck,
    /// The process has received events of too many streams.
    #[error("the process has {MAX_SOURCES} sources; correlate {0} with another instance")]
    TooManySources(StreamId),
}

/// The maximum number of source streams of one instance, which bounds its snapshot.
const MAX_SOURCES: usize = 1_000;

/// The maximum number of timers that one append fires. The next check fires the others.
const MAX_FIRED: usize = 100;

impl<P: Process> Decider for ProcessStream<P> {
    type State = ProcessState<P>;
    type Command = ProcessCommand<P>;
    type Event = P::Event;
    type Rejection = ProcessRejection;

    fn decide(
        state: &ProcessState<P>,
        command: &ProcessCommand<P>,
    ) -> Result<Vec<P::Event>, ProcessRejection> {
        let mut work = Work {
            state: state.clone(),
            decisions: vec![],
            now: command.now,
            step_timeout: command.step_timeout,
        };
        match &command.action {
            ProcessAction::Receive(arrivals) => work.receive(arrivals)?,
            ProcessAction::Wake(arrivals) => {
                work.receive(arrivals)?;
                work.fire(|at| at <= command.now);
                work.request_again();
            }
            ProcessAction::End {
                number,
                attempt,
                outcome,
            } => {
                let mut pending = state.pending();
                let ended = pending.find(|one| (one.number, one.attempt) == (*number, *attempt));
                let ended = ended.ok_or(ProcessRejection::NotPending)?;
                work.end(ended, outcome.clone());
            }
            ProcessAction::Resume => work.resume(&state.stuck()?),
            ProcessAction::Abandon(reason) => {
                for stuck in state.stuck()? {
                    work.end(&stuck, CommandOutcome::Abandoned(reason.clone()));
                }
            }
        }
        Ok(work.finish())
    }

    fn evolve(mut state: ProcessState<P>, event: &P::Event) -> ProcessState<P> {
        if let Some(record) = P::record(event) {
            return state.after_record(record);
        }
        state.own = P::evolve(state.own, event);
        state
    }
}

impl<P: Process> Aggregate for ProcessStream<P> {
    type Id = P::Id;

    const CATEGORY: &'static str = P::CATEGORY;
    const REVISION: u32 = P::REVISION;
}

impl<P: Process> ProcessState<P> {
    fn stuck(&self) -> Result<Vec<IssuedCommand<P::Command>>, ProcessRejection> {
        if self.stuck.is_empty() {
            return Err(ProcessRejection::NotStuck);
        }
        let commands = self.commands.iter();
        let stuck = commands.filter(|issued| self.stuck.contains_key(&issued.number));
        Ok(stuck.cloned().collect())
    }
}

/// The decisions of one append, and the state after them.
struct Work<P: Process> {
    state: ProcessState<P>,
    decisions: Vec<(Record<P>, Vec<P::Event>)>,
    now: Timestamp,
    step_timeout: Duration,
}

impl<P: Process> Work<P> {
    fn receive(&mut self, arrivals: &[Arrival<P>]) -> Result<(), ProcessRejection> {
        for arrival in arrivals {
            let Arrival {
                stream, version, ..
            } = arrival;
            if *version <= self.state.gate(stream) && holds(Guard::VersionGate) {
                continue;
            }
            if self.state.gates.len() >= MAX_SOURCES && !self.state.gates.contains_key(stream) {
                return Err(ProcessRejection::TooManySources(stream.clone()));
            }
            self.fire(|at| at < arrival.at);
            let received = RecordedCause::Received {
                stream: stream.clone(),
                version: *version,
            };
            let cause = Cause::Event(arrival.message.clone());
            self.decide(received, &cause, arrival.at);
        }
        Ok(())
    }

    /// Fires the timers whose time is due, earliest first.
    fn fire(&mut self, is_due: impl Fn(Timestamp) -> bool) {
        for _ in 0..MAX_FIRED {
            let next = self.state.next_timer().filter(|next| is_due(next.at));
            let Some(next) = next.cloned() else { return };
            let fired = RecordedCause::Fired(next.timer.clone());
            self.decide(fired, &Cause::Timer(next.timer), next.at);
        }
    }

    /// Requests the commands again that have no outcome in time, or ends them after the last retry.
    fn request_again(&mut self) {
        let now = self.now;
        let overdue: Vec<_> = self.state.pending().cloned().collect();
        let overdue = overdue.into_iter().filter(|issued| issued.until <= now);
        let (again, unknown): (Vec<_>, Vec<_>) =
            overdue.partition(|issued| issued.retries < P::RETRIES);
        let again = again.into_iter().map(|issued| IssuedCommand {
            until: self.until(&issued.command, issued.retries + 1),
            retries: issued.retries + 1,
            ..issued
        });
        let again: Vec<_> = again.collect();
        if !again.is_empty() {
            self.issue(RecordedCause::Retried, again);
        }
        for issued in unknown {
            self.end(&issued, CommandOutcome::Unknown);
        }
    }

    fn resume(&mut self, stuck: &[IssuedCommand<P::Command>]) {
        let again = stuck.iter().map(|issued| IssuedCommand {
            attempt: issued.attempt + 1,
            retries: 0,
            until: self.until(&issued.command, 0),
            ..issued.clone()
        });
        let again = again.collect();
        self.issue(RecordedCause::Resumed, again);
    }

    fn end(&mut self, issued: &IssuedCommand<P::Command>, outcome: CommandOutcome) {
        let number = issued.number;
        let cause = Cause::Outcome(issued.command.clone(), outcome.clone());
        let ended = RecordedCause::Ended { number, outcome };
        self.decide(ended, &cause, self.now);
    }

    fn decide(&mut self, cause: RecordedCause<P>, decided_on: &Cause<P>, at: Timestamp) {
        let outputs = P::decide(&self.state.own, decided_on, at);
        let Outputs {
            events,
            commands,
            timers,
            cancelled,
            stuck,
        } = outputs;
        let cause = match (cause, stuck) {
            (RecordedCause::Ended { number, .. }, Some(reason)) => {
                RecordedCause::Stuck { number, reason }
            }
            (cause, _) => cause,
        };
        let numbers = self.state.issued + 1..;
        let issued = numbers
            .zip(commands)
            .map(|(number, command)| IssuedCommand {
                number,
                attempt: 0,
                retries: 0,
                until: self.until(&command, 0),
                command,
            });
        let record = Record {
            cause,
            cancelled,
            timers,
            issued: issued.collect(),
            watch: None,
        };
        self.add(record, events);
    }

    fn issue(&mut self, cause: RecordedCause<P>, issued: Vec<IssuedCommand<P::Command>>) {
        let record = Record {
            cause,
            cancelled: vec![],
            timers: vec![],
            issued,
            watch: None,
        };
        self.add(record, vec![]);
    }

    fn add(&mut self, record: Record<P>, events: Vec<P::Event>) {
        let state = mem::take(&mut self.state).after_record(&record);
        self.state = events.iter().fold(state, ProcessStream::evolve);
        self.decisions.push((record, events));
    }

    fn until(&self, command: &P::Command, retries: u32) -> Timestamp {
        let budget = P::time_budget(command).unwrap_or(self.step_timeout);
        let budget = budget.saturating_mul(2_u32.saturating_pow(retries));
        self.now.after(budget)
    }

    fn finish(mut self) -> Vec<P::Event> {
        if let Some((last, _)) = self.decisions.last_mut() {
            last.watch = self.state.new_watch(self.now);
        }
        let decisions = self.decisions.into_iter();
        let events =
            decisions.flat_map(|(record, events)| [record.into()].into_iter().chain(events));
        events.collect()
    }
}

impl<P: Process> Monitored for ProcessStream<P> {
    fn streams(last: &RecordedEvent) -> Result<Vec<StreamId>, CodecError> {
        if last.stream.category() != P::CATEGORY {
            return Ok(vec![]);
        }
        let event = last.decode()?;
        let watch = P::record(&event).and_then(|record| record.watch);
        let is_closed = watch == Some(Watch::Closed);
        Ok(if is_closed {
            vec![]
        } else {
            vec![last.stream.clone()]
        })
    }

    fn is_unfinished(events: &[RecordedEvent]) -> Result<bool, CodecError> {
        let mut state = Self::initial();
        for event in events {
            state = Self::evolve(state, &event.decode()?);
        }
        Ok(state.watch != Watch::Closed)
    }
}
