//! A loaded stream: its state, and the data for its next commit.
//!
//! The state can be stale. The store then rejects a commit that is based on it.

use std::mem;

use crate::{
    commit::{Commit, Context},
    decider::Aggregate,
    event::{CodecError, Event},
    recent_commands::RecentCommands,
    snapshot::Snapshot,
    store::{MAX_COMMIT_BYTES, StoreError},
    stream::StreamId,
    timestamp::Timestamp,
};

/// The state of a stream at a version.
#[derive(Debug)]
pub struct LoadedStream<A: Aggregate> {
    /// The stream.
    pub stream: StreamId,
    /// The state after the last event.
    pub state: A::State,
    /// The version of the last event; 0 before the first.
    pub version: u64,
    at: Option<Timestamp>,
    commands: RecentCommands,
    since_snapshot: u32,
}

impl<A: Aggregate> Clone for LoadedStream<A> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            state: self.state.clone(),
            version: self.version,
            at: self.at,
            commands: self.commands.clone(),
            since_snapshot: self.since_snapshot,
        }
    }
}

impl<A: Aggregate> LoadedStream<A> {
    /// Returns the commit time of the last event; `None` before the first.
    pub fn at(&self) -> Option<Timestamp> {
        self.at
    }

    pub(crate) fn new(stream: &StreamId) -> Self {
        Self {
            stream: stream.clone(),
            state: A::initial(),
            version: 0,
            at: None,
            commands: RecentCommands::default(),
            since_snapshot: 0,
        }
    }

    /// Applies the next commit, or restores the snapshot that the first commit of a read carries.
    /// Ignores an earlier commit.
    pub(crate) fn catch_up(
        &mut self,
        commit: &Commit,
        state_fingerprint: &str,
    ) -> Result<(), StoreError> {
        if commit.last_version() <= self.version {
            return Ok(());
        }
        if commit.version == self.version + 1 {
            self.advance(commit)?;
        } else if let Some(snapshot) = usable(commit, state_fingerprint) {
            self.restore(commit, snapshot)?;
        } else {
            return Err(StoreError::Corrupt {
                stream: self.stream.clone(),
                reason: format!("version {} is followed by {}", self.version, commit.version),
            });
        }
        self.follow(commit, state_fingerprint);
        Ok(())
    }

    fn advance(&mut self, commit: &Commit) -> Result<(), CodecError> {
        for stored in &commit.events {
            let event = A::Event::decode(stored)?;
            let state = mem::replace(&mut self.state, A::initial());
            self.state = A::evolve(state, &event);
        }
        if !commit.enlisted {
            self.commands.push(&commit.id, commit.version);
        }
        Ok(())
    }

    fn restore(&mut self, commit: &Commit, snapshot: &Snapshot) -> Result<(), CodecError> {
        self.state =
            serde_json::from_str(&snapshot.state).map_err(|source| CodecError::Snapshot {
                state_fingerprint: snapshot.state_fingerprint.clone(),
                source,
            })?;
        self.commands = RecentCommands::decode(&snapshot.commands, commit.version);
        Ok(())
    }

    fn follow(&mut self, commit: &Commit, state_fingerprint: &str) {
        self.version = commit.last_version();
        self.at = Some(commit.at);
        self.since_snapshot = match usable(commit, state_fingerprint) {
            Some(_) => 0,
            None => self.since_snapshot + 1,
        };
    }

    /// Creates the commit of `events`, and the stream after it. For `enlisted`, see
    /// [`Commit::enlisted`].
    ///
    /// The state follows from the stored form of the events, which can have less data than
    /// `events`. See [`Event::READ_ONLY`].
    pub(crate) fn commit(
        &self,
        context: &Context,
        events: &[A::Event],
        enlisted: bool,
        state_fingerprint: &str,
    ) -> Result<(Commit, Self), CodecError> {
        let events = events.iter().map(Event::encode).collect::<Result<_, _>>()?;
        let at = self.at.map_or(context.now, |last| last.max(context.now));
        let mut commit = Commit {
            fingerprint: context.fingerprint.clone(),
            metadata: context.metadata.clone(),
            enlisted,
            ..Commit::new(
                self.stream.clone(),
                self.version + 1,
                &context.id,
                at,
                events,
            )
        };
        let mut next = self.clone();
        next.advance(&commit)?;
        if self.since_snapshot + 1 >= A::SNAPSHOT_EVERY {
            let snapshot = Snapshot {
                state_fingerprint: state_fingerprint.to_owned(),
                state: serde_json::to_string(&next.state).map_err(CodecError::Encode)?,
                commands: next.commands.encode(commit.version),
            };
            commit.snapshot = Some(snapshot).filter(|snapshot| has_room(&commit, snapshot));
        }
        next.follow(&commit, state_fingerprint);
        Ok((commit, next))
    }

    pub(crate) fn candidates(&self, id: &str, after: u64) -> Vec<u64> {
        self.commands.candidates(id, after)
    }
}

fn usable<'c>(commit: &'c Commit, state_fingerprint: &str) -> Option<&'c Snapshot> {
    let snapshot = commit.snapshot.as_ref();
    snapshot.filter(|snapshot| snapshot.state_fingerprint == state_fingerprint)
}

/// Returns true if the commit has room for its snapshot. Otherwise it is stored without one, and
/// the next commit gets the snapshot if it has room.
fn has_room(commit: &Commit, snapshot: &Snapshot) -> bool {
    const ENVELOPE: usize = 4 * 1024;
    let events: usize = commit
        .events
        .iter()
        .map(|event| event.data.get().len() + event.name.len() + 64)
        .sum();
    ENVELOPE + events + snapshot.state.len() <= MAX_COMMIT_BYTES
}
