//! Snapshots: the state after a commit, carried by the commit itself.
//!
//! The commit that completes an interval brings the state along, so that a load reads one
//! interval's commits at most, and a stream's length costs nothing. There is no second table, no
//! second write, and nothing that could fall behind.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{commit::digest, schema::structure};

/// The state after a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The fingerprint of the state: see [`state_fingerprint()`]. Code with another one ignores the snapshot.
    #[serde(rename = "shape")]
    pub state_fingerprint: String,
    /// The state's JSON.
    pub state: String,
    /// Where the latest commands stand: `RecentCommands`, written down.
    pub commands: ByteBuf,
}

/// Returns the fingerprint of a state: its structure, and the revision of the rules that lead to it.
///
/// Builds with the same fingerprint use each other's snapshots. The structure is taken from the type, so no
/// change of it can be forgotten; that the same events lead to another state now, or that a text
/// inside has another form, is for [`Aggregate::REVISION`](crate::Aggregate::REVISION) to say.
pub fn state_fingerprint<S: JsonSchema>(revision: u32) -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = structure(generator.into_root_schema_for::<S>().to_value());
    let digest = digest(schema.to_string().as_bytes()) >> 64;
    format!("{LAYOUT}.{revision}-{digest:016x}")
}

/// How a [`Snapshot`] itself is written: how commands are hashed, above all.
const LAYOUT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_follows_the_structure_and_the_revision_and_not_the_words() {
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
        let before = state_fingerprint::<before::State>(1);
        assert_eq!(before, state_fingerprint::<reworded::State>(1));
        assert_ne!(before, state_fingerprint::<changed::State>(1));
        assert_ne!(before, state_fingerprint::<before::State>(2));
    }
}
