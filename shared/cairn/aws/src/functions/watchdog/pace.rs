//! Limits the number of steps that one run of the watchdog retries.
//!
//! A step is overdue because its event was lost, because its provider is unavailable, or because
//! its event is still queued. A retry helps only in the first case; in the last it makes the queue
//! longer. The commit that follows a `StepRetried` in the saga's stream has the id of its causing
//! event, which distinguishes the cases. Each run therefore examines some of the last run's retries:
//!
//! - The outcome has the new event as its cause: events are lost, and the limit doubles.
//! - The outcome has an older event as its cause: events are late, and the limit is one probe.
//! - There is no outcome: the provider is unavailable, and the limit halves.
//!
//! Each step has a limit of its own, so that one provider's failure delays no other step. The
//! limits last as long as the execution environment of the function; a new one starts with a low
//! limit.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cairn::{
    StreamId,
    saga::Due,
    store::{Consistency, EventStore, ReadRange},
};
use futures_util::future::try_join_all;

use crate::lambda::FunctionError;

/// The limit of the first run, and its bounds.
const FIRST: usize = 10;
const MOST: usize = 10_000;
/// The limit while events are late, and the minimum while a provider is unavailable.
const PROBES_IN_LAG: usize = 1;
const LEAST_IN_TROUBLE: usize = 5;
/// The number of retries that the next run examines.
const EXAMINED: usize = 5;

/// The limit of each step.
pub(super) struct Pace<Step>(Mutex<HashMap<Due<Step>, Window>>);

struct Window {
    size: usize,
    /// The retries of this run.
    asked: usize,
    /// The streams and versions of some of these retries.
    examined: Vec<(StreamId, u64)>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: FIRST,
            asked: 0,
            examined: vec![],
        }
    }
}

/// The effect of a `StepRetried`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It caused the outcome: the earlier event was lost.
    Needed,
    /// An older event caused the outcome: it was still queued.
    Needless,
    /// No outcome yet.
    None,
}

impl<Step: Copy + Eq + Hash> Pace<Step> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Starts a run: examines the effects of the last run's retries.
    pub(super) async fn begin(&self, store: &impl EventStore) -> Result<(), FunctionError> {
        let examined: Vec<_> = {
            let mut windows = self.windows();
            let windows = windows.iter_mut();
            windows
                .map(|(due, window)| {
                    window.asked = 0;
                    (*due, std::mem::take(&mut window.examined))
                })
                .collect()
        };
        for (due, examined) in examined {
            let effects = examined
                .iter()
                .map(|(stream, version)| effect(store, stream, *version));
            let effects = try_join_all(effects).await?;
            if let Some(window) = self.windows().get_mut(&due) {
                window.size = next(window.size, &effects);
            }
        }
        Ok(())
    }

    /// Returns true if this run may retry the step once more.
    pub(super) fn takes(&self, due: Due<Step>) -> bool {
        let mut windows = self.windows();
        let window = windows.entry(due).or_default();
        let takes = window.asked < window.size;
        window.asked += usize::from(takes);
        takes
    }

    /// Records a retry and the version of its `StepRetried`.
    pub(super) fn asked(&self, due: Due<Step>, stream: &StreamId, version: u64) {
        let mut windows = self.windows();
        let window = windows.entry(due).or_default();
        if window.examined.len() < EXAMINED {
            window.examined.push((stream.clone(), version));
        }
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Due<Step>, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn effect(
    store: &impl EventStore,
    stream: &StreamId,
    version: u64,
) -> Result<Effect, FunctionError> {
    let range = ReadRange {
        consistency: Consistency::Strong,
        ..ReadRange::after(version)
    };
    let commits = store.read(stream, &range).await?;
    let follows = commits.iter().find(|commit| commit.version > version);
    let cause = format!("{stream}@{version}");
    Ok(match follows {
        None => Effect::None,
        Some(commit) if commit.metadata.causation.as_deref() == Some(&cause) => Effect::Needed,
        Some(_) => Effect::Needless,
    })
}

/// Returns the new limit.
fn next(size: usize, effects: &[Effect]) -> usize {
    let count = |effect| effects.iter().filter(|other| **other == effect).count();
    let (needed, needless) = (count(Effect::Needed), count(Effect::Needless));
    match effects.len() {
        0 => size,
        all if needed * 2 >= all => (size * 2).min(MOST),
        _ if needless > 0 && needless >= needed => PROBES_IN_LAG,
        _ => (size / 2).max(LEAST_IN_TROUBLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_from_the_effects_of_the_last_retries() {
        use Effect::{Needed, Needless, None};
        let cases: [(&[Effect], usize); 5] = [
            (&[], 10),
            (&[Needed, Needed, None], 20),
            (&[Needless, Needless, None], PROBES_IN_LAG),
            (&[None, None, None, Needed], LEAST_IN_TROUBLE),
            (&[None, None, Needless], PROBES_IN_LAG),
        ];
        for (effects, limit) in cases {
            assert_eq!(next(10, effects), limit, "{effects:?}");
        }
        assert_eq!(next(MOST, &[Needed]), MOST);
    }
}
