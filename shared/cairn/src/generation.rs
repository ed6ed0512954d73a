//! Generations of a read model: the rows that are shown, and those that a rebuild makes beside them.
//!
//! Every event goes to all generations that [`Standing::written`] names, and a reader of the bus asks for the standing
//! *after* the event was committed. So an event whose reader did not hear of a new generation was committed before
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

/// Which generations a read model has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// How often this has changed.
    pub revision: u64,
    /// The one that is shown.
    pub live: Generation,
    /// The latest that there ever was.
    pub latest: Generation,
    /// The one beside the one that is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

/// A generation that is kept and not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beside {
    /// History is poured into it.
    Building {
        /// The new one.
        generation: Generation,
        /// Into how many parts the history is divided.
        segments: u32,
    },
    /// It was shown until the new one was.
    Retiring {
        /// The old one.
        generation: Generation,
    },
}

/// Why a rebuild cannot take a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTurn {
    /// Nothing is being rebuilt.
    #[error("the read model is not being rebuilt: begin a rebuild")]
    NotBuilding,
    /// An earlier generation has not been dropped.
    #[error("the generation {0} that was shown before is not dropped yet: sweep first")]
    NotSwept(Generation),
}

impl Standing {
    /// The generations that every event goes to, the one that is shown first.
    pub fn written(&self) -> impl Iterator<Item = Generation> {
        let beside = self.beside.map(|beside| match beside {
            Beside::Building { generation, .. } | Beside::Retiring { generation } => generation,
        });
        std::iter::once(self.live).chain(beside)
    }

    /// The generation that is being built, and the number of its segments.
    ///
    /// # Errors
    /// When there is none.
    pub fn building(&self) -> Result<(Generation, u32), OutOfTurn> {
        match self.beside {
            Some(Beside::Building {
                generation,
                segments,
            }) => Ok((generation, segments)),
            Some(Beside::Retiring { .. }) | None => Err(OutOfTurn::NotBuilding),
        }
    }

    /// With a new generation beside the one that is shown; the one that is being built already stays.
    ///
    /// # Errors
    /// When the last rebuild has not dropped the old rows.
    pub fn begun(&self, now: Timestamp, segments: u32) -> Result<Self, OutOfTurn> {
        match self.beside {
            Some(Beside::Building { .. }) => Ok(self.clone()),
            Some(Beside::Retiring { generation }) => Err(OutOfTurn::NotSwept(generation)),
            None => {
                let generation = self.latest.next(now);
                let building = Beside::Building {
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

    /// With the new generation shown, which may be so already. The old one follows the events for as long as anybody
    /// may look at it.
    ///
    /// # Errors
    /// When it is not this generation that is being built.
    pub fn flipped(&self, generation: Generation) -> Result<Self, OutOfTurn> {
        if self.live == generation {
            return Ok(self.clone());
        }
        match self.building()? {
            (built, _) if built == generation => {
                let old = Beside::Retiring {
                    generation: self.live,
                };
                Ok(self.moved(generation, Some(old)))
            }
            _ => Err(OutOfTurn::NotBuilding),
        }
    }

    /// With nothing but what is shown now: after a flip without the old generation, before it without the new one.
    #[must_use]
    pub fn alone(&self) -> Self {
        match self.beside {
            Some(_) => self.moved(self.live, None),
            None => self.clone(),
        }
    }

    /// Whether a generation's rows are nobody's any more. One that is begun later is not among these.
    pub fn is_over(&self, generation: Generation) -> bool {
        generation <= self.latest && self.written().all(|written| written != generation)
    }

    fn moved(&self, live: Generation, beside: Option<Beside>) -> Self {
        Self {
            revision: self.revision + 1,
            live,
            beside,
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(standing: &Standing) -> Vec<Generation> {
        standing.written().collect()
    }

    #[test]
    fn events_go_to_the_old_and_the_new_rows_from_the_beginning_until_after_the_flip() {
        let before = Standing::default();
        let begun = before.begun(Timestamp::from_millis(7), 4).unwrap();
        let (new, segments) = begun.building().unwrap();
        assert_eq!((new, segments), (Generation(7), 4));
        assert_eq!(written(&begun), [Generation::FIRST, new]);
        let flipped = begun.flipped(new).unwrap();
        assert_eq!(written(&flipped), [new, Generation::FIRST]);
        assert_eq!(written(&flipped.alone()), [new]);
        let revisions = [&before, &begun, &flipped, &flipped.alone()].map(|of| of.revision);
        assert_eq!(revisions, [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_over_may_be_dropped_and_what_is_begun_later_may_not() {
        let begun = Standing::default()
            .begun(Timestamp::from_millis(7), 4)
            .unwrap();
        assert!(!begun.is_over(Generation::FIRST) && !begun.is_over(Generation(7)));
        let given_up = begun.alone();
        assert!(!given_up.is_over(Generation::FIRST) && given_up.is_over(Generation(7)));
        let shown = begun.flipped(Generation(7)).unwrap().alone();
        assert!(shown.is_over(Generation::FIRST) && !shown.is_over(Generation(7)));
        assert!(!shown.is_over(Generation(8)));
        let again = given_up.begun(Timestamp::from_millis(7), 4).unwrap();
        assert_eq!(again.building().unwrap().0, Generation(8));
    }

    #[test]
    fn a_rebuild_that_was_begun_goes_on() {
        let begun = Standing::default()
            .begun(Timestamp::from_millis(7), 4)
            .unwrap();
        assert_eq!(begun.begun(Timestamp::from_millis(9), 8).unwrap(), begun);
    }

    #[test]
    fn steps_are_taken_in_turn() {
        let (seven, nine) = (Generation(7), Generation(9));
        let standing = Standing::default();
        assert_eq!(standing.flipped(seven), Err(OutOfTurn::NotBuilding));
        let begun = standing.begun(Timestamp::from_millis(7), 4).unwrap();
        assert_eq!(begun.flipped(nine), Err(OutOfTurn::NotBuilding));
        let flipped = begun.flipped(seven).unwrap();
        assert_eq!(flipped.flipped(seven).unwrap(), flipped);
        assert_eq!(
            flipped.begun(Timestamp::from_millis(9), 4),
            Err(OutOfTurn::NotSwept(Generation::FIRST))
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
