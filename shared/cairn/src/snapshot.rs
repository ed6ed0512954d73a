//! Snapshots: the state after a commit, carried by the commit itself.
//!
//! The commit that completes an interval brings the state along, so that a load reads one
//! interval's commits at most, and a stream's length costs nothing. There is no second table, no
//! second write, and nothing that could fall behind.

use std::collections::VecDeque;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{commit::digest, hash::fnv1a, schema::structure};

/// The state after a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which code can use it: see [`shape`]. Any other code ignores it.
    pub shape: String,
    /// The state's JSON.
    pub state: String,
    /// Where the latest commands stand: [`Remembered`], written down.
    pub commands: ByteBuf,
}

/// The fingerprint of a state: its structure, and the revision of the rules that lead to it.
///
/// Builds of the same shape use each other's snapshots. The structure is taken from the type, so no
/// change of it can be forgotten; that the same events lead to another state now, or that a text
/// inside has another form, is for [`Aggregate::REVISION`](crate::Aggregate::REVISION) to say.
pub fn shape<S: JsonSchema>(revision: u32) -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = structure(generator.into_root_schema_for::<S>().to_value());
    let digest = digest(schema.to_string().as_bytes()) >> 64;
    format!("{LAYOUT}.{revision}-{digest:016x}")
}

/// How a [`Snapshot`] itself is written: how commands are hashed, above all.
const LAYOUT: u32 = 1;

/// Where the latest commands of a stream stand: a short hash of each id, and the version of its
/// commit.
///
/// A hash that matches is a place to look, not an answer: the commit there has the whole id. So a
/// few bytes are enough for each, and a command that is not found here is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    commands: VecDeque<(Hash, u64)>,
}

type Hash = [u8; 3];

impl Remembered {
    /// How many commands are remembered. A command is carried out once for as long as fewer than
    /// these came after it; what begins a stream, and a saga's steps, are for ever.
    pub const CAPACITY: usize = 64;

    pub(crate) fn note(&mut self, id: &str, version: u64) {
        while self.commands.len() >= Self::CAPACITY {
            self.commands.pop_front();
        }
        self.commands.push_back((short(id), version));
    }

    /// The versions after `after` at which a command of this id may stand, latest first.
    pub(crate) fn places(&self, id: &str, after: u64) -> Vec<u64> {
        let hash = short(id);
        self.commands
            .iter()
            .rev()
            .filter(|(other, version)| *other == hash && *version > after)
            .map(|(_, version)| *version)
            .collect()
    }

    /// The stored form, in a commit that begins at `base`: from the latest to the oldest, the hash
    /// of each, and how far its commit is before the one that was named last, in LEB128.
    pub(crate) fn encode(&self, base: u64) -> ByteBuf {
        let mut bytes = Vec::with_capacity(self.commands.len() * 4);
        let mut from = base;
        for (hash, version) in self.commands.iter().rev() {
            bytes.extend(hash);
            leb128(&mut bytes, from.saturating_sub(*version));
            from = *version;
        }
        ByteBuf::from(bytes)
    }

    /// What was encoded; of anything else, as much as makes sense.
    pub(crate) fn decode(bytes: &[u8], base: u64) -> Self {
        let (mut commands, mut from) = (VecDeque::new(), base);
        let mut rest = bytes;
        while let Some((hash, after)) = rest.split_first_chunk()
            && commands.len() < Self::CAPACITY
        {
            let mut back = 0_u64;
            let mut shift = 0;
            rest = after;
            while let Some((byte, after)) = rest.split_first() {
                rest = after;
                back |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            from = from.saturating_sub(back);
            commands.push_front((*hash, from));
        }
        Self { commands }
    }
}

fn leb128(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [.., low] = number.to_be_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn short(id: &str) -> Hash {
    let [a, b, c, d] = fnv1a(id).to_be_bytes();
    [a ^ d, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_follows_the_structure_and_the_revision_and_not_the_words() {
        mod before {
            /// What is counted.
            #[derive(schemars::JsonSchema)]
            pub(super) struct State {
                /// How many.
                pub _count: u64,
            }
        }
        mod reworded {
            /// Something else is said.
            #[derive(schemars::JsonSchema)]
            pub(super) struct State {
                pub _count: u64,
            }
        }
        mod changed {
            #[derive(schemars::JsonSchema)]
            pub(super) struct State {
                pub _count: u64,
                #[serde(default)]
                pub _reserved: u64,
            }
        }
        let shape_before = shape::<before::State>(1);
        assert_eq!(shape_before, shape::<reworded::State>(1));
        assert_ne!(shape_before, shape::<changed::State>(1));
        assert_ne!(shape_before, shape::<before::State>(2));
    }

    #[test]
    fn what_is_remembered_comes_back_and_the_oldest_gives_way() {
        let mut commands = Remembered::default();
        for version in 1..=100 {
            commands.note(&format!("command-{version}"), version);
        }
        let stored = commands.encode(100);
        assert_eq!(stored.len(), 4 * Remembered::CAPACITY);
        let back = Remembered::decode(&stored, 100);
        assert_eq!(back, commands);
        assert_eq!(back.places("command-100", 0), [100]);
        assert_eq!(back.places("command-37", 0), [37]);
        assert_eq!(back.places("command-37", 37), Vec::<u64>::new());
        assert_eq!(back.places("command-36", 0), Vec::<u64>::new());
    }

    #[test]
    fn any_distance_between_commands_is_kept() {
        let mut commands = Remembered::default();
        let versions = [
            1,
            2,
            129,
            130,
            1 << 21,
            (1 << 21) + 128,
            1 << 40,
            u64::MAX - 5,
        ];
        for version in versions {
            commands.note(&version.to_string(), version);
        }
        let back = Remembered::decode(&commands.encode(u64::MAX), u64::MAX);
        assert_eq!(back, commands);
    }

    #[test]
    fn bytes_that_make_no_sense_do_no_harm() {
        for bytes in [&[][..], &[1, 2], &[1, 2, 3], &[255; 40]] {
            Remembered::decode(bytes, 7);
        }
    }
}
