//! The number of steps that are asked for again in one look.
//!
//! A step is overdue because its event was lost, because its provider does not answer, or because the
//! event is still queued. Only in the first case it helps to ask again; in the last it makes the queue
//! longer. The saga's own stream tells them apart: the commit that follows a `StepRetried` says which
//! event caused it. So each look examines some of the steps that the look before asked for again:
//!
//! - they followed from the new event: events are lost, and twice as many are asked for;
//! - they followed from an older event: events are only late, and one is asked for as a probe;
//! - nothing followed: the provider is in trouble, and half as many are asked for.
//!
//! Each step has a number of its own, so that one provider's trouble holds back no other step. The
//! numbers live as long as the function's environment; a new one begins with a few.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cairn::{
    StreamId,
    dynamodb::DynamoStore,
    lambda::FunctionError,
    store::{Consistency, EventStore as _, ReadRange},
};
use futures_util::future::try_join_all;
use orders::fulfilment::Due;

/// The number of steps in the first look, and the bounds of it.
const FIRST: usize = 10;
const MOST: usize = 400;
/// While events are late, and while a provider is in trouble.
const PROBES_IN_LAG: usize = 1;
const LEAST_IN_TROUBLE: usize = 5;
/// The number of steps that are examined in the next look.
const EXAMINED: usize = 5;

/// The numbers, by what is due.
#[derive(Default)]
pub(crate) struct Pace(Mutex<HashMap<Due, Window>>);

struct Window {
    size: usize,
    /// The steps asked for in this look.
    asked: usize,
    /// Some of them: their streams, and the versions of `StepRetried`.
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
    /// The step's outcome followed from it: the event before was lost.
    Needed,
    /// The step's outcome followed from an older event, which had been queued.
    Needless,
    /// There is no outcome yet.
    None,
}

impl Pace {
    /// Begins a look: examines the effects of the last one.
    pub(crate) async fn begin(&self, store: &DynamoStore) -> Result<(), FunctionError> {
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

    /// True if one more step may be asked for in this look.
    pub(crate) fn takes(&self, due: Due) -> bool {
        let mut windows = self.windows();
        let window = windows.entry(due).or_default();
        let takes = window.asked < window.size;
        window.asked += usize::from(takes);
        takes
    }

    /// Notes that a step was asked for by the event of this version.
    pub(crate) fn asked(&self, due: Due, stream: &StreamId, version: u64) {
        let mut windows = self.windows();
        let window = windows.entry(due).or_default();
        if window.examined.len() < EXAMINED {
            window.examined.push((stream.clone(), version));
        }
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Due, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn effect(
    store: &DynamoStore,
    stream: &StreamId,
    version: u64,
) -> Result<Effect, FunctionError> {
    let range = ReadRange {
        consistency: Consistency::Strong,
        ..ReadRange::after(version)
    };
    let commits = store.read(stream, &range).await;
    let commits = commits.map_err(FunctionError::new)?;
    let follows = commits.iter().find(|commit| commit.version > version);
    let cause = format!("{stream}@{version}");
    Ok(match follows {
        None => Effect::None,
        Some(commit) if commit.causation.as_deref() == Some(&cause) => Effect::Needed,
        Some(_) => Effect::Needless,
    })
}

/// The size of a window after what was examined.
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
