//! Running a command against a stream: exactly once, whoever retries.

use std::mem;

use crate::{
    commit::{Commit, Context},
    decider::Aggregate,
    event::{CodecError, Event},
    retry::{OutOfTime, Tries},
    store::{AppendError, EventStore, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};

/// What a command came to.
#[derive(Debug)]
pub struct Handled<S> {
    /// The state right after the command, which for a repeated one is not the present.
    pub state: S,
    /// The version of the command's last event, or the present one when there was nothing to do.
    pub version: u64,
    /// Whether the command had been carried out before.
    pub replayed: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum HandleError<R> {
    /// The aggregate refuses it.
    #[error("refused")]
    Rejected {
        /// Why.
        rejection: R,
        /// The version of the state that refuses it.
        version: u64,
    },
    /// The id belongs to another command.
    #[error("the id of this command was used before, for a command that asked for something else")]
    IdReused,
    /// So many others write to the stream that there was no turn. Nothing was written.
    #[error("the stream is written to by too many at once: try again")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Decides `command` on `stream` and appends what comes out, at most once per command id.
///
/// A command whose id is in the stream already is answered as it was the first time. When others
/// append meanwhile, the decision is taken again on what they left.
///
/// # Errors
/// See [`HandleError`]. After an error that is not passing, nothing was written.
pub async fn handle<A: Aggregate>(
    store: &impl EventStore,
    stream: &StreamId,
    command: &A::Command,
    context: &Context,
) -> Result<Handled<A::State>, HandleError<A::Rejection>> {
    let history = store.read(stream, 0).await?;
    run::<A>(store, stream, command, context, Some(history)).await
}

/// Like [`handle`], for a command that begins a stream: it does not read first, because the
/// append proves that the stream was empty. One call where nobody was faster.
///
/// # Errors
/// As [`handle`].
pub async fn create<A: Aggregate>(
    store: &impl EventStore,
    stream: &StreamId,
    command: &A::Command,
    context: &Context,
) -> Result<Handled<A::State>, HandleError<A::Rejection>> {
    run::<A>(store, stream, command, context, None).await
}

async fn run<A: Aggregate>(
    store: &impl EventStore,
    stream: &StreamId,
    command: &A::Command,
    context: &Context,
    history: Option<Vec<Commit>>,
) -> Result<Handled<A::State>, HandleError<A::Rejection>> {
    let mut tries = Tries::lasting(context.patience);
    let mut current = Current::<A>::new(stream);
    // Whether the store has said that there is nothing more. An append proves what it assumes; a
    // refusal, or finding nothing to do, proves nothing and is taken on what was read.
    let mut is_read = history.is_some();
    let mut news = history.unwrap_or_default();
    let mut lost_before = false;
    loop {
        for commit in mem::take(&mut news) {
            current.advance(&commit)?;
            if commit.id == context.id {
                return current.replayed(&commit, context);
            }
        }
        let decided = A::decide(&current.state, command);
        if !is_read && !decided.as_ref().is_ok_and(|events| !events.is_empty()) {
            news = store.read(stream, current.version).await?;
            is_read = true;
            continue;
        }
        let events = decided.map_err(|rejection| HandleError::Rejected {
            rejection,
            version: current.version,
        })?;
        if events.is_empty() {
            return Ok(Handled {
                state: current.state,
                version: current.version,
                replayed: false,
            });
        }
        let commit = current.commit(context, &events)?;
        match store.append(std::slice::from_ref(&commit)).await {
            Ok(()) => {
                current.advance(&commit)?;
                return Ok(Handled {
                    state: current.state,
                    version: current.version,
                    replayed: false,
                });
            }
            Err(AppendError::Conflict(lost)) => {
                tracing::debug!(%stream, version = commit.version, "conflict");
                // The failed write has brought back what won. A first loser decides again on that
                // at once; who loses again is further behind, waits for a turn and reads.
                let winner = lost.into_iter().find_map(|conflict| conflict.winner);
                let first_loss = !mem::replace(&mut lost_before, true);
                is_read = !first_loss || winner.is_none();
                news = if let (Some(winner), true) = (winner, first_loss) {
                    vec![winner]
                } else {
                    tries
                        .again()
                        .await
                        .map_err(|OutOfTime| HandleError::Contended)?;
                    store.read(stream, current.version).await?
                };
            }
            Err(AppendError::Store(error)) => return Err(error.into()),
        }
    }
}

/// The state of a stream as far as it was read.
///
/// # Errors
/// When the store fails, or an event cannot be decoded.
pub async fn load<A: Aggregate>(
    store: &impl EventStore,
    stream: &StreamId,
) -> Result<Current<A>, StoreError> {
    let mut current = Current::new(stream);
    for commit in store.read(stream, 0).await? {
        current.advance(&commit)?;
    }
    Ok(current)
}

/// A stream's state together with what the next commit has to know.
#[derive(Debug)]
pub struct Current<A: Aggregate> {
    /// The stream.
    pub stream: StreamId,
    /// Its state.
    pub state: A::State,
    /// The version of the last event; 0 before the first.
    pub version: u64,
    at: Option<Timestamp>,
}

impl<A: Aggregate> Current<A> {
    pub(crate) fn new(stream: &StreamId) -> Self {
        Self {
            stream: stream.clone(),
            state: A::initial(),
            version: 0,
            at: None,
        }
    }

    pub(crate) fn advance(&mut self, commit: &Commit) -> Result<(), CodecError> {
        for stored in &commit.events {
            let event = A::Event::decode(stored)?;
            let state = mem::replace(&mut self.state, A::initial());
            self.state = A::evolve(state, &event);
        }
        self.version = commit.last_version();
        self.at = Some(commit.at);
        Ok(())
    }

    pub(crate) fn commit(
        &self,
        context: &Context,
        events: &[A::Event],
    ) -> Result<Commit, CodecError> {
        let stored = events.iter().map(Event::encode).collect::<Result<_, _>>()?;
        Ok(context.commit(&self.stream, self.version, self.at, stored))
    }

    fn replayed(
        self,
        commit: &Commit,
        context: &Context,
    ) -> Result<Handled<A::State>, HandleError<A::Rejection>> {
        if commit.fingerprint != context.fingerprint {
            return Err(HandleError::IdReused);
        }
        Ok(Handled {
            state: self.state,
            version: self.version,
            replayed: true,
        })
    }
}

impl<R> From<CodecError> for HandleError<R> {
    fn from(error: CodecError) -> Self {
        Self::Store(error.into())
    }
}
