//! Delivers events to processes, wakes them, and executes their commands.

use std::{collections::BTreeSet, future::Future, time::Duration};

use futures_util::future::try_join_all;

use super::{
    Arrival, CommandOutcome, IssuedCommand, Process, ProcessAction, ProcessCommand, ProcessStream,
    RecordedCause,
};
use crate::{
    commit::{Commit, Context, RecordedEvent},
    decider::{Aggregate, Decider},
    gate::Delivery,
    guard::{Guard, holds},
    loaded_stream::LoadedStream,
    provider::{self, Call, CallLimits, ProviderError},
    repository::{HandleError, Repository},
    step::{
        StepError, StepFailure, StepOutcome, StepResult,
        enlisted::{self, Recorder},
    },
    store::{EventStore, ReadRange, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};

/// The handler of the commands of a process. It may be called more than once for a command. Call
/// providers through [`DueCommand::ask`], and put commands on streams of the store into the
/// outcome.
pub trait CommandHandler<P: Process>: Send + Sync + 'static {
    /// Executes a command.
    ///
    /// # Errors
    /// See [`StepFailure`]. A permanent failure is an outcome of the command. A throttled command is
    /// requested again like one without an outcome, which uses up a retry.
    fn execute(
        &self,
        due: &DueCommand<P>,
    ) -> impl Future<Output = Result<StepOutcome, StepFailure>> + Send;
}

/// The instances of a process in one store.
#[derive(Debug)]
pub struct Processes<P: Process, S> {
    streams: Repository<ProcessStream<P>, S>,
    step_timeout: Duration,
}

/// The result of a check by the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The process has continued, and its deadline follows from its events.
    Moved,
    /// Nothing is due until this time.
    Waiting(Timestamp),
    /// The process needs manual action. A timer or a retry can be due at this time.
    Stuck(Option<Timestamp>),
    /// Neither a timer nor a command is open.
    Closed,
}

/// The maximum number of events that one append receives.
const MAX_RECEIVED: usize = 100;
/// The maximum number of sources that are read concurrently.
const MAX_READS: usize = 16;

type Loaded<P> = LoadedStream<ProcessStream<P>>;

impl<P: Process, S: EventStore + Clone> Processes<P, S> {
    /// Creates the access. `step_timeout` is the time budget of commands without one of their own.
    pub fn new(streams: Repository<ProcessStream<P>, S>, step_timeout: Duration) -> Self {
        Self {
            streams,
            step_timeout,
        }
    }

    /// Delivers an event of a source to its instance, after the events that the instance is
    /// missing and the timers before it.
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded, the instance has too many sources, or the
    /// store fails. The event can have been received nevertheless.
    pub async fn deliver(
        &self,
        event: &RecordedEvent,
        context: &Context,
    ) -> Result<Delivery, StepError> {
        let Some((id, _)) = P::correlate(event)? else {
            return Ok(Delivery::Duplicate);
        };
        let receive = Advance::new(self, &id, Some(event), context.now);
        let mut delivery = Delivery::Duplicate;
        while let Some(next) = receive.again(&self.streams).await? {
            let outcome = StepOutcome::done([]);
            match enlisted::append(next, &self.streams, outcome, context).await? {
                None => break,
                Some(appended) if appended.is_complete => return Ok(Delivery::Applied),
                Some(_) => delivery = Delivery::Applied,
            }
        }
        Ok(delivery)
    }

    /// Receives the events of the sources, fires the timers that are due, and requests overdue
    /// commands again. A repeated call changes nothing.
    ///
    /// # Errors
    /// See [`deliver`](Self::deliver).
    pub async fn wake(&self, stream: &StreamId, context: &Context) -> Result<Wake, StepError> {
        let id = stream.key().parse::<P::Id>();
        let id = id.map_err(|error| StoreError::Corrupt {
            stream: stream.clone(),
            reason: format!("the key is no id: {error}"),
        })?;
        let wake = Advance::new(self, &id, None, context.now);
        if let Some(next) = wake.again(&self.streams).await?
            && enlisted::append(next, &self.streams, StepOutcome::done([]), context)
                .await?
                .is_some()
        {
            return Ok(Wake::Moved);
        }
        let state = self.streams.load(stream).await?.state;
        Ok(match state.next_check() {
            next if !state.stuck.is_empty() => Wake::Stuck(next),
            Some(at) => Wake::Waiting(at),
            None => Wake::Closed,
        })
    }

    /// Loads a command that an event of the process issues. `None` means that its outcome is
    /// recorded, or that it needs manual action.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn due(
        &self,
        stream: &StreamId,
        issued: &IssuedCommand<P::Command>,
    ) -> Result<Option<DueCommand<P>>, StepError> {
        let current = self.streams.load(stream).await?;
        Ok(DueCommand::new(current, issued, self.step_timeout))
    }

    /// Records the outcome of a command and appends the enlisted commands. Returns false, and
    /// writes nothing, if the command is not pending any more.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn record(
        &self,
        due: DueCommand<P>,
        outcome: StepOutcome,
        context: Context,
    ) -> Result<bool, StepError> {
        let context = Context {
            id: due.key.clone(),
            // The key identifies the command, so a digest is not necessary.
            fingerprint: None,
            ..context
        };
        let recorded = enlisted::append(due, &self.streams, outcome, &context).await?;
        Ok(recorded.is_some())
    }

    /// Requests the commands again at which a process is stuck.
    ///
    /// # Errors
    /// Returns an error if the process is not stuck, or if the store fails.
    pub async fn resume(&self, stream: &StreamId, context: &Context) -> Result<(), StepError> {
        self.operate(stream, ProcessAction::Resume, context).await
    }

    /// Ends the commands at which a process is stuck, because they were settled manually.
    ///
    /// # Errors
    /// See [`resume`](Self::resume).
    pub async fn abandon(
        &self,
        stream: &StreamId,
        reason: &str,
        context: &Context,
    ) -> Result<(), StepError> {
        let abandon = ProcessAction::Abandon(reason.to_owned());
        self.operate(stream, abandon, context).await
    }

    async fn operate(
        &self,
        stream: &StreamId,
        action: ProcessAction<P>,
        context: &Context,
    ) -> Result<(), StepError> {
        let command = self.command(action, context.now);
        match self.streams.handle(stream, &command, context).await {
            Ok(_) => Ok(()),
            Err(HandleError::Rejected { rejection, .. }) => Err(rejection.into()),
            Err(HandleError::Contended) => Err(StepError::Contended),
            Err(HandleError::Store(error)) => Err(error.into()),
            Err(HandleError::IdReused) => Err(StepError::Store(StoreError::Corrupt {
                stream: stream.clone(),
                reason: format!("the commit {} has another command", context.id),
            })),
        }
    }

    fn command(&self, action: ProcessAction<P>, now: Timestamp) -> ProcessCommand<P> {
        ProcessCommand {
            now,
            step_timeout: self.step_timeout,
            action,
        }
    }

    /// Reads the events of a source that an instance has not received.
    async fn missing(
        &self,
        process: &Loaded<P>,
        source: &StreamId,
    ) -> Result<Vec<Arrival<P>>, StepError> {
        let gate = process.state.gate(source);
        let range = ReadRange::after(gate);
        let commits = self.streams.store().read(source, &range).await?;
        let events = commits.iter().flat_map(Commit::recorded);
        let events = events.filter(|event| event.version > gate);
        let arrivals = events.map(|event| arrival(process, event).transpose());
        arrivals.flatten().collect()
    }
}

/// Returns an event in the form that the rules use, if it is for this instance.
fn arrival<P: Process>(
    process: &Loaded<P>,
    event: RecordedEvent,
) -> Result<Option<Arrival<P>>, StepError> {
    let correlated = P::correlate(&event)?;
    let own = correlated.filter(|(id, _)| id.to_string() == process.stream.key());
    Ok(own.map(|(_, message)| Arrival {
        stream: event.stream,
        version: event.version,
        at: event.at,
        message,
    }))
}

/// An append that receives events and fires timers.
struct Advance<'a, P: Process, S> {
    processes: &'a Processes<P, S>,
    id: &'a P::Id,
    /// The delivered event; `None` to wake the process.
    event: Option<&'a RecordedEvent>,
    now: Timestamp,
    process: Loaded<P>,
    /// True if no other events wait for a further append.
    is_complete: bool,
    events: Vec<P::Event>,
}

impl<'a, P: Process, S: EventStore + Clone> Advance<'a, P, S> {
    fn new(
        processes: &'a Processes<P, S>,
        id: &'a P::Id,
        event: Option<&'a RecordedEvent>,
        now: Timestamp,
    ) -> Self {
        Self {
            processes,
            id,
            event,
            now,
            process: LoadedStream::new(&ProcessStream::<P>::stream(id)),
            is_complete: true,
            events: vec![],
        }
    }

    /// Reads the events of all sources that the process has not received.
    async fn all(&self, process: &Loaded<P>) -> Result<Vec<Arrival<P>>, StepError> {
        let mut sources: BTreeSet<_> = process.state.gates.keys().cloned().collect();
        sources.extend(P::sources(self.id));
        sources.extend(self.event.map(|event| event.stream.clone()));
        let sources: Vec<_> = sources.into_iter().collect();
        let mut arrivals = vec![];
        for sources in sources.chunks(MAX_READS) {
            let read = |source| self.processes.missing(process, source);
            arrivals.extend(try_join_all(sources.iter().map(read)).await?);
        }
        Ok(arrivals.into_iter().flatten().collect())
    }

    /// Decides on the first arrivals, at most [`MAX_RECEIVED`]. Returns false if others wait.
    fn decide(
        &self,
        process: &Loaded<P>,
        mut arrivals: Vec<Arrival<P>>,
    ) -> Result<(Vec<P::Event>, bool), StepError> {
        arrivals.sort_by(|a, b| (a.at, &a.stream, a.version).cmp(&(b.at, &b.stream, b.version)));
        let is_complete = arrivals.len() <= MAX_RECEIVED;
        arrivals.truncate(MAX_RECEIVED);
        let action = match self.event {
            // A timer fires after all events before it.
            None if is_complete => ProcessAction::Wake(arrivals),
            None | Some(_) => ProcessAction::Receive(arrivals),
        };
        let command = self.processes.command(action, self.now);
        let events = ProcessStream::decide(&process.state, &command)?;
        Ok((events, is_complete))
    }
}

impl<P: Process, S: EventStore + Clone> Recorder<Repository<ProcessStream<P>, S>>
    for Advance<'_, P, S>
{
    fn commit(
        &self,
        streams: &Repository<ProcessStream<P>, S>,
        _: StepResult,
        context: &Context,
    ) -> Result<Commit, StepError> {
        let fingerprint = streams.state_fingerprint();
        let commit = self
            .process
            .commit(context, &self.events, false, fingerprint)?;
        Ok(commit.0)
    }

    async fn again(
        &self,
        streams: &Repository<ProcessStream<P>, S>,
    ) -> Result<Option<Self>, StepError> {
        let process = streams.load(&self.process.stream).await?;
        let gate = |event: &RecordedEvent| process.state.gate(&event.stream);
        let is_first = process.version == 0 && !P::sources(self.id).is_empty();
        let arrivals = match self.event {
            Some(event) if event.version <= gate(event) && holds(Guard::VersionGate) => {
                return Ok(None);
            }
            Some(event) if event.version <= gate(event) + 1 && !is_first => {
                arrival(&process, event.clone())?.into_iter().collect()
            }
            Some(event) if !is_first => self.processes.missing(&process, &event.stream).await?,
            Some(_) | None => self.all(&process).await?,
        };
        if let Some(event) = self.event
            && !arrivals
                .iter()
                .any(|one| (one.version, &one.stream) == (event.version, &event.stream))
        {
            let reason = format!("event {} was delivered but is not stored", event.version);
            let stream = event.stream.clone();
            return Err(StoreError::Corrupt { stream, reason }.into());
        }
        let (mut events, mut is_complete) = self.decide(&process, arrivals)?;
        if self.event.is_some() && events.iter().any(fires::<P>) {
            let all = self.all(&process).await?;
            (events, is_complete) = self.decide(&process, all)?;
        }
        Ok((!events.is_empty()).then_some(Self {
            process,
            is_complete,
            events,
            ..*self
        }))
    }
}

fn fires<P: Process>(event: &P::Event) -> bool {
    P::record(event).is_some_and(|record| matches!(record.cause, RecordedCause::Fired(_)))
}

/// A command to execute, and its loaded process.
#[derive(Debug)]
pub struct DueCommand<P: Process> {
    process: Loaded<P>,
    issued: IssuedCommand<P::Command>,
    step_timeout: Duration,
    key: String,
}

impl<P: Process> DueCommand<P> {
    fn new(
        process: Loaded<P>,
        issued: &IssuedCommand<P::Command>,
        step_timeout: Duration,
    ) -> Option<Self> {
        let is_same =
            |one: &&IssuedCommand<_>| (one.number, one.attempt) == (issued.number, issued.attempt);
        let issued = process.state.pending().find(is_same)?.clone();
        let mut key = format!("{}/{}", process.stream, issued.number);
        if !holds(Guard::ProviderKey) {
            key = format!("{key}/{}", fastrand::u32(..));
        }
        if issued.attempt > 0 {
            key = format!("{key}/{}", issued.attempt);
        }
        Some(Self {
            process,
            issued,
            step_timeout,
            key,
        })
    }

    /// Returns the command.
    pub fn command(&self) -> &P::Command {
        &self.issued.command
    }

    /// Returns the stream of the process.
    pub fn process(&self) -> &StreamId {
        &self.process.stream
    }

    /// Returns the idempotency key for calls to providers. It is the same in every delivery of the
    /// command, and changes each time that an operator resumes the process at it.
    pub fn idempotency_key(&self) -> &str {
        &self.key
    }

    /// Calls a provider with the [key](Self::idempotency_key) of the command.
    ///
    /// # Errors
    /// See [`provider::call`]. As a [`StepFailure`], a rejection by the provider fails the command.
    pub async fn ask<'k, T, F>(
        &'k self,
        limits: CallLimits,
        request: impl FnMut(Call<'k>) -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, ProviderError>>,
    {
        provider::call(&self.key, limits, request).await
    }

    /// Executes the command. A [permanent](StepFailure::Permanent) failure becomes the outcome.
    ///
    /// # Errors
    /// Returns an error if the command stays pending.
    #[doc(hidden)]
    pub async fn perform(
        &self,
        handler: &impl CommandHandler<P>,
    ) -> Result<StepOutcome, StepFailure> {
        match handler.execute(self).await {
            Err(StepFailure::Permanent(reason)) => Ok(StepOutcome::failed(reason, [])),
            outcome => outcome,
        }
    }
}

impl<P: Process, S: EventStore + Clone> Recorder<Repository<ProcessStream<P>, S>>
    for DueCommand<P>
{
    fn commit(
        &self,
        streams: &Repository<ProcessStream<P>, S>,
        result: StepResult,
        context: &Context,
    ) -> Result<Commit, StepError> {
        let end = ProcessCommand {
            now: context.now,
            step_timeout: self.step_timeout,
            action: ProcessAction::End {
                number: self.issued.number,
                attempt: self.issued.attempt,
                outcome: match result {
                    Ok(detail) => CommandOutcome::Done(detail),
                    Err(reason) => CommandOutcome::Failed(reason),
                },
            },
        };
        let events = ProcessStream::decide(&self.process.state, &end)?;
        let fingerprint = streams.state_fingerprint();
        let commit = self.process.commit(context, &events, false, fingerprint)?;
        Ok(commit.0)
    }

    async fn again(
        &self,
        streams: &Repository<ProcessStream<P>, S>,
    ) -> Result<Option<Self>, StepError> {
        let process = streams.load(&self.process.stream).await?;
        Ok(Self::new(process, &self.issued, self.step_timeout))
    }
}
