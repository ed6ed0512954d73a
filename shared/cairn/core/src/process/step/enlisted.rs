//! Commands that take effect with a record of a saga or a process, in one append.

use std::{fmt, future::Future, pin::Pin};

use crate::{
    commit::{self, Commit, Context},
    decider::Aggregate,
    repository::{Attempt, Decision, HandleError, Repository},
    retry::ConflictBackoff,
    step::{StepError, StepOutcome, StepResult},
    store::{AppendError, Conflict, EventStore, StoreError},
    stream::StreamId,
};

/// A record on the stream of a saga or a process. `R` has the streams.
pub(crate) trait Recorder<R>: Sized + Send {
    /// Returns the commit of the record.
    fn commit(
        &self,
        streams: &R,
        result: StepResult,
        context: &Context,
    ) -> Result<Commit, StepError>;

    /// Loads the stream again after a conflict. `None` means that nothing is left to record.
    fn again(&self, streams: &R) -> impl Future<Output = Result<Option<Self>, StepError>> + Send;
}

/// Appends a record together with the enlisted commands. Returns false, and writes nothing, if
/// nothing is left to record.
pub(crate) async fn append<A: Aggregate, S: EventStore + Clone>(
    mut recorder: impl Recorder<Repository<A, S>>,
    streams: &Repository<A, S>,
    outcome: StepOutcome,
    context: &Context,
) -> Result<bool, StepError> {
    let StepOutcome { mut enlist, result } = outcome;
    let mut backoff = ConflictBackoff::new(context.time_budget);
    loop {
        let (mut commits, result) = decide(&mut enlist, &result, context).await?;
        commits.push(recorder.commit(streams, result, context)?);
        commit::link(&mut commits);
        let lost = match streams.store().append(&commits).await {
            Ok(()) => return Ok(true),
            Err(AppendError::Conflict(lost)) => lost,
            Err(AppendError::Store(error)) => return Err(error.into()),
        };
        let is_known = lost.iter().all(|conflict| conflict.winner.is_some());
        let is_enough = backoff.another(is_known).await?;
        for Conflict { stream, winner } in lost {
            match enlist.iter_mut().find(|one| one.stream() == &stream) {
                Some(enlisted) => enlisted.lost(winner.filter(|_| is_enough)),
                None => match recorder.again(streams).await? {
                    Some(again) => recorder = again,
                    None => return Ok(false),
                },
            }
        }
    }
}

/// Decides the enlisted commands. Returns their commits and the result of the step.
async fn decide(
    enlist: &mut [Enlisted],
    result: &StepResult,
    context: &Context,
) -> Result<(Vec<Commit>, StepResult), StepError> {
    let decisions = enlist.iter_mut().map(|enlisted| enlisted.decide(context));
    match futures_util::future::try_join_all(decisions).await {
        Ok(commits) => Ok((commits.into_iter().flatten().collect(), result.clone())),
        Err(Refusal::Rejected(reason)) => Ok((vec![], Err(reason))),
        Err(Refusal::Store(error)) => Err(error.into()),
    }
}

/// A command on another stream that takes effect with the record of a step.
pub struct Enlisted(pub(super) Box<dyn Enlist>);

impl Enlisted {
    /// Enlists a command of aggregate `A`. A command that changes nothing has no commit.
    pub fn new<A, S>(repository: &Repository<A, S>, stream: &StreamId, command: A::Command) -> Self
    where
        A: Aggregate<Rejection: fmt::Display>,
        S: EventStore + Clone + 'static,
    {
        Self(Box::new(OneCommand {
            attempt: Attempt::enlisted(repository, stream),
            command,
        }))
    }

    pub(super) fn stream(&self) -> &StreamId {
        self.0.stream()
    }

    fn decide<'a>(&'a mut self, context: &'a Context) -> Decided<'a> {
        self.0.decide(context)
    }

    fn lost(&mut self, winner: Option<Commit>) {
        self.0.lost(winner);
    }
}

impl fmt::Debug for Enlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Enlisted").field(self.stream()).finish()
    }
}

pub(super) type Decided<'a> = Pin<Box<dyn Future<Output = Result<Option<Commit>, Refusal>> + Send + 'a>>;
pub(super) type Read<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

pub(super) enum Refusal {
    Rejected(String),
    Store(StoreError),
}

/// An [`Attempt`] on a stream of any aggregate.
pub(super) trait Enlist: Send + Sync {
    fn stream(&self) -> &StreamId;
    /// Reads the stream, so that the store of a group knows it.
    fn read(&self) -> Read<'_>;
    fn decide<'a>(&'a mut self, context: &'a Context) -> Decided<'a>;
    fn lost(&mut self, winner: Option<Commit>);
}

struct OneCommand<A: Aggregate, S> {
    attempt: Attempt<A, S>,
    command: A::Command,
}

impl<A, S> Enlist for OneCommand<A, S>
where
    A: Aggregate<Rejection: fmt::Display>,
    S: EventStore + Clone + 'static,
{
    fn stream(&self) -> &StreamId {
        self.attempt.stream()
    }

    fn read(&self) -> Read<'_> {
        Box::pin(self.attempt.read_latest())
    }

    fn decide<'a>(&'a mut self, context: &'a Context) -> Decided<'a> {
        Box::pin(async move {
            match self.attempt.decide(&self.command, context).await {
                Ok(Decision::Append(proposal)) => Ok(Some(proposal.commit)),
                // It was appended with the record, so the append of the record will conflict.
                Ok(Decision::Done { .. }) => Ok(None),
                Err(HandleError::Rejected { rejection, .. }) => {
                    let stream = self.attempt.stream().key();
                    Err(Refusal::Rejected(format!("{rejection} ({stream})")))
                }
                Err(HandleError::Store(error)) => Err(Refusal::Store(error)),
                Err(HandleError::Contended) => Err(Refusal::Store(StoreError::Unavailable(
                    "too many concurrent writers".into(),
                ))),
                Err(HandleError::IdReused) => Err(Refusal::Store(StoreError::Corrupt {
                    stream: self.attempt.stream().clone(),
                    reason: format!("the commit {} does not belong to this step", context.id),
                })),
            }
        })
    }

    fn lost(&mut self, winner: Option<Commit>) {
        self.attempt.lost(winner);
    }
}
