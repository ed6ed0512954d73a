//! Saga steps: the commands of a step and the saga's record of it are one append.
//!
//! A step that is delivered twice or late therefore cannot reserve stock for a saga that has moved
//! on. Either both are written, or neither.

use std::{error::Error, future::Future, time::Duration};

use crate::{
    commit::{Commit, Context, RecordedEvent},
    decider::Decider,
    event::CodecError,
    guard::{Guard, holds},
    loaded_stream::LoadedStream,
    processes::ProcessRejection,
    provider::{self, Call, CallLimits, ProviderError},
    repository::{HandleError, Repository},
    retry::OutOfTime,
    saga::{Action, Command, Definition, Due, Event, Rejection, Saga, Step},
    store::{EventStore, StoreError},
    stream::StreamId,
};

pub(crate) mod enlisted;
#[doc(hidden)]
pub mod group;
pub mod testing;

use enlisted::Recorder;
pub use enlisted::{Enlisted, handle_many};

/// The handler of one step. The surrounding function loads the saga, checks that the step is due,
/// and records the outcome of the handler in one append.
///
/// Both methods may be called more than once. Call providers through [`DueStep::ask`], and put
/// commands on streams of the store into the outcome.
pub trait StepHandler<D: Definition>: Send + Sync + 'static {
    /// The step.
    const STEP: D::Step;

    /// Executes the step.
    ///
    /// # Errors
    /// See [`StepFailure`].
    fn execute(
        &self,
        due: &DueStep<D>,
    ) -> impl Future<Output = Result<StepOutcome, StepFailure>> + Send;

    /// Compensates the step.
    ///
    /// # Errors
    /// See [`StepFailure`].
    fn compensate(
        &self,
        due: &DueStep<D>,
    ) -> impl Future<Output = Result<StepOutcome, StepFailure>> + Send;

    /// Returns the saga that an event of another stream starts, and its input. Only the first step
    /// implements it, usually with [`begun_by`](crate::saga::begun_by).
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    fn begins(_event: &RecordedEvent) -> Result<Option<(StreamId, D::Input)>, CodecError> {
        Ok(None)
    }
}

/// The handler of a step that calls no provider: it decides the outcome from the input of the saga.
///
/// A `StepDecider` is a [`StepHandler`]. Its methods cannot wait for a response, so the steps of
/// several sagas can be executed again after a conflict, and recorded in one append.
pub trait StepDecider<D: Definition>: Send + Sync + 'static {
    /// The step.
    const STEP: D::Step;

    /// Returns the outcome of executing the step.
    fn execute(&self, due: &DueStep<D>) -> StepOutcome;

    /// Returns the outcome of compensating the step.
    fn compensate(&self, due: &DueStep<D>) -> StepOutcome;

    /// See [`StepHandler::begins`].
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    fn begins(_event: &RecordedEvent) -> Result<Option<(StreamId, D::Input)>, CodecError> {
        Ok(None)
    }
}

impl<D: Definition, H: StepDecider<D>> StepHandler<D> for H {
    const STEP: D::Step = <H as StepDecider<D>>::STEP;

    async fn execute(&self, due: &DueStep<D>) -> Result<StepOutcome, StepFailure> {
        Ok(StepDecider::execute(self, due))
    }

    async fn compensate(&self, due: &DueStep<D>) -> Result<StepOutcome, StepFailure> {
        Ok(StepDecider::compensate(self, due))
    }

    fn begins(event: &RecordedEvent) -> Result<Option<(StreamId, D::Input)>, CodecError> {
        <H as StepDecider<D>>::begins(event)
    }
}

/// A step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepFailure {
    /// The step failed for this reason; a retry does not help. The saga compensates.
    #[error("{0}")]
    Permanent(String),
    /// The outcome is unknown. The step stays due and is retried with the same key.
    #[error(transparent)]
    Transient(Box<dyn Error + Send + Sync>),
    /// A provider throttles, and did nothing. The step stays due and is retried later, which uses
    /// up no retry.
    #[error("the provider throttles: {reason}")]
    Throttled {
        /// The response of the provider.
        reason: String,
        /// The delay that the provider requests before the next call.
        retry_after: Option<Duration>,
    },
}

impl StepFailure {
    /// Creates the failure of a step whose outcome is unknown.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Transient(error.into())
    }
}

impl From<StoreError> for StepFailure {
    fn from(error: StoreError) -> Self {
        Self::transient(error)
    }
}

impl From<ProviderError> for StepFailure {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Permanent(reason) => Self::Permanent(reason),
            ProviderError::Transient(_) | ProviderError::NoAnswer(_) => Self::transient(error),
            ProviderError::Throttled {
                reason,
                retry_after,
            } => Self::Throttled {
                reason,
                retry_after,
            },
        }
    }
}

/// A step that is due, and the loaded saga.
#[derive(Debug)]
pub struct DueStep<D: Definition> {
    saga: LoadedStream<Saga<D>>,
    due: Due<D::Step>,
    input: D::Input,
    key: String,
    /// The first events of a saga that has not started. They are appended with the outcome of the
    /// step.
    opening: Vec<Event<D>>,
}

/// The outcome of a step: commands on other streams, and the result.
#[derive(Debug)]
pub struct StepOutcome {
    /// The commands on other streams, at most one per stream. They take effect with the record of
    /// the step, or not at all. If one is rejected, none takes effect and the step has failed for
    /// that reason.
    pub enlist: Vec<Enlisted>,
    /// The result of the step if all enlisted commands are accepted: it is done, with a detail for
    /// display, or it failed permanently for a reason.
    pub result: Result<Option<String>, String>,
}

pub(crate) type StepResult = Result<Option<String>, String>;

impl StepOutcome {
    /// Creates the outcome of a step that is done if these commands are accepted.
    pub fn done(enlist: impl IntoIterator<Item = Enlisted>) -> Self {
        Self {
            enlist: enlist.into_iter().collect(),
            result: Ok(None),
        }
    }

    /// Creates the outcome of a failed step, with commands that follow from the failure.
    pub fn failed(reason: impl Into<String>, enlist: impl IntoIterator<Item = Enlisted>) -> Self {
        Self {
            enlist: enlist.into_iter().collect(),
            result: Err(reason.into()),
        }
    }

    /// Sets the result to done, with a detail for display.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.result = Ok(Some(detail.into()));
        self
    }
}

/// A step was not loaded, or its outcome was not recorded. After a transient store error, it may
/// have been recorded; the next delivery detects that.
#[doc(hidden)]
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The event neither starts a saga nor makes a step due.
    #[error(
        "the event {event} of type {name} does not start this saga; check the EventBridge rule"
    )]
    Unexpected {
        /// The id of the event.
        event: String,
        /// The type of the event.
        name: String,
    },
    /// The saga rejects the outcome of its own pending step: its definition contradicts itself.
    #[error("the saga rejected the outcome of its pending step: {0}")]
    Rejected(#[from] Rejection),
    /// The process rejects an event, an outcome or a command of an operator.
    #[error(transparent)]
    Process(#[from] ProcessRejection),
    /// Every attempt lost an optimistic-concurrency conflict. Nothing was written.
    #[error("too many concurrent writers on the step's streams; retry")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CodecError> for StepError {
    fn from(error: CodecError) -> Self {
        Self::Store(error.into())
    }
}

impl From<OutOfTime> for StepError {
    fn from(_: OutOfTime) -> Self {
        Self::Contended
    }
}

impl<D: Definition> DueStep<D> {
    /// Loads the step that an event starts a saga with, or makes due, if it is that of the handler.
    /// `None` means that the caller acknowledges the delivery; see [`load`](Self::load).
    ///
    /// # Errors
    /// Returns an error if the event is of another stream and starts no saga, if it cannot be
    /// decoded, or if the store fails.
    pub async fn from_event<H: StepHandler<D>, S: EventStore + Clone>(
        sagas: &Repository<Saga<D>, S>,
        event: &RecordedEvent,
    ) -> Result<Option<Self>, StepError> {
        if let Some((saga, input)) = H::begins(event)? {
            return Self::begin(sagas, &saga, input).await;
        }
        if event.stream.category() != D::CATEGORY {
            return Err(StepError::Unexpected {
                event: event.id(),
                name: event.event.name.clone(),
            });
        }
        match event.decode::<Event<D>>()?.next() {
            Some(due) if due.step == H::STEP => Self::load(sagas, &event.stream, due).await,
            Some(_) | None => Ok(None),
        }
    }

    /// Loads a step that is due. `None` means that its outcome is recorded or the saga has
    /// continued without it; the caller acknowledges the delivery.
    ///
    /// The read is strongly consistent, so that no provider is called for a step that is over.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn load<S: EventStore + Clone>(
        sagas: &Repository<Saga<D>, S>,
        stream: &StreamId,
        due: Due<D::Step>,
    ) -> Result<Option<Self>, StepError> {
        Ok(Self::new(sagas.load(stream).await?, due, vec![]))
    }

    /// Loads the first step of a saga that starts with this step or has started.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn begin<S: EventStore + Clone>(
        sagas: &Repository<Saga<D>, S>,
        stream: &StreamId,
        input: D::Input,
    ) -> Result<Option<Self>, StepError> {
        let mut saga = sagas.load(stream).await?;
        let opening = Saga::decide(&saga.state, &Command::Start(input)).unwrap_or_default();
        for event in &opening {
            saga.state = Saga::evolve(saga.state, event);
        }
        let first = D::Step::STEPS.first().copied().map(Due::execute);
        Ok(first.and_then(|first| Self::new(saga, first, opening)))
    }

    fn new(saga: LoadedStream<Saga<D>>, due: Due<D::Step>, opening: Vec<Event<D>>) -> Option<Self> {
        let input = saga.state.input.clone()?;
        let mut key = step_key(&saga.stream, due);
        if !holds(Guard::ProviderKey) {
            key = format!("{key}/{}", fastrand::u32(..));
        }
        if saga.state.attempt() > 0 {
            key = format!("{key}/{}", saga.state.attempt());
        }
        (saga.state.due() == Some(due)).then_some(Self {
            saga,
            due,
            input,
            key,
            opening,
        })
    }

    /// Executes or compensates the step. A [permanent](StepFailure::Permanent) failure becomes the
    /// outcome.
    ///
    /// # Errors
    /// Returns an error if the step stays due.
    pub async fn perform(&self, handler: &impl StepHandler<D>) -> Result<StepOutcome, StepFailure> {
        let outcome = match self.due.action {
            Action::Execute => handler.execute(self).await,
            Action::Compensate => handler.compensate(self).await,
        };
        match outcome {
            Err(StepFailure::Permanent(reason)) => Ok(StepOutcome::failed(reason, [])),
            outcome => outcome,
        }
    }

    /// Calls a provider with the [key](Self::idempotency_key) of the step.
    ///
    /// # Errors
    /// See [`provider::call`]. As a [`StepFailure`], a rejection by the provider fails the step.
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

    /// Returns the direction of the step.
    pub fn action(&self) -> Action {
        self.due.action
    }

    /// Returns the stream of the saga, and its loaded version.
    pub fn saga(&self) -> (&StreamId, u64) {
        (&self.saga.stream, self.saga.version)
    }

    /// Returns the data that the steps use.
    pub fn input(&self) -> &D::Input {
        &self.input
    }

    /// Returns the reason for the cancellation or compensation of the saga, or an empty text.
    pub fn reason(&self) -> &str {
        self.saga.state.reason.as_deref().unwrap_or_default()
    }

    /// Returns the idempotency key for calls to providers. It is the same in every delivery of this
    /// step and action, and changes each time that an operator resumes the saga at this step.
    pub fn idempotency_key(&self) -> &str {
        &self.key
    }

    /// Returns the idempotency key with which this step was executed. A compensation refers to the
    /// original call by this key, even if that call had no response.
    pub fn execution_key(&self) -> String {
        step_key(&self.saga.stream, Due::execute(self.due.step))
    }

    /// Records the outcome of the step and appends the enlisted commands.
    ///
    /// Returns false, and writes nothing, if the saga has moved on.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn record<S: EventStore + Clone>(
        self,
        sagas: &Repository<Saga<D>, S>,
        outcome: StepOutcome,
        context: Context,
    ) -> Result<bool, StepError> {
        let context = Context {
            id: self.key.clone(),
            // The key identifies the step, so a digest is not necessary.
            fingerprint: None,
            ..context
        };
        let recorded = enlisted::append(self, sagas, outcome, &context).await?;
        Ok(recorded.is_some())
    }

    fn outcome_events(&self, result: StepResult) -> Result<Vec<Event<D>>, Rejection> {
        let step = self.due.step;
        let command = match (self.due.action, result) {
            (Action::Execute, Ok(detail)) => Command::Complete(step, detail),
            (Action::Execute, Err(reason)) => Command::Fail(step, reason),
            (Action::Compensate, Ok(_)) => Command::Undone(step),
            (Action::Compensate, Err(reason)) => Command::UndoFailed(step, reason),
        };
        Saga::decide(&self.saga.state, &command)
    }
}

impl<D: Definition, S: EventStore + Clone> Recorder<Repository<Saga<D>, S>> for DueStep<D> {
    fn commit(
        &self,
        sagas: &Repository<Saga<D>, S>,
        result: StepResult,
        context: &Context,
    ) -> Result<Commit, StepError> {
        let mut events = self.opening.clone();
        events.extend(self.outcome_events(result)?);
        let fingerprint = sagas.state_fingerprint();
        let (commit, _) = self.saga.commit(context, &events, false, fingerprint)?;
        Ok(commit)
    }

    async fn again(&self, sagas: &Repository<Saga<D>, S>) -> Result<Option<Self>, StepError> {
        if self.opening.is_empty() {
            Self::load(sagas, &self.saga.stream, self.due).await
        } else {
            Self::begin(sagas, &self.saga.stream, self.input.clone()).await
        }
    }
}

/// Returns the id of the commit that records the outcome of a step, which is also the key for calls
/// to providers.
fn step_key<S: Copy + serde::Serialize>(stream: &StreamId, due: Due<S>) -> String {
    let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let step = name(serde_json::json!(due.step));
    let action = name(serde_json::json!(due.action));
    format!("{stream}/{step}/{action}")
}

/// Cancels a saga. A saga that is compensating, aborted or stuck does not change. Returns false if
/// this cancellation was recorded before.
///
/// # Errors
/// See [`StepError`].
pub async fn cancel<D: Definition, S: EventStore + Clone>(
    sagas: &Repository<Saga<D>, S>,
    stream: &StreamId,
    reason: &str,
    context: &Context,
) -> Result<bool, StepError> {
    let command = Command::Cancel(reason.to_owned());
    match sagas.handle(stream, &command, context).await {
        Ok(handled) => Ok(!handled.replayed),
        Err(HandleError::Rejected { rejection, .. }) => Err(rejection.into()),
        Err(HandleError::Contended) => Err(StepError::Contended),
        Err(HandleError::Store(error)) => Err(error.into()),
        // The context has the id of the event that caused the cancellation.
        Err(HandleError::IdReused) => Err(StepError::Store(StoreError::Corrupt {
            stream: stream.clone(),
            reason: format!("the commit {} is not a cancellation", context.id),
        })),
    }
}
