//! Running commands against streams: exactly once, whoever retries, at the fewest calls.
//!
//! A decision may be taken on a state that is not the latest: one from this process's cache, or one
//! that was read from a replica that lags. An *acceptance* is proven by the append, whose
//! condition is that nothing came after that state. A *refusal*, and finding that there is nothing
//! to do, would be proven by nothing; so they are taken only on what was read strongly consistent.
//! A stale state can therefore cost more round trips, and never a wrong answer.

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
    decider::Aggregate,
    event::CodecError,
    guard::{Guard, holds},
    loaded_stream::LoadedStream,
    retry::{ConflictBackoff, OutOfTime},
    snapshot::state_fingerprint,
    store::{
        AppendError, ConditionalStore, Consistency, EventStore, ReadRange, Snapshots, StoreError,
        StreamVersion,
    },
    stream::StreamId,
    timestamp::Timestamp,
};

/// The cached streams. The eviction order depends on the streams alone, not on a hasher's random
/// seed, so a run of a process can be repeated.
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
    /// Made at the first use: not every start comes to one.
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

/// What a command came to.
#[derive(Debug)]
pub struct Handled<A: Aggregate> {
    /// The stream right after the command, which for a repeated one is not the present.
    pub current: Arc<LoadedStream<A>>,
    /// Whether the command had been carried out before.
    pub replayed: bool,
    /// True if a commit records the command. One that had nothing to do left none.
    pub is_recorded: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum HandleError<R> {
    /// The aggregate refuses it.
    #[error("rejected at version {version}: {rejection}")]
    Rejected {
        /// The reason.
        rejection: R,
        /// The version of the state that refuses it.
        version: u64,
    },
    /// The id belongs to another command.
    #[error("command ID reused with different content")]
    IdReused,
    /// So many others write to the stream that there was no turn. Nothing was written.
    #[error("too many concurrent writers on this stream; retry")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// The number of cached streams, the recently used ones before others. States of some ten
    /// kilobytes then fit into a small function.
    const CACHED_STREAMS: usize = 256;

    /// The aggregate's streams in a store.
    pub fn new(store: S) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(Self::CACHED_STREAMS)
            .weight_capacity(Self::CACHED_STREAMS as u64)
            .shards(1)
            .build()
            .unwrap_or_else(|_| unreachable!("both capacities are given"));
        Self {
            store,
            state_fingerprint: Arc::new(LazyLock::new(|| {
                state_fingerprint::<A::State>(A::REVISION)
            })),
            cache: Arc::new(sync::Cache::with_options(
                options,
                UnitWeighter,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            )),
        }
    }

    /// Decides `command` on `stream` and appends what comes out, at most once per command id: see
    /// [`RecentCommands::CAPACITY`](crate::recent_commands::RecentCommands::CAPACITY).
    ///
    /// A command that was carried out before is answered as it was then. When others append
    /// meanwhile, the decision is taken again on what they left. It takes one call to the store where
    /// the cached stream is up to date, two where the stream is not cached; a refusal takes one more.
    ///
    /// # Errors
    /// See [`HandleError`]. After an error that is not transient, nothing was written.
    pub async fn handle(
        &self,
        stream: &StreamId,
        command: &A::Command,
        context: &Context,
    ) -> Result<Handled<A>, HandleError<A::Rejection>> {
        self.run(Attempt::new(self, stream), command, context).await
    }

    /// Like [`handle`](Self::handle), for a command that begins a stream: it does not read first, because
    /// the append proves that the stream was empty. One call where nobody was faster.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
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

    /// Like [`create`](Self::create), if each of the `unchanged` streams still ends at its version.
    /// `None` where one has changed, or where another append is in the way: nothing was written then,
    /// and the caller decides again on those streams as they are.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
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
        let lost = match self.store.append_if(commits, unchanged).await {
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
            // What is decided now has to be proven against the other streams again.
            Decision::Append(_) => Ok(None),
            Decision::Done { replayed } => Ok(Some(attempt.handled(replayed))),
        }
    }

    /// The result of a command that was carried out on `stream` before; `None` where it was not.
    /// Strongly consistent.
    ///
    /// # Errors
    /// [`HandleError::IdReused`] when the id belongs to another command, or the store's.
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

    /// Caches the stream as it is after an append, and after nothing else: a state that was never
    /// stored would make the next commit leave a gap.
    fn appended(&self, next: LoadedStream<A>) -> Handled<A> {
        let current = Arc::new(next);
        self.cache.insert(current.stream.clone(), current.clone());
        Handled {
            current,
            replayed: false,
            is_recorded: true,
        }
    }

    /// The stream as it is, strongly consistent. The cache is not used.
    ///
    /// # Errors
    /// When the store fails, or what is stored cannot be read.
    pub async fn load(&self, stream: &StreamId) -> Result<LoadedStream<A>, StoreError> {
        self.load_at(stream, u64::MAX).await
    }

    /// The stream as it was after event `version`, from the nearest snapshot before it; as it is, where it is not that
    /// far yet. One call to the store, or two where the snapshot is of the very commit that `version` lies within.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_at(
        &self,
        stream: &StreamId,
        version: u64,
    ) -> Result<LoadedStream<A>, StoreError> {
        let range = ReadRange {
            to: version,
            ..self.latest(Consistency::Strong)
        };
        let mut commits = self.store.read(stream, &range).await?;
        if let Some(last) = commits.pop_if(|last| last.last_version() > version) {
            if commits.is_empty() {
                let before = ReadRange {
                    to: last.version - 1,
                    ..range
                };
                commits = self.store.read(stream, &before).await?;
            }
            commits.push(last.until(version));
        }
        self.folded(stream, &commits)
    }

    /// The stream as it was at a time, from the nearest snapshot before it. One call to the store where nothing older
    /// than the latest snapshot is asked for; else a few more, the number of digits of the version in binary at most.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_by(
        &self,
        stream: &StreamId,
        time: Timestamp,
    ) -> Result<LoadedStream<A>, StoreError> {
        let latest = self.latest(Consistency::Strong);
        let mut commits = self.store.read(stream, &latest).await?;
        match commits.first() {
            // What begins with the first commit is all there is.
            Some(first) if first.at > time && first.version > 1 => {
                let version = self.version_by(stream, time, first.version).await?;
                self.load_at(stream, version).await
            }
            Some(_) | None => {
                commits.retain(|commit| commit.at <= time);
                self.folded(stream, &commits)
            }
        }
    }

    /// The version of the last event by a time, before one that is later. Time never goes back within a stream, so the
    /// place is found by halving.
    async fn version_by(
        &self,
        stream: &StreamId,
        time: Timestamp,
        later: u64,
    ) -> Result<u64, StoreError> {
        let (mut by_then, mut later) = (0, later);
        while by_then + 1 < later {
            let middle = by_then + (later - by_then) / 2;
            let one = ReadRange {
                to: middle,
                ..ReadRange::after(middle - 1)
            };
            let commits = self.store.read(stream, &one).await?;
            let commit = commits.last().ok_or_else(|| StoreError::Corrupt {
                stream: stream.clone(),
                reason: format!("version {middle} is missing"),
            })?;
            if commit.at <= time {
                by_then = commit.last_version();
            } else {
                later = commit.version;
            }
        }
        Ok(by_then)
    }

    fn folded(&self, stream: &StreamId, commits: &[Commit]) -> Result<LoadedStream<A>, StoreError> {
        let mut current = LoadedStream::new(stream);
        for commit in commits {
            current.catch_up(commit, &self.state_fingerprint)?;
        }
        Ok(current)
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The snapshots' fingerprint: see [`state_fingerprint()`].
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

/// One stream's way to a commit: what is known of it, what was decided, and what became of that.
#[derive(Debug)]
pub(crate) struct Attempt<A: Aggregate, S> {
    repository: Repository<A, S>,
    current: Arc<LoadedStream<A>>,
    enlisted: bool,
    freshness: Freshness,
    /// A commit that has won, not taken in yet.
    winner: Option<Commit>,
}

/// The freshness of a stream's state in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    /// Nothing yet.
    Unloaded,
    /// An earlier state, which may still be the latest.
    Cached,
    /// An earlier state, with later commits in the store.
    Stale,
    /// The state as a strongly consistent read has returned it.
    Strong,
}

/// What was decided.
#[derive(Debug)]
pub(crate) enum Decision<A: Aggregate> {
    /// To append this.
    Append(Box<Proposal<A>>),
    /// There is nothing to append.
    Done {
        /// Because it was, before.
        replayed: bool,
    },
}

/// A commit to append, and what is current once it is.
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

    /// One whose commit goes with another that records the command.
    ///
    /// It neither uses the cache nor fills it. Several functions write to the streams that sagas write
    /// to, so a cached state is often old; a lost transaction costs more than the read that the cache
    /// would have saved.
    pub(crate) fn enlisted(repository: &Repository<A, S>, stream: &StreamId) -> Self {
        Self {
            enlisted: true,
            ..Self::new(repository, stream)
        }
    }

    pub(crate) fn stream(&self) -> &StreamId {
        &self.current.stream
    }

    /// Decides on what is known, and learns more where that does not suffice.
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

    /// The proposal was not appended: its place is taken by the winner, where that is known.
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

    /// Begins from the cached stream, or from an eventually consistent read.
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

    /// Reads what came after what is known. Returns whether the command was among it; what is current
    /// is then what was current right after it.
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

    /// Takes in commits up to the command's own, and says whether that was among them. By `guard` it is
    /// recognised.
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

    /// Looks for the command among the recent commands, from after a version.
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
