//! Events as patterns see them: leaves by path, with their positions in arrays.

use std::collections::BTreeSet;

use serde_json::Value;

/// A text, number, boolean or null of an event.
#[derive(Debug)]
pub(super) struct Leaf<'v> {
    pub(super) value: &'v Value,
    pub(super) place: ArrayPosition,
}

/// The elements of arrays that contain a leaf: the address of each array, and an index.
///
/// An element that is a leaf itself does not count: leaves of one array can match different fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ArrayPosition(Vec<(usize, usize)>);

/// Returns the leaves at a path.
///
/// A path joins the names on the way to a leaf with dots. So a name with a dot and two nested names
/// are the same path. Arrays do not appear in a path. An empty array or object has no leaf.
pub(super) fn leaves_at<'v>(event: &'v Value, path: &str) -> Vec<Leaf<'v>> {
    let mut leaves = vec![];
    collect(event, Some(path), &ArrayPosition::default(), &mut leaves);
    leaves
}

fn collect<'v>(
    value: &'v Value,
    path: Option<&str>,
    place: &ArrayPosition,
    leaves: &mut Vec<Leaf<'v>>,
) {
    match (value, path) {
        (Value::Array(elements), path) => {
            let array = std::ptr::from_ref(value).addr();
            for (index, element) in elements.iter().enumerate() {
                if element.is_object() || element.is_array() {
                    collect(element, path, &place.inside(array, index), leaves);
                } else {
                    collect(element, path, place, leaves);
                }
            }
        }
        (Value::Object(members), Some(path)) => {
            if let Some(member) = members.get(path) {
                collect(member, None, place, leaves);
            }
            for (dot, _) in path.match_indices('.') {
                let member = path.get(..dot).and_then(|name| members.get(name));
                if let Some(member) = member {
                    collect(member, path.get(dot + 1..), place, leaves);
                }
            }
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), None) => {
            let place = place.clone();
            leaves.push(Leaf { value, place });
        }
        _ => {}
    }
}

impl ArrayPosition {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn arrays(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(array, _)| *array)
    }

    /// Combines two positions; `None` if they are in different elements of one array.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        let mut joined = self.clone();
        for (array, element) in &other.0 {
            let known = joined.0.iter().find(|(known, _)| known == array);
            match known {
                Some((_, known)) if known != element => return None,
                Some(_) => {}
                None => joined = joined.inside(*array, *element),
            }
        }
        Some(joined)
    }

    /// Returns the part of a position that lies in the given arrays.
    pub(super) fn within(&self, arrays: &BTreeSet<usize>) -> Self {
        let kept = self.0.iter().filter(|(array, _)| arrays.contains(array));
        Self(kept.copied().collect())
    }

    /// Returns the position in an element of one more array. Positions with the same elements are
    /// equal.
    fn inside(&self, array: usize, element: usize) -> Self {
        let mut place = self.clone();
        let index = place.0.partition_point(|(known, _)| *known < array);
        place.0.insert(index, (array, element));
        place
    }
}
