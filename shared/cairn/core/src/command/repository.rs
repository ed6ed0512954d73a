//! The repository: it handles each command once, with the fewest store calls.
//!
//! A decision can use a state that is not the latest, from the cache of this process or from a
//! replica that lags. The append proves an *acceptance*: its condition is that no commit follows
//! that state. Nothing would prove a *rejection*, or a command that changes nothing. These are
//! therefore decided on strongly consistent reads only. A stale state can cost more round trips,
//! but never a wrong result.

use std::{
    hash::{BuildHasherDefault, DefaultHasher},
    sync::{Arc, LazyLock},
};

use quick_cache::{
    OptionsBuilder, UnitWeighter,
    sync::{self, DefaultLifecycle},
};

use crate::{
    commit::{Commit, Context},
    decider::{Aggregate, Decider},
    event::CodecError,
    guard::{Guard, holds},
    loaded_stream::LoadedStream,
    moments,
    recent_commands::RecentCommands,
    retry::{ConflictBackoff, OutOfTime},
    snapshot::state_fingerprint,
    store::{
        AppendError, ConditionalStore, Conditions, Consistency, EventStore, Limited, Quota,
        ReadRange, Snapshots, StoreError, StreamVersion, group::GroupCommit,
    },
    stream::StreamId,
    timestamp::Timestamp,
};

/// The cached streams. The hasher has no random seed, so the eviction order is reproducible.
type Cache<A> = sync::Cache<
    StreamId,
    Arc<LoadedStream<A>>,
    UnitWeighter,
    BuildHasherDefault<DefaultHasher>,
    DefaultLifecycle<StreamId, Arc<LoadedStream<A>>>,
>;

/// The streams of one aggregate in one store. Clones share the cache.
#[derive(Debug)]
pub struct Repository<A: Aggregate, S> {
    store: S,
    /// Computed at the first use, because not every start needs it.
    state_fingerprint: Arc<LazyLock<String>>,
    cache: Arc<Cache<A>>,
}

impl<A: Aggregate, S: Clone> Clone for Repository<A, S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            state_fingerprint: self.state_fingerprint.clone(),
            cache: self.cache.clone(),
        }
    }
}

/// The results of several commands, in their order.
#[doc(hidden)]
pub type Results<A> = Vec<Result<Handled<A>, HandleError<<A as Decider>::Rejection>>>;

/// The result of a command.
#[derive(Debug)]
pub struct Handled<A: Aggregate> {
    /// The stream right after the command. For a replayed command, this can be older than the
    /// current state.
    pub current: Arc<LoadedStream<A>>,
    /// True if the command was handled before.
    pub replayed: bool,
    /// True if a commit records the command. A command that changes nothing leaves no commit.
    pub is_recorded: bool,
}

/// A command was not handled.
#[derive(Debug, thiserror::Error)]
pub enum HandleError<R> {
    /// The aggregate rejects the command.
    #[error("rejected at version {version}: {rejection}")]
    Rejected {
        /// The reason.
        rejection: R,
        /// The version of the state that rejects the command.
        version: u64,
    },
    /// The command id belongs to another command.
    #[error("command ID reused with different content")]
    IdReused,
    /// Every attempt lost an optimistic-concurrency conflict. Nothing was written.
    #[error("too many concurrent writers on this stream; retry")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<R> HandleError<R> {
    /// Converts the reason of a rejection.
    pub(crate) fn map<T>(self, convert: impl FnOnce(R) -> T) -> HandleError<T> {
        match self {
            Self::Rejected { rejection, version } => HandleError::Rejected {
                rejection: convert(rejection),
                version,
            },
            Self::IdReused => HandleError::IdReused,
            Self::Contended => HandleError::Contended,
            Self::Store(error) => HandleError::Store(error),
        }
    }
}

impl<R> From<CodecError> for HandleError<R> {
    fn from(error: CodecError) -> Self {
        Self::Store(error.into())
    }
}

impl<R> From<OutOfTime> for HandleError<R> {
    fn from(_: OutOfTime) -> Self {
        Self::Contended
    }
}

impl<A: Aggregate, S: EventStore + Clone> Repository<A, S> {
    /// The maximum number of cached streams, the recently used ones first. With states of ten
    /// kilobytes, the cache fits into a small function.
    const CACHED_STREAMS: usize = 256;

    /// The maximum number of commands of a group. After a lost answer, the stream still remembers the
    /// ids of the group, and as many of other writers.
    pub const MOST_TOGETHER: usize = RecentCommands::CAPACITY / 2;

    /// Creates a repository of the aggregate's streams in a store.
    pub fn new(store: S) -> Self {
        Self {
            store,
            state_fingerprint: Arc::new(LazyLock::new(|| {
                state_fingerprint::<A::State>(A::REVISION)
            })),
            cache: Arc::new(Self::empty_cache()),
        }
    }

    fn empty_cache() -> Cache<A> {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(Self::CACHED_STREAMS)
            .weight_capacity(Self::CACHED_STREAMS as u64)
            .shards(1)
            .build()
            .unwrap_or_else(|_| unreachable!("both capacities are given"));
        sync::Cache::with_options(
            options,
            UnitWeighter,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        )
    }

    /// Returns a repository of the same streams on the store of a group. It shares no cache,
    /// because a state that is not stored must not be cached.
    pub fn grouped(&self, group: &GroupCommit<S>) -> Repository<A, GroupCommit<S>> {
        Repository {
            store: group.clone(),
            state_fingerprint: self.state_fingerprint.clone(),
            cache: Arc::new(Self::empty_cache()),
        }
    }

    /// Returns a repository of the same streams whose appends count against a quota, if there is
    /// one. It shares the cache.
    ///
    /// A repeated command counts once. An append over the quota ends in
    /// [`StoreError::OverQuota`].
    pub fn within(&self, quota: Option<Quota>) -> Repository<A, Limited<S>>
    where
        S: ConditionalStore,
    {
        Repository {
            store: Limited {
                store: self.store.clone(),
                quota,
            },
            state_fingerprint: self.state_fingerprint.clone(),
            cache: self.cache.clone(),
        }
    }

    /// Decides a command on a stream and appends its events, once per command id. See
    /// [`RecentCommands::CAPACITY`] for the
    /// limit.
    ///
    /// A repeated command returns its first result. After a conflict, the command is decided again
    /// on the new state. A command takes one store call if the cached stream is current, and two if
    /// the stream is not cached. A rejection takes one more.
    ///
    /// # Errors
    /// See [`HandleError`]. A permanent error means that nothing was written.
    pub async fn handle(
        &self,
        stream: &StreamId,
        command: &A::Command,
        context: &Context,
    ) -> Result<Handled<A>, HandleError<A::Rejection>> {
        self.run(Attempt::new(self, stream), command, context).await
    }

    /// Handles several commands on one stream, with the same results as [`handle`](Self::handle)
    /// for one after the other.
    ///
    /// Up to [`MOST_TOGETHER`](Self::MOST_TOGETHER) commands are a group and take two store calls: a
    /// read and one append, which has a commit for each accepted command. A command that was handled
    /// before adds a read at most, and a conflict repeats both calls. The time budget is that of the
    /// first command. If the store rejects the append permanently, for example because of one command
    /// with too large events, the commands are handled one at a time.
    ///
    /// If a later group fails, the result has only the commands before it. Repeat the others.
    ///
    /// # Errors
    /// Returns an error if the store fails or every attempt loses a conflict in the first group. Its
    /// commands may have been handled; the same call again detects them.
    pub async fn handle_all(
        &self,
        stream: &StreamId,
        commands: &[(A::Command, Context)],
    ) -> Result<Results<A>, HandleError<A::Rejection>> {
        let mut results = Vec::with_capacity(commands.len());
        for group in commands.chunks(Self::MOST_TOGETHER) {
            match self.handle_group(stream, group).await {
                Ok(handled) => results.extend(handled),
                Err(HandleError::Store(error)) if !error.is_transient() => {
                    tracing::warn!(%stream, %error, "group rejected; handling each command alone");
                    for (command, context) in group {
                        results.push(self.handle(stream, command, context).await);
                    }
                }
                Err(error) if results.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(results)
    }

    async fn handle_group(
        &self,
        stream: &StreamId,
        commands: &[(A::Command, Context)],
    ) -> Result<Results<A>, HandleError<A::Rejection>> {
        let time_budget = commands.first().map(|(_, context)| context.time_budget);
        let mut backoff = ConflictBackoff::new(time_budget.unwrap_or_default());
        loop {
            let group = GroupCommit::new(self.store.clone());
            let grouped = self.grouped(&group);
            let mut results = Vec::with_capacity(commands.len());
            for (command, context) in commands {
                match grouped.handle(stream, command, context).await {
                    // The commit of the group is the conflict.
                    Err(HandleError::Store(_)) if group.is_lost() => break,
                    Err(HandleError::Store(error)) => return Err(error.into()),
                    result => results.push(result),
                }
            }
            match group.commit().await {
                Ok(()) => {
                    if let Some(current) = grouped.cache.get(stream) {
                        self.cache.insert(stream.clone(), current);
                    }
                    return Ok(results);
                }
                Err(AppendError::Conflict(_)) => {
                    tracing::debug!(%stream, commands = commands.len(), "conflict");
                    backoff.another(true).await?;
                }
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
    }

    /// Handles a command that begins a stream. It does not read first, because the append proves
    /// that the stream was empty. Without a conflict, it takes one store call.
    ///
    /// # Errors
    /// See [`handle`](Self::handle).
    pub async fn create(
        &self,
        stream: &StreamId,
        command: &A::Command,
        context: &Context,
    ) -> Result<Handled<A>, HandleError<A::Rejection>> {
        let mut attempt = Attempt::new(self, stream);
        attempt.freshness = Freshness::Cached;
        self.run(attempt, command, context).await
    }

    /// Handles a command like [`create`](Self::create), on condition that each of the `unchanged`
    /// streams still ends at its version.
    ///
    /// Returns `None` if one of them has changed, or another append interferes. Nothing was written
    /// then, and the caller decides again on the current streams.
    ///
    /// # Errors
    /// See [`handle`](Self::handle).
    pub async fn create_if(
        &self,
        stream: &StreamId,
        command: &A::Command,
        context: &Context,
        unchanged: &[StreamVersion],
    ) -> Result<Option<Handled<A>>, HandleError<A::Rejection>>
    where
        S: ConditionalStore,
    {
        let mut attempt = Attempt::new(self, stream);
        attempt.freshness = Freshness::Cached;
        let Proposal { commit, next } = match attempt.decide(command, context).await? {
            Decision::Append(proposal) => *proposal,
            Decision::Done { replayed } => return Ok(Some(attempt.handled(replayed))),
        };
        let commits = std::slice::from_ref(&commit);
        let conditions = Conditions {
            unchanged,
            quota: None,
        };
        let lost = match self.store.append_if(commits, conditions).await {
            Ok(()) => return Ok(Some(self.appended(next))),
            Err(AppendError::Conflict(lost)) => lost,
            Err(AppendError::Store(error)) => return Err(error.into()),
        };
        tracing::debug!(%commit.stream, "conflict");
        let own = lost.into_iter().find(|lost| lost.stream == *stream);
        let Some(winner) = own.and_then(|own| own.winner) else {
            return Ok(None);
        };
        attempt.lost(Some(winner));
        match attempt.decide(command, context).await? {
            // The new decision is not checked against the other streams yet.
            Decision::Append(_) => Ok(None),
            Decision::Done { replayed } => Ok(Some(attempt.handled(replayed))),
        }
    }

    /// Returns the result of a command that was handled on the stream before, or `None`. Strongly
    /// consistent.
    ///
    /// # Errors
    /// Returns [`HandleError::IdReused`] if the id belongs to another command, or the error of the
    /// store.
    pub async fn replay(
        &self,
        stream: &StreamId,
        context: &Context,
    ) -> Result<Option<Handled<A>>, HandleError<A::Rejection>> {
        let mut attempt = Attempt::new(self, stream);
        let was_done = attempt.read(Consistency::Strong, context).await?;
        Ok(was_done.then(|| attempt.handled(true)))
    }

    async fn run(
        &self,
        mut attempt: Attempt<A, S>,
        command: &A::Command,
        context: &Context,
    ) -> Result<Handled<A>, HandleError<A::Rejection>> {
        let mut backoff = ConflictBackoff::new(context.time_budget);
        loop {
            let Proposal { commit, next } = match attempt.decide(command, context).await? {
                Decision::Append(proposal) => *proposal,
                Decision::Done { replayed } => return Ok(attempt.handled(replayed)),
            };
            match self.store.append(std::slice::from_ref(&commit)).await {
                Ok(()) => return Ok(self.appended(next)),
                Err(AppendError::Conflict(lost)) => {
                    tracing::debug!(%commit.stream, commit.version, "conflict");
                    let winner = lost.into_iter().find_map(|conflict| conflict.winner);
                    let is_enough = backoff.another(winner.is_some()).await?;
                    attempt.lost(winner.filter(|_| is_enough));
                }
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
    }

    /// Caches the stream after an append. A state that was not stored must not be cached: the next
    /// commit would leave a gap.
    fn appended(&self, next: LoadedStream<A>) -> Handled<A> {
        let current = Arc::new(next);
        self.cache.insert(current.stream.clone(), current.clone());
        Handled {
            current,
            replayed: false,
            is_recorded: true,
        }
    }

    /// Loads a stream, strongly consistent and without the cache.
    ///
    /// # Errors
    /// Returns an error if the store fails, or a stored event cannot be decoded.
    pub async fn load(&self, stream: &StreamId) -> Result<LoadedStream<A>, StoreError> {
        self.load_at(stream, u64::MAX).await
    }

    /// Loads a stream as of event `version`, or its latest state if it is not that long.
    ///
    /// It starts from the nearest earlier snapshot. It takes one store call, or two if the commit
    /// that contains `version` has the snapshot.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub async fn load_at(
        &self,
        stream: &StreamId,
        version: u64,
    ) -> Result<LoadedStream<A>, StoreError> {
        let latest = self.latest(Consistency::Strong);
        let commits = moments::at_version(self.store(), stream, version, latest).await?;
        self.folded(stream, &commits)
    }

    /// Loads a stream as of a time, from the nearest earlier snapshot.
    ///
    /// It takes one store call if the time is not before the latest snapshot. Otherwise it takes a
    /// binary search of O(log version) calls.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub async fn load_by(
        &self,
        stream: &StreamId,
        time: Timestamp,
    ) -> Result<LoadedStream<A>, StoreError> {
        let latest = self.latest(Consistency::Strong);
        let commits = moments::at_time(self.store(), stream, time, latest).await?;
        self.folded(stream, &commits)
    }

    fn folded(&self, stream: &StreamId, commits: &[Commit]) -> Result<LoadedStream<A>, StoreError> {
        let mut current = LoadedStream::new(stream);
        for commit in commits {
            current.catch_up(commit, &self.state_fingerprint)?;
        }
        Ok(current)
    }

    /// Returns the store.
    pub fn store(&self) -> &S {
        &self.store
    }

    pub(crate) fn state_fingerprint(&self) -> &str {
        &self.state_fingerprint
    }

    fn latest(&self, consistency: Consistency) -> ReadRange<'_> {
        ReadRange {
            snapshots: Some(Snapshots {
                state_fingerprint: &self.state_fingerprint,
                every: A::SNAPSHOT_EVERY.max(1),
            }),
            consistency,
            ..ReadRange::all()
        }
    }
}

/// An attempt to commit to one stream: the loaded state, and the commit that won a conflict.
#[derive(Debug)]
pub(crate) struct Attempt<A: Aggregate, S> {
    repository: Repository<A, S>,
    current: Arc<LoadedStream<A>>,
    enlisted: bool,
    freshness: Freshness,
    /// The commit that won a conflict and is not applied yet.
    winner: Option<Commit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    /// No state is loaded.
    Unloaded,
    /// The state can be the latest one.
    Cached,
    /// The store has later commits.
    Stale,
    /// A strongly consistent read returned the state.
    Strong,
}

#[derive(Debug)]
pub(crate) enum Decision<A: Aggregate> {
    /// The commit to append.
    Append(Box<Proposal<A>>),
    Done {
        /// True if the command was handled before.
        replayed: bool,
    },
}

/// A commit to append, and the stream after it.
#[derive(Debug)]
pub(crate) struct Proposal<A: Aggregate> {
    pub(crate) commit: Commit,
    next: LoadedStream<A>,
}

impl<A: Aggregate, S: EventStore + Clone> Attempt<A, S> {
    pub(crate) fn new(repository: &Repository<A, S>, stream: &StreamId) -> Self {
        Self {
            repository: repository.clone(),
            current: Arc::new(LoadedStream::new(stream)),
            enlisted: false,
            freshness: Freshness::Unloaded,
            winner: None,
        }
    }

    /// Creates an attempt whose commit is appended with the commit that records the command.
    ///
    /// It does not use the cache. Several functions write to the streams of saga steps, so a cached
    /// state is often stale, and a lost transaction costs more than a read.
    pub(crate) fn enlisted(repository: &Repository<A, S>, stream: &StreamId) -> Self {
        Self {
            enlisted: true,
            ..Self::new(repository, stream)
        }
    }

    pub(crate) fn stream(&self) -> &StreamId {
        &self.current.stream
    }

    /// Stores the id of the command in the stream's recent commands.
    pub(crate) fn remember(&mut self) {
        self.enlisted = false;
    }

    /// Returns the stream and its loaded version.
    pub(crate) fn read_version(&self) -> StreamVersion {
        StreamVersion {
            stream: self.current.stream.clone(),
            version: self.current.version,
        }
    }

    /// Reads the stream without loading it, so that the store of a group knows it.
    pub(crate) async fn read_latest(&self) -> Result<(), StoreError> {
        let latest = self.repository.latest(Consistency::Strong);
        let read = self.repository.store.read(self.stream(), &latest).await;
        read.map(drop)
    }

    /// Decides on the loaded state, and reads again if that does not suffice.
    pub(crate) async fn decide(
        &mut self,
        command: &A::Command,
        context: &Context,
    ) -> Result<Decision<A>, HandleError<A::Rejection>> {
        let done = match self.freshness {
            Freshness::Unloaded => self.begin(context).await?,
            Freshness::Stale => self.read(Consistency::Strong, context).await?,
            Freshness::Cached | Freshness::Strong => match self.winner.take() {
                Some(winner) => self.take_in(&[winner], context, Guard::CommitId)?,
                None => false,
            },
        };
        if done {
            return Ok(Decision::Done { replayed: true });
        }
        loop {
            let decided = A::decide(&self.current.state, command);
            let accepted = matches!(&decided, Ok(events) if !events.is_empty());
            if !accepted && self.freshness != Freshness::Strong && holds(Guard::Recheck) {
                if self.read(Consistency::Strong, context).await? {
                    return Ok(Decision::Done { replayed: true });
                }
                continue;
            }
            let events = decided.map_err(|rejection| HandleError::Rejected {
                rejection,
                version: self.current.version,
            })?;
            if events.is_empty() {
                return Ok(Decision::Done { replayed: false });
            }
            let state_fingerprint = self.repository.state_fingerprint();
            let (commit, next) =
                self.current
                    .commit(context, &events, self.enlisted, state_fingerprint)?;
            return Ok(Decision::Append(Box::new(Proposal { commit, next })));
        }
    }

    /// Records a lost conflict, with the commit that won if it is known.
    pub(crate) fn lost(&mut self, winner: Option<Commit>) {
        self.freshness = match winner {
            Some(_) => Freshness::Cached,
            None => Freshness::Stale,
        };
        self.winner = winner;
    }

    fn handled(self, replayed: bool) -> Handled<A> {
        Handled {
            current: self.current,
            replayed,
            is_recorded: replayed,
        }
    }

    /// Starts from the cached stream, or from an eventually consistent read.
    async fn begin<R>(&mut self, context: &Context) -> Result<bool, HandleError<R>> {
        let cached = self.repository.cache.get(&self.current.stream);
        match cached.filter(|_| !self.enlisted) {
            Some(cached) => {
                self.current = cached;
                self.freshness = Freshness::Cached;
                self.recall(0, context).await
            }
            None => self.read(Consistency::Eventual, context).await,
        }
    }

    /// Reads the commits after the loaded state. Returns true if the command is among them; the
    /// current state is then the one right after the command.
    async fn read<R>(
        &mut self,
        consistency: Consistency,
        context: &Context,
    ) -> Result<bool, HandleError<R>> {
        let range = ReadRange {
            from: self.current.version,
            ..self.repository.latest(consistency)
        };
        let stream = &self.current.stream;
        let commits = self.repository.store.read(stream, &range).await?;
        self.freshness = match consistency {
            Consistency::Eventual => Freshness::Cached,
            Consistency::Strong => Freshness::Strong,
        };
        let known = self.current.version;
        let was_skipped = commits
            .first()
            .is_some_and(|first| first.version > known + 1);
        if self.take_in(&commits, context, Guard::CommandId)? {
            return Ok(true);
        }
        if was_skipped && self.recall(known, context).await? {
            return Ok(true);
        }
        if self.freshness == Freshness::Strong && !commits.is_empty() && !self.enlisted {
            let current = self.current.clone();
            self.repository
                .cache
                .insert(current.stream.clone(), current);
        }
        Ok(false)
    }

    /// Applies commits up to the command's own, and returns true if it is among them. `guard` can
    /// switch the recognition off.
    fn take_in<R>(
        &mut self,
        commits: &[Commit],
        context: &Context,
        guard: Guard,
    ) -> Result<bool, HandleError<R>> {
        let current = Arc::make_mut(&mut self.current);
        for commit in commits {
            current.catch_up(commit, &self.repository.state_fingerprint)?;
            if commit.id == context.id && holds(guard) {
                return same_command(commit, context).map(|()| true);
            }
        }
        Ok(false)
    }

    /// Searches the recent commands after a version for the command.
    async fn recall<R>(&mut self, after: u64, context: &Context) -> Result<bool, HandleError<R>> {
        let stream = self.current.stream.clone();
        let candidates = self.current.candidates(&context.id, after);
        for version in candidates.into_iter().filter(|_| holds(Guard::CommandId)) {
            let range = ReadRange {
                to: version,
                ..self.repository.latest(Consistency::Strong)
            };
            let commits = self.repository.store.read(&stream, &range).await?;
            if let Some(commit) = commits.last().filter(|commit| commit.id == context.id) {
                same_command(commit, context)?;
                self.current = Arc::new(self.repository.folded(&stream, &commits)?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn same_command<R>(commit: &Commit, context: &Context) -> Result<(), HandleError<R>> {
    let is_former =
        commit.fingerprint.is_some() && commit.fingerprint == context.former_fingerprint;
    if commit.fingerprint == context.fingerprint || is_former {
        Ok(())
    } else {
        Err(HandleError::IdReused)
    }
}
