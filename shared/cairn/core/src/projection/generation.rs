//! Generations of a read model: the live rows, and the rows of a rebuild.
//!
//! Every event is written to all generations that [`GenerationSet::written`] returns. A consumer
//! uses a set for one second, and a rebuild reads the history two seconds after the change of the
//! set. If a consumer does not know a new generation yet, the event was committed before the
//! backfill read the history, and the backfill includes it. No event is lost between the two.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// One set of rows of a read model. A later generation is greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The generation of a read model that was never rebuilt.
    pub const FIRST: Self = Self(0);

    const MARK: char = '/';

    /// Returns a later generation.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        Self(now.max(self.0 + 1))
    }

    /// Returns a key with the prefix of this generation, because all generations share one table.
    pub fn key(self, key: &str) -> String {
        if self == Self::FIRST {
            return key.to_owned();
        }
        format!("{self}{}{key}", Self::MARK)
    }

    /// Splits a stored key into its generation and the key.
    pub fn split(stored: &str) -> (Self, &str) {
        let parts = stored.split_once(Self::MARK);
        let parsed = parts.and_then(|(generation, key)| Some((generation.parse().ok()?, key)));
        parsed.unwrap_or((Self::FIRST, stored))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Generation {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The generations of a read model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationSet {
    /// The number of changes of the set.
    pub revision: u64,
    /// The generation that queries read.
    pub live: Generation,
    /// The latest generation that was started.
    pub latest: Generation,
    /// The secondary generation, if any.
    #[serde(rename = "beside", default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<Secondary>,
}

/// The secondary generation: events go to it, and no query reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secondary {
    /// A rebuild backfills it.
    Building {
        /// The new generation.
        generation: Generation,
        /// The number of segments of the backfill.
        segments: u32,
    },
    /// It was live until the last rebuild promoted another one.
    #[serde(rename = "retiring")]
    Retired {
        /// The old generation.
        generation: Generation,
    },
}

/// A step of a rebuild was out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTurn {
    /// No generation is being built.
    #[error("the read model is not being rebuilt; start a rebuild")]
    NotBuilding,
    /// The retired generation of the last rebuild is not pruned yet.
    #[error("the retired generation {0} is not pruned yet; prune it first")]
    NotPruned(Generation),
}

impl GenerationSet {
    /// Returns the generations that every event is written to, the live one first.
    pub fn written(&self) -> impl Iterator<Item = Generation> {
        let secondary = self.secondary.map(|secondary| match secondary {
            Secondary::Building { generation, .. } | Secondary::Retired { generation } => {
                generation
            }
        });
        std::iter::once(self.live).chain(secondary)
    }

    /// Returns the generation that is being built, and the number of its segments.
    ///
    /// # Errors
    /// Returns an error if no generation is being built.
    pub fn building(&self) -> Result<(Generation, u32), OutOfTurn> {
        match self.secondary {
            Some(Secondary::Building {
                generation,
                segments,
            }) => Ok((generation, segments)),
            Some(Secondary::Retired { .. }) | None => Err(OutOfTurn::NotBuilding),
        }
    }

    /// Returns the set with a new secondary generation. A generation that is already being built
    /// stays.
    ///
    /// # Errors
    /// Returns an error if the retired generation of the last rebuild is not pruned yet.
    pub fn started(&self, now: Timestamp, segments: u32) -> Result<Self, OutOfTurn> {
        match self.secondary {
            Some(Secondary::Building { .. }) => Ok(self.clone()),
            Some(Secondary::Retired { generation }) => Err(OutOfTurn::NotPruned(generation)),
            None => {
                let generation = self.latest.next(now);
                let building = Secondary::Building {
                    generation,
                    segments,
                };
                Ok(Self {
                    latest: generation,
                    ..self.moved(self.live, Some(building))
                })
            }
        }
    }

    /// Returns the set with the new generation promoted; a repetition changes nothing. The retired
    /// generation still receives events, because queries can still read it.
    ///
    /// # Errors
    /// Returns an error if this generation is not being built.
    pub fn promoted(&self, generation: Generation) -> Result<Self, OutOfTurn> {
        if self.live == generation {
            return Ok(self.clone());
        }
        match self.building()? {
            (built, _) if built == generation => {
                let old = Secondary::Retired {
                    generation: self.live,
                };
                Ok(self.moved(generation, Some(old)))
            }
            _ => Err(OutOfTurn::NotBuilding),
        }
    }

    /// Returns the set without its secondary generation: the retired one after a promotion, the new
    /// one before it.
    #[must_use]
    pub fn live_only(&self) -> Self {
        match self.secondary {
            Some(_) => self.moved(self.live, None),
            None => self.clone(),
        }
    }

    /// Returns true if a generation receives no more events. A generation that is started later is
    /// not obsolete.
    pub fn is_obsolete(&self, generation: Generation) -> bool {
        generation <= self.latest && self.written().all(|written| written != generation)
    }

    fn moved(&self, live: Generation, secondary: Option<Secondary>) -> Self {
        Self {
            revision: self.revision + 1,
            live,
            secondary,
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(generations: &GenerationSet) -> Vec<Generation> {
        generations.written().collect()
    }

    #[test]
    fn events_go_to_the_old_and_the_new_rows_from_the_beginning_until_after_the_promotion() {
        let before = GenerationSet::default();
        let started = before.started(Timestamp::from_millis(7), 4).unwrap();
        let (new, segments) = started.building().unwrap();
        assert_eq!((new, segments), (Generation(7), 4));
        assert_eq!(written(&started), [Generation::FIRST, new]);
        let promoted = started.promoted(new).unwrap();
        assert_eq!(written(&promoted), [new, Generation::FIRST]);
        assert_eq!(written(&promoted.live_only()), [new]);
        let revisions = [&before, &started, &promoted, &promoted.live_only()].map(|of| of.revision);
        assert_eq!(revisions, [0, 1, 2, 3]);
    }

    #[test]
    fn an_obsolete_generation_may_be_pruned_and_one_that_starts_later_may_not() {
        let started = GenerationSet::default()
            .started(Timestamp::from_millis(7), 4)
            .unwrap();
        assert!(!started.is_obsolete(Generation::FIRST) && !started.is_obsolete(Generation(7)));
        let cancelled = started.live_only();
        assert!(!cancelled.is_obsolete(Generation::FIRST) && cancelled.is_obsolete(Generation(7)));
        let shown = started.promoted(Generation(7)).unwrap().live_only();
        assert!(shown.is_obsolete(Generation::FIRST) && !shown.is_obsolete(Generation(7)));
        assert!(!shown.is_obsolete(Generation(8)));
        let again = cancelled.started(Timestamp::from_millis(7), 4).unwrap();
        assert_eq!(again.building().unwrap().0, Generation(8));
    }

    #[test]
    fn a_rebuild_that_was_started_continues() {
        let started = GenerationSet::default()
            .started(Timestamp::from_millis(7), 4)
            .unwrap();
        assert_eq!(
            started.started(Timestamp::from_millis(9), 8).unwrap(),
            started
        );
    }

    #[test]
    fn steps_are_taken_in_turn() {
        let (seven, nine) = (Generation(7), Generation(9));
        let generations = GenerationSet::default();
        assert_eq!(generations.promoted(seven), Err(OutOfTurn::NotBuilding));
        let started = generations.started(Timestamp::from_millis(7), 4).unwrap();
        assert_eq!(started.promoted(nine), Err(OutOfTurn::NotBuilding));
        let promoted = started.promoted(seven).unwrap();
        assert_eq!(promoted.promoted(seven).unwrap(), promoted);
        assert_eq!(
            promoted.started(Timestamp::from_millis(9), 4),
            Err(OutOfTurn::NotPruned(Generation::FIRST))
        );
    }

    #[test]
    fn a_generation_is_later_than_the_one_before_whatever_the_clock_says() {
        let generation = Generation(100).next(Timestamp::from_millis(50));
        assert_eq!(generation, Generation(101));
    }

    #[test]
    fn keys_tell_their_generation() {
        assert_eq!(Generation::FIRST.key("TEA-01"), "TEA-01");
        assert_eq!(Generation::split("TEA-01"), (Generation::FIRST, "TEA-01"));
        assert_eq!(Generation(12).key("minute#0"), "12/minute#0");
        assert_eq!(
            Generation::split("12/minute#0"),
            (Generation(12), "minute#0")
        );
    }
}
