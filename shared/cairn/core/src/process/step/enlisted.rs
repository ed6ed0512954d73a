//! Commands that take effect with a record of a saga or a process, in one append.

use std::{fmt, future::Future, pin::Pin};

use crate::{
    commit::{self, Commit, Context},
    decider::Aggregate,
    repository::{Attempt, Decision, HandleError, Repository},
    retry::ConflictBackoff,
    step::{StepError, StepOutcome, StepResult},
    store::{
        AppendError, ConditionalStore, Conditions, Conflict, EventStore, StoreError, StreamVersion,
    },
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

/// Appends a record together with the enlisted commands, and returns it. `None` means that nothing
/// was left to record, and nothing was written.
pub(crate) async fn append<A: Aggregate, S: EventStore + Clone, R: Recorder<Repository<A, S>>>(
    mut recorder: R,
    streams: &Repository<A, S>,
    outcome: StepOutcome,
    context: &Context,
) -> Result<Option<R>, StepError> {
    let StepOutcome { mut enlist, result } = outcome;
    let mut backoff = ConflictBackoff::new(context.time_budget);
    loop {
        let (mut commits, result) = decide(&mut enlist, &result, context).await?;
        commits.push(recorder.commit(streams, result, context)?);
        commit::link(&mut commits);
        let lost = match streams.store().append(&commits).await {
            Ok(()) => return Ok(Some(recorder)),
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
                    None => return Ok(None),
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
        Ok(choices) => {
            let commits = choices.into_iter().filter_map(|choice| match choice {
                Choice::Append(commit) => Some(*commit),
                // It was appended with the record, so the append of the record will conflict.
                Choice::Replayed | Choice::Unchanged => None,
            });
            Ok((commits.collect(), result.clone()))
        }
        Err(HandleError::Rejected { rejection, .. }) => Ok((vec![], Err(rejection))),
        Err(HandleError::Store(error)) => Err(error.into()),
        Err(HandleError::Contended) => Err(StepError::Contended),
        Err(HandleError::IdReused) => Err(StepError::Store(StoreError::Permanent(
            format!("the commit {} does not belong to this step", context.id).into(),
        ))),
    }
}

/// Handles commands on several streams, at most one per stream: all of them take effect, or none.
/// Returns false if they were handled before, or if they change nothing. Concurrent calls with the
/// same id can both return true, although they have one effect.
///
/// One append has the condition that no stream has changed since its decision, including the
/// streams of commands that change nothing. The context's id identifies all commands together: a
/// repeated call changes nothing while at least one of the streams
/// [remembers](crate::recent_commands::RecentCommands::CAPACITY) it.
///
/// # Errors
/// Returns [`HandleError::Rejected`] with the reason and the key of the stream if a command is
/// rejected, or another [`HandleError`]. Nothing was written then, except that after a transient
/// error of the store all commands can have been handled.
pub async fn handle_many<S: ConditionalStore>(
    store: &S,
    mut commands: Vec<Enlisted>,
    context: &Context,
) -> Result<bool, HandleError<String>> {
    for command in &mut commands {
        command.0.remember();
    }
    let mut backoff = ConflictBackoff::new(context.time_budget);
    let mut are_current = false;
    loop {
        let choices = commands.iter_mut().map(|command| command.decide(context));
        let choices = futures_util::future::join_all(choices).await;
        // The recent commands of another stream can lack the id.
        if choices
            .iter()
            .flatten()
            .any(|choice| *choice == Choice::Replayed)
        {
            return Ok(false);
        }
        // Another stream can have the commit of an earlier call, and its first read can lack it.
        let rejected = |choice: &Result<_, _>| matches!(choice, Err(HandleError::Rejected { .. }));
        if !are_current && choices.iter().any(rejected) {
            are_current = true;
            for command in &mut commands {
                command.lost(None);
            }
            continue;
        }
        let (mut commits, mut unchanged) = (vec![], vec![]);
        for (command, choice) in commands.iter().zip(choices) {
            match choice? {
                Choice::Append(commit) => commits.push(*commit),
                Choice::Replayed | Choice::Unchanged => unchanged.push(command.0.read_version()),
            }
        }
        if commits.is_empty() {
            return Ok(false);
        }
        commit::link(&mut commits);
        let conditions = Conditions {
            unchanged: &unchanged,
            quota: None,
        };
        let lost = match store.append_if(&commits, conditions).await {
            Ok(()) => return Ok(true),
            Err(AppendError::Conflict(lost)) => lost,
            Err(AppendError::Store(error)) => return Err(error.into()),
        };
        let is_known = lost.iter().all(|conflict| conflict.winner.is_some());
        let is_enough = backoff.another(is_known).await?;
        for Conflict { stream, winner } in lost {
            let mut commands = commands.iter_mut();
            if let Some(command) = commands.find(|command| command.stream() == &stream) {
                command.lost(winner.filter(|_| is_enough));
            }
        }
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

pub(super) type Decided<'a> =
    Pin<Box<dyn Future<Output = Result<Choice, HandleError<String>>> + Send + 'a>>;
pub(super) type Read<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// The decision on an enlisted command.
#[derive(Debug, PartialEq)]
pub(super) enum Choice {
    Append(Box<Commit>),
    Unchanged,
    /// The command was handled before.
    Replayed,
}

/// An [`Attempt`] on a stream of any aggregate.
pub(super) trait Enlist: Send + Sync {
    fn stream(&self) -> &StreamId;
    /// Reads the stream, so that the store of a group knows it.
    fn read(&self) -> Read<'_>;
    fn decide<'a>(&'a mut self, context: &'a Context) -> Decided<'a>;
    fn lost(&mut self, winner: Option<Commit>);
    /// Stores the id of the command in the stream's recent commands.
    fn remember(&mut self);
    /// Returns the version of the stream that the last decision is based on.
    fn read_version(&self) -> StreamVersion;
}

struct OneCommand<A: Aggregate, S> {
    attempt: Attempt<A, S>,
    command: A::Command,
}

impl<A: Aggregate<Rejection: fmt::Display>, S: EventStore + Clone> OneCommand<A, S> {
    /// Adds the key of the stream to a reason.
    fn named(&self, reason: &A::Rejection) -> String {
        format!("{reason} ({})", self.attempt.stream().key())
    }
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
            let decided = self.attempt.decide(&self.command, context).await;
            Ok(match decided {
                Ok(Decision::Append(proposal)) => Choice::Append(Box::new(proposal.commit)),
                Ok(Decision::Done { replayed: true }) => Choice::Replayed,
                Ok(Decision::Done { replayed: false }) => Choice::Unchanged,
                Err(error) => return Err(error.map(|reason| self.named(&reason))),
            })
        })
    }

    fn remember(&mut self) {
        self.attempt.remember();
    }

    fn read_version(&self) -> StreamVersion {
        self.attempt.read_version()
    }

    fn lost(&mut self, winner: Option<Commit>) {
        self.attempt.lost(winner);
    }
}
