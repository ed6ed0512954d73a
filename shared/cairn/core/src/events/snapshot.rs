//! Snapshots: the state after a commit, stored in the commit itself.
//!
//! The commit that completes an interval contains the state. A load therefore reads at most the
//! commits of one interval, independent of the length of the stream. A snapshot needs no second
//! table and no second write, and cannot lag behind the events.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{hash::digest, structure::structure};

/// The state after a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The fingerprint of the state. See [`state_fingerprint()`]. Code with another fingerprint
    /// ignores the snapshot.
    #[serde(rename = "shape")]
    pub state_fingerprint: String,
    /// The state as JSON.
    pub state: String,
    /// The encoded `RecentCommands` of the stream.
    pub commands: ByteBuf,
}

/// Returns the fingerprint of a state: its structure, and the revision of the rules that lead to
/// it.
///
/// Builds with the same fingerprint use each other's snapshots. The structure follows from the
/// type, so every change of the type changes the fingerprint. Increase
/// [`Aggregate::REVISION`](crate::Aggregate::REVISION) if the same events result in another state
/// of the same type, or if the format of a text in the state changes.
pub fn state_fingerprint<S: JsonSchema>(revision: u32) -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema = structure(generator.into_root_schema_for::<S>().to_value());
    let digest = digest(schema.to_string().as_bytes()) >> 64;
    format!("{LAYOUT}.{revision}-{digest:016x}")
}

/// The version of the format of a [`Snapshot`], which includes the hash of command ids.
const LAYOUT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_follows_the_structure_and_the_revision_and_not_the_words() {
        mod before {
            /// A counter.
            #[derive(schemars::JsonSchema)]
            pub(super) struct State {
                /// The count.
                pub _count: u64,
            }
        }
        mod reworded {
            /// Another description.
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
