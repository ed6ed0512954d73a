//! Doing a saga's step: the effect on our own streams and the record of it are one append.
//!
//! So a step delivered twice, or late, can never take stock for a saga that has moved on: either
//! both are written, or the saga was further already and neither is.

use std::fmt::Display;

use crate::{
    commit::{Commit, Context},
    decider::{Aggregate, Decider},
    event::CodecError,
    handle::{Current, HandleError, handle, load},
    retry::{OutOfTime, Tries},
    saga::{Action, Command, Definition, Due, Event, Rejection, Saga},
    store::{AppendError, EventStore, StoreError},
    stream::StreamId,
};

/// A step that is due, and the saga as it was read.
#[derive(Debug)]
pub struct DueStep<D: Definition> {
    saga: Current<Saga<D>>,
    due: Due<D::Step>,
    input: D::Input,
    /// Set while the saga has not begun: its beginning is appended with the step's outcome.
    opening: Vec<Event<D>>,
}

/// What a step does to our own streams, and what it came to.
#[derive(Debug)]
pub struct Plan {
    /// The commands on other streams that take effect with the record, or not at all. When one is
    /// refused none takes effect, and the step has failed for that reason.
    pub enlist: Vec<Enlisted>,
    /// What the step came to, when everything enlisted is accepted.
    pub outcome: Outcome,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, with a detail worth showing.
    Done(Option<String>),
    /// It was refused for good.
    Failed(String),
}

impl Plan {
    /// The step is done if these are accepted.
    pub fn done(enlist: Vec<Enlisted>) -> Self {
        Self {
            enlist,
            outcome: Outcome::Done(None),
        }
    }

    /// The step has failed; these follow from that.
    pub fn failed(reason: impl Into<String>, enlist: Vec<Enlisted>) -> Self {
        Self {
            enlist,
            outcome: Outcome::Failed(reason.into()),
        }
    }

    /// The same with a detail worth showing.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.outcome = Outcome::Done(Some(detail.into()));
        self
    }
}

/// Why a step's outcome was not recorded. After a store error that is passing it may have been all
/// the same; the next delivery will tell.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The saga refuses the outcome of a step that it says is due: its definition contradicts
    /// itself.
    #[error("the saga refuses the outcome of its due step: {0}")]
    Refused(#[from] Rejection),
    /// So many others write to the same streams that there was no turn.
    #[error("the step's streams are written to by too many at once: try again")]
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

impl<D: Definition> DueStep<D> {
    /// The step, if it is due. `None`: its outcome is recorded, or the saga went another way;
    /// the delivery is to be acknowledged.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load(
        store: &impl EventStore,
        stream: &StreamId,
        due: Due<D::Step>,
    ) -> Result<Option<Self>, StepError> {
        let saga = load::<Saga<D>>(store, stream).await?;
        Ok(Self::of(saga, due, vec![]))
    }

    /// The first step of a saga that begins with it, or has begun.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn begin(
        store: &impl EventStore,
        stream: &StreamId,
        input: D::Input,
    ) -> Result<Option<Self>, StepError> {
        let mut saga = load::<Saga<D>>(store, stream).await?;
        let opening = Saga::decide(&saga.state, &Command::Start(input)).unwrap_or_default();
        for event in &opening {
            saga.state = Saga::evolve(saga.state, event);
        }
        let first = D::STEPS.first().copied().map(Due::execute);
        Ok(first.and_then(|first| Self::of(saga, first, opening)))
    }

    fn of(saga: Current<Saga<D>>, due: Due<D::Step>, opening: Vec<Event<D>>) -> Option<Self> {
        let input = saga.state.input()?.clone();
        (saga.state.due() == Some(due)).then_some(Self {
            saga,
            due,
            input,
            opening,
        })
    }

    /// What the saga works on.
    pub fn input(&self) -> &D::Input {
        &self.input
    }

    /// Why the saga is being unwound; empty while it is not.
    pub fn reason(&self) -> &str {
        self.saga.state.reason().unwrap_or_default()
    }

    /// The key for calls to providers: the same for every delivery of this step and action.
    pub fn idempotency_key(&self) -> String {
        idempotency_key(&self.saga.stream, self.due)
    }

    /// Records the step's outcome together with everything that is enlisted.
    ///
    /// Returns whether it was recorded: not when the saga has moved on meanwhile.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn record(
        mut self,
        store: &impl EventStore,
        plan: Plan,
        context: Context,
    ) -> Result<bool, StepError> {
        let context = Context {
            id: self.idempotency_key(),
            ..context
        };
        let mut tries = Tries::lasting(context.patience);
        loop {
            let commits = self.commits(store, &plan, &context).await?;
            match store.append(&commits).await {
                Ok(()) => return Ok(true),
                Err(AppendError::Conflict(_)) => {
                    tries
                        .again()
                        .await
                        .map_err(|OutOfTime| StepError::Contended)?;
                }
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
            let stream = self.saga.stream.clone();
            let still_due = if self.opening.is_empty() {
                Self::load(store, &stream, self.due).await?
            } else {
                Self::begin(store, &stream, self.input).await?
            };
            match still_due {
                Some(due) => self = due,
                None => return Ok(false),
            }
        }
    }

    async fn commits(
        &self,
        store: &impl EventStore,
        plan: &Plan,
        context: &Context,
    ) -> Result<Vec<Commit>, StepError> {
        let reads = plan.enlist.iter().map(|enlisted| async {
            let history = store.read(&enlisted.stream, 0).await?;
            (enlisted.decide)(&history, context)
        });
        let decided = futures_util::future::try_join_all(reads).await;
        let (outcome, mut commits) = match decided {
            Ok(commits) => (
                plan.outcome.clone(),
                commits.into_iter().flatten().collect(),
            ),
            Err(Refusal::Rejected(reason)) => (Outcome::Failed(reason), vec![]),
            Err(Refusal::Store(error)) => return Err(error.into()),
        };
        let mut events = self.opening.clone();
        events.extend(self.told(outcome)?);
        commits.push(self.saga.commit(context, &events)?);
        Ok(commits)
    }

    /// What the saga says to the step's outcome.
    fn told(&self, outcome: Outcome) -> Result<Vec<Event<D>>, Rejection> {
        let step = self.due.step;
        let command = match (self.due.action, outcome) {
            (Action::Execute, Outcome::Done(detail)) => Command::Complete(step, detail),
            (Action::Execute, Outcome::Failed(reason)) => Command::Fail(step, reason),
            (Action::Compensate, Outcome::Done(_)) => Command::Undone(step),
            (Action::Compensate, Outcome::Failed(reason)) => Command::UndoFailed(step, reason),
        };
        Saga::decide(&self.saga.state, &command)
    }
}

/// A command on one stream that takes effect with a step's record.
pub struct Enlisted {
    stream: StreamId,
    decide: Box<Decide>,
}

/// Decides on a stream's history: what to append, if anything.
type Decide = dyn Fn(&[Commit], &Context) -> Result<Option<Commit>, Refusal> + Send + Sync;

enum Refusal {
    Rejected(String),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CodecError> for Refusal {
    fn from(error: CodecError) -> Self {
        Self::Store(error.into())
    }
}

impl Enlisted {
    /// A command of aggregate `A`. A command with nothing to do enlists nothing.
    pub fn new<A>(stream: StreamId, command: A::Command) -> Self
    where
        A: Aggregate<Rejection: Display>,
    {
        let of = stream.clone();
        let decide = move |history: &[Commit], context: &Context| {
            let mut current = Current::<A>::new(&of);
            for commit in history {
                current.advance(commit)?;
            }
            let events = A::decide(&current.state, &command)
                .map_err(|rejection| Refusal::Rejected(format!("{rejection} ({})", of.key())))?;
            if events.is_empty() {
                return Ok(None);
            }
            Ok(Some(current.commit(context, &events)?))
        };
        Self {
            stream,
            decide: Box::new(decide),
        }
    }
}

impl std::fmt::Debug for Enlisted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enlisted")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// The id of the commit that records a step's outcome, and the key for calls to providers.
fn idempotency_key<S: Copy + serde::Serialize>(stream: &StreamId, due: Due<S>) -> String {
    let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let step = name(serde_json::json!(due.step));
    let action = name(serde_json::json!(due.action));
    format!("{stream}/{step}/{action}")
}

/// Tells a saga that what it works on was cancelled. Nothing happens where it is unwinding or
/// has ended otherwise.
///
/// # Errors
/// See [`StepError`].
pub async fn cancel<D: Definition>(
    store: &impl EventStore,
    stream: &StreamId,
    reason: &str,
    context: &Context,
) -> Result<(), StepError> {
    let command = Command::Cancel(reason.to_owned());
    match handle::<Saga<D>>(store, stream, &command, context).await {
        Ok(_) => Ok(()),
        Err(HandleError::Rejected { rejection, .. }) => Err(rejection.into()),
        Err(HandleError::Contended) => Err(StepError::Contended),
        Err(HandleError::Store(error)) => Err(error.into()),
        // The id is that of the event which the cancellation follows from.
        Err(HandleError::IdReused) => Err(StepError::Store(StoreError::Corrupt {
            stream: stream.clone(),
            reason: format!("the commit {} is not a cancellation", context.id),
        })),
    }
}
