//! Generations of a read model: the live rows, and the rows that a rebuild makes besides.
//!
//! Every event goes to all generations that [`GenerationSet::written`] names, and an event consumer reads this set
//! *after* the event was committed. So an event whose consumer did not know of a new generation was committed before
//! that generation's history was read, and is part of it: no event falls in between.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// One set of a read model's rows. Later ones are greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The rows of a read model that was never rebuilt.
    pub const FIRST: Self = Self(0);

    const MARK: char = '/';

    /// A generation after this one.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        Self(now.max(self.0 + 1))
    }

    /// A key as this generation has it in the table that all generations share.
    pub fn key(self, key: &str) -> String {
        if self == Self::FIRST {
            return key.to_owned();
        }
        format!("{self}{}{key}", Self::MARK)
    }

    /// The generation of a key in the table, and the key itself.
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
    /// How often this has changed.
    pub revision: u64,
    /// The generation that queries read.
    pub live: Generation,
    /// The latest that there ever was.
    pub latest: Generation,
    /// The generation besides the live one.
    #[serde(rename = "beside", default, skip_serializing_if = "Option::is_none")]
    pub secondary: Option<Secondary>,
}

/// The secondary generation: events go to it, and no query reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secondary {
    /// A rebuild backfills it.
    Building {
        /// The new one.
        generation: Generation,
        /// The number of segments of the history.
        segments: u32,
    },
    /// It was live until the new one was promoted.
    #[serde(rename = "retiring")]
    Retired {
        /// The old one.
        generation: Generation,
    },
}

/// Why a rebuild cannot take a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTurn {
    /// Nothing is being rebuilt.
    #[error("the read model is not being rebuilt; start a rebuild")]
    NotBuilding,
    /// The retired generation of the last rebuild has not been pruned.
    #[error("the retired generation {0} is not pruned yet; prune it first")]
    NotPruned(Generation),
}

impl GenerationSet {
    /// The generations that every event goes to, the live one first.
    pub fn written(&self) -> impl Iterator<Item = Generation> {
        let secondary = self.secondary.map(|secondary| match secondary {
            Secondary::Building { generation, .. } | Secondary::Retired { generation } => {
                generation
            }
        });
        std::iter::once(self.live).chain(secondary)
    }

    /// The generation that is being built, and the number of its segments.
    ///
    /// # Errors
    /// When there is none.
    pub fn building(&self) -> Result<(Generation, u32), OutOfTurn> {
        match self.secondary {
            Some(Secondary::Building {
                generation,
                segments,
            }) => Ok((generation, segments)),
            Some(Secondary::Retired { .. }) | None => Err(OutOfTurn::NotBuilding),
        }
    }

    /// The set with a new secondary generation. One that is being built already stays.
    ///
    /// # Errors
    /// When the retired generation of the last rebuild is not pruned.
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

    /// The set with the new generation promoted, which may be so already. The retired one takes events for as long as a
    /// query may read it.
    ///
    /// # Errors
    /// When it is not this generation that is being built.
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

    /// The set with the live generation only: after a promotion without the retired one, before it without the new one.
    #[must_use]
    pub fn live_only(&self) -> Self {
        match self.secondary {
            Some(_) => self.moved(self.live, None),
            None => self.clone(),
        }
    }

    /// True if no event goes to a generation any more. A generation that starts later is not obsolete.
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
    fn a_rebuild_that_was_started_goes_on() {
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
