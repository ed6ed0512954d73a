//! The fields of a pattern, and their match with an event.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    event::{ArrayPosition, Leaf, leaves_at},
    operator::Test,
};

/// The fields of a pattern by path, in matching order.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(pub(super) BTreeMap<String, Field>);

/// The allowed values of a field: those that pass a test, or absence.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    pub(super) tests: Vec<Test>,
    pub(super) may_be_absent: bool,
}

impl Fields {
    pub(super) fn match_all(&self, event: &Value) -> bool {
        let mut found = vec![];
        for (path, field) in &self.0 {
            let leaves = leaves_at(event, path);
            let is_taken = leaves.iter().any(|leaf| field.takes(leaf));
            let can_miss = || leaves.iter().all(|leaf| !leaf.place.is_empty());
            let may_match = is_taken || (field.may_be_absent && can_miss());
            if !may_match {
                return false;
            }
            found.push((field, leaves));
        }
        let is_in_array = |leaf: &Leaf<'_>| !leaf.place.is_empty();
        let in_arrays = found
            .iter()
            .any(|(_, leaves)| leaves.iter().any(is_in_array));
        !in_arrays || match_in_arrays(found)
    }
}

/// Matches fields of which some are in arrays of objects. Fields must be in the same element of
/// each array that they share.
///
/// After each field, `places` holds the elements in which a match so far can be.
fn match_in_arrays(mut fields: Vec<(&Field, Vec<Leaf<'_>>)>) -> bool {
    let mut places = BTreeSet::from([ArrayPosition::default()]);
    fields.reverse();
    while let Some((field, leaves)) = fields.pop() {
        // Arrays without later fields impose no restriction.
        let later: BTreeSet<usize> = fields
            .iter()
            .flat_map(|(_, leaves)| leaves.iter().flat_map(|leaf| leaf.place.arrays()))
            .collect();
        let taken: BTreeSet<&ArrayPosition> = leaves
            .iter()
            .filter(|leaf| field.takes(leaf))
            .map(|leaf| &leaf.place)
            .collect();
        let mut next = BTreeSet::new();
        for place in &places {
            let joined = taken.iter().filter_map(|other| place.join(other));
            next.extend(joined.map(|joined| joined.within(&later)));
            let is_absent = || leaves.iter().all(|leaf| place.join(&leaf.place).is_none());
            if field.may_be_absent && is_absent() {
                next.insert(place.within(&later));
            }
        }
        places = next;
    }
    !places.is_empty()
}

impl Field {
    fn takes(&self, leaf: &Leaf<'_>) -> bool {
        self.tests.iter().any(|test| test.passes(leaf.value))
    }
}
