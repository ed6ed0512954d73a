//! The aggregate that starts and cancels a saga, and the next action that follows.
//!
//! A saga has a deadline from the event that starts it until it ends. A cancellation has a deadline
//! of its own until the saga has recorded it. The next action follows from the two streams, not
//! from the events that were delivered.

use std::time::Duration;

use crate::{
    commit::RecordedEvent,
    deadlines::Monitored,
    deadlines::{DeadlineChange, DeadlineUpdate},
    decider::{Aggregate, Decider},
    event::CodecError,
    saga::{Definition, Due, Event, Phase, Saga, State},
    stream::StreamId,
    timestamp::Timestamp,
};

/// A saga that another aggregate starts and cancels.
pub trait Triggered: Definition {
    /// The aggregate whose events start the saga. Its stream and that of the saga have the same
    /// key.
    type Source: Aggregate;

    /// The plural of the saga's name in the names of its metrics, for example `Fulfilments`.
    const METRICS: &'static str;

    /// Returns the signal of an event of the source, if it is one.
    fn signal(source: &StreamId, event: &SourceEvent<Self>) -> Option<Signal<Self::Input>>;
}

/// The events of the aggregate that starts a saga.
pub type SourceEvent<D> = <<D as Triggered>::Source as Decider>::Event;

/// The meaning of an event for a saga that it starts or cancels.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal<Input> {
    /// The event starts the saga.
    Start(Input),
    /// The event cancels the saga.
    Cancel {
        /// The reason.
        reason: String,
        /// True if the saga itself caused the event while it compensated. It then needs neither
        /// the cancellation nor a deadline, and does not start again.
        by_saga: bool,
    },
}

/// Returns the signal of an event; `None` for an event of another aggregate.
///
/// # Errors
/// Returns an error if the event cannot be decoded.
pub fn signal<D: Triggered>(event: &RecordedEvent) -> Result<Option<Signal<D::Input>>, CodecError> {
    if event.stream.category() != D::Source::CATEGORY {
        return Ok(None);
    }
    Ok(D::signal(&event.stream, &event.decode()?))
}

/// Returns the saga that an event starts, and its input.
///
/// # Errors
/// Returns an error if the event cannot be decoded.
pub fn begun_by<D: Triggered>(
    event: &RecordedEvent,
) -> Result<Option<(StreamId, D::Input)>, CodecError> {
    Ok(match signal::<D>(event)? {
        Some(Signal::Start(input)) => Some((event.stream.with_category(D::CATEGORY), input)),
        Some(Signal::Cancel { .. }) | None => None,
    })
}

/// Returns the change that an event makes to a deadline of the saga. A step has `step_timeout` to
/// finish.
///
/// # Errors
/// Returns an error if the event cannot be decoded.
pub fn deadline_update<D: Triggered>(
    event: &RecordedEvent,
    step_timeout: Duration,
) -> Result<Option<DeadlineUpdate>, CodecError> {
    let open = DeadlineChange::Open(event.at.after(step_timeout));
    if event.stream.category() == D::CATEGORY {
        let change = match event.decode::<Event<D>>()?.watch() {
            Watch::Continue => return Ok(None),
            Watch::Open => open,
            Watch::Stuck => DeadlineChange::Stuck(event.at),
            Watch::Close => DeadlineChange::Closed,
        };
        return Ok(Some(DeadlineUpdate {
            stream: event.stream.clone(),
            version: event.version,
            change,
        }));
    }
    let (stream, version) = match signal::<D>(event)? {
        // The deadline belongs to the saga, which has no version yet.
        Some(Signal::Start(_)) => (event.stream.with_category(D::CATEGORY), 0),
        Some(Signal::Cancel { by_saga: false, .. }) => (event.stream.clone(), event.version),
        Some(Signal::Cancel { by_saga: true, .. }) | None => return Ok(None),
    };
    Ok(Some(DeadlineUpdate {
        stream,
        version,
        change: open,
    }))
}

/// The effect of an event of a saga on its deadline.
enum Watch {
    Continue,
    Open,
    Stuck,
    Close,
}

impl<D: Definition> Event<D> {
    fn watch(&self) -> Watch {
        match self {
            Self::CancelRequested { .. } | Self::Resumed { .. } | Self::StepAbandoned { .. } => {
                Watch::Open
            }
            Self::Stuck { .. } => Watch::Stuck,
            Self::Completed {} | Self::Aborted { .. } => Watch::Close,
            Self::Started { .. }
            | Self::StepCompleted { .. }
            | Self::StepFailed { .. }
            | Self::StepCompensated { .. }
            | Self::StepRetried { .. }
            | Self::CompensationFailed { .. } => Watch::Continue,
        }
    }
}

/// The signals for a saga up to now.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger<Input> {
    /// The input, if the saga was started.
    pub input: Option<Input>,
    /// The reason for the cancellation, if there is one.
    pub cancelled: Option<String>,
    /// The time of the last event of the source.
    pub at: Option<Timestamp>,
}

impl<Input> Default for Trigger<Input> {
    fn default() -> Self {
        Self {
            input: None,
            cancelled: None,
            at: None,
        }
    }
}

impl<Input> Trigger<Input> {
    /// Adds the next event of the source.
    pub(super) fn follow<D: Triggered<Input = Input>>(
        &mut self,
        event: &RecordedEvent,
    ) -> Result<(), CodecError> {
        self.at = Some(event.at);
        match signal::<D>(event)? {
            Some(Signal::Start(input)) => self.input = Some(input),
            Some(Signal::Cancel { reason, .. }) => self.cancelled = Some(reason),
            None => {}
        }
        Ok(())
    }
}

/// The next action that a saga needs.
#[derive(Clone, Debug, PartialEq)]
pub enum NextAction<D: Definition> {
    /// Start the saga, which does not exist yet.
    Start(D::Input),
    /// Compensate: the source is cancelled, and the saga has not recorded it.
    Compensate,
    /// Retry the pending step, which has no outcome after this number of retries.
    Retry(Due<D::Step>, u32),
    /// Wait for the outcome of the pending step until this time.
    Wait(Timestamp),
    /// Leave a stuck saga to an operator.
    Operator,
    /// No action.
    None,
}

impl<D: Definition> NextAction<D> {
    /// Returns the next action at `now`. `since` is the time of the saga's last event.
    pub fn new(
        saga: &State<D>,
        trigger: &Trigger<D::Input>,
        since: Timestamp,
        now: Timestamp,
        step_timeout: Duration,
    ) -> Self {
        let is_cancelled = trigger.cancelled.is_some() && saga.reason.is_none();
        match &saga.phase {
            Phase::NotStarted | Phase::Forward { .. } | Phase::Completed { .. } if is_cancelled => {
                Self::Compensate
            }
            Phase::NotStarted => trigger.input.clone().map_or(Self::None, Self::Start),
            Phase::Forward { .. } | Phase::Backward { .. } => {
                let until = since.after(saga.step_timeout(step_timeout));
                match saga.due() {
                    Some(due) if now >= until => Self::Retry(due, saga.retries),
                    Some(_) | None => Self::Wait(until),
                }
            }
            Phase::Stuck { .. } => Self::Operator,
            Phase::Completed { .. } | Phase::Aborted => Self::None,
        }
    }
}

impl<D: Triggered> Monitored for Saga<D> {
    fn streams(last: &RecordedEvent) -> Result<Vec<StreamId>, CodecError> {
        let needs_watch = if last.stream.category() == D::CATEGORY {
            !matches!(last.decode::<Event<D>>()?.watch(), Watch::Close)
        } else {
            match signal::<D>(last)? {
                Some(Signal::Start(_)) => true,
                Some(Signal::Cancel { by_saga, .. }) => !by_saga,
                None => false,
            }
        };
        let categories = [D::Source::CATEGORY, D::CATEGORY];
        let streams = categories.map(|category| last.stream.with_category(category));
        Ok(if needs_watch { streams.into() } else { vec![] })
    }

    fn is_unfinished(events: &[RecordedEvent]) -> Result<bool, CodecError> {
        let (mut saga, mut trigger) = (Self::initial(), Trigger::default());
        for event in events {
            if event.stream.category() == D::CATEGORY {
                saga = Self::evolve(saga, &event.decode()?);
            } else {
                trigger.follow::<D>(event)?;
            }
        }
        let Some(at) = events.last().map(|last| last.at) else {
            return Ok(false);
        };
        Ok(NextAction::new(&saga, &trigger, at, at, Duration::ZERO) != NextAction::None)
    }
}

/// A saga and the signals for it, as loaded from the store.
#[cfg(feature = "store")]
#[derive(Debug)]
pub struct OpenSaga<D: Triggered> {
    /// The saga.
    pub saga: crate::loaded_stream::LoadedStream<Saga<D>>,
    /// The signals of its source.
    pub trigger: Trigger<D::Input>,
}

#[cfg(feature = "store")]
impl<D: Triggered> OpenSaga<D> {
    /// Loads the saga of a stream, which is that of the saga or that of its source. The reads are
    /// strongly consistent.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn load<S: crate::store::EventStore + Clone>(
        sagas: &crate::repository::Repository<Saga<D>, S>,
        stream: &StreamId,
    ) -> Result<Self, crate::store::StoreError> {
        let source = stream.with_category(D::Source::CATEGORY);
        let range = crate::store::ReadRange::all();
        let mut trigger = Trigger::default();
        for commit in sagas.store().read(&source, &range).await? {
            for event in commit.recorded() {
                trigger.follow::<D>(&event)?;
            }
        }
        let saga = sagas.load(&stream.with_category(D::CATEGORY)).await?;
        Ok(Self { saga, trigger })
    }

    /// Returns the next action at `now`. `since` is the time of the last event, if the saga has
    /// none.
    pub fn next_action(
        &self,
        since: Timestamp,
        now: Timestamp,
        step_timeout: Duration,
    ) -> NextAction<D> {
        let since = self.saga.at().unwrap_or(since);
        NextAction::new(&self.saga.state, &self.trigger, since, now, step_timeout)
    }
}
