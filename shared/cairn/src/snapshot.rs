//! Snapshots: the state after a commit, carried by the commit itself.
//!
//! The commit that completes an interval brings the state along, so that a load reads one
//! interval's commits at most, and a stream's length costs nothing. There is no second table, no
//! second write, and nothing that could fall behind.

use std::collections::VecDeque;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;

use crate::{commit::digest, hash::fnv1a};

/// The state after a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which code can use it: see [`shape`]. Any other code ignores it.
    pub shape: String,
    /// The state's JSON.
    pub state: String,
    /// Where the latest commands stand, for [`Remembered::decode`].
    #[serde(default)]
    pub commands: ByteBuf,
}

/// The fingerprint of a state: its structure, and the revision of the rules that lead to it.
///
/// Two builds have the same one exactly when each can use the other's snapshots. The structure is
/// taken from the type, so no change of it can be forgotten; that the same events lead to another
/// state now is for [`Aggregate::REVISION`](crate::Aggregate::REVISION) to say.
pub fn shape<S: JsonSchema>(revision: u32) -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<S>().to_value();
    without_words(&mut schema);
    let digest = digest(schema.to_string().as_bytes()) >> 64;
    format!("{revision}-{digest:016x}")
}

/// What is said about a type for people is not its structure.
fn without_words(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, value| {
                !(value.is_string() && matches!(name.as_str(), "description" | "title"))
            });
            members.values_mut().for_each(without_words);
        }
        Value::Array(values) => values.iter_mut().for_each(without_words),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Where the latest commands of a stream stand: a short hash of each id, and the version of its
/// commit.
///
/// A hash that matches is a place to look, not an answer: the commit there has the whole id. So
/// five bytes are enough for each, and a command that is not found here is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    commands: VecDeque<(u16, u64)>,
}

impl Remembered {
    /// How many commands are remembered. A command is carried out once for as long as no more
    /// than these came after it; what begins a stream, and a saga's steps, are for ever.
    pub const CAPACITY: usize = 64;

    const BYTES: usize = 5;
    /// The furthest back that three bytes reach.
    const FURTHEST: u64 = (1 << 24) - 1;

    pub(crate) fn note(&mut self, id: &str, version: u64) {
        if self.commands.len() == Self::CAPACITY {
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

    /// The stored form, in a commit that begins at `base`. Oldest first; for each the hash, and how far
    /// before `base` the command's commit begins, both big-endian.
    pub(crate) fn encode(&self, base: u64) -> ByteBuf {
        let mut bytes = Vec::with_capacity(self.commands.len() * Self::BYTES);
        for (hash, version) in &self.commands {
            let back = base.saturating_sub(*version);
            if back <= Self::FURTHEST {
                let [.., a, b, c] = back.to_be_bytes();
                bytes.extend(hash.to_be_bytes());
                bytes.extend([a, b, c]);
            }
        }
        ByteBuf::from(bytes)
    }

    pub(crate) fn decode(bytes: &[u8], base: u64) -> Self {
        let (entries, _) = bytes.as_chunks::<{ Self::BYTES }>();
        let commands = entries.iter().map(|[h, l, a, b, c]| {
            let back = u64::from(u32::from_be_bytes([0, *a, *b, *c]));
            (u16::from_be_bytes([*h, *l]), base.saturating_sub(back))
        });
        Self {
            commands: commands.collect(),
        }
    }
}

fn short(id: &str) -> u16 {
    let [a, b, c, d] = fnv1a(id).to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
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
        assert_eq!(stored.len(), 5 * Remembered::CAPACITY);
        let commands = Remembered::decode(&stored, 100);
        assert_eq!(commands.places("command-100", 0), [100]);
        assert_eq!(commands.places("command-37", 0), [37]);
        assert_eq!(commands.places("command-37", 37), Vec::<u64>::new());
        assert!(!commands.places("command-36", 0).contains(&36));
    }

    #[test]
    fn a_place_too_far_back_to_be_written_is_forgotten_and_not_moved() {
        let mut commands = Remembered::default();
        commands.note("old", 1);
        commands.note("new", 1 << 24);
        let base = (1 << 24) + 1;
        let commands = Remembered::decode(&commands.encode(base), base);
        assert_eq!(commands.places("old", 0), Vec::<u64>::new());
        assert_eq!(commands.places("new", 0), [1 << 24]);
    }
}
