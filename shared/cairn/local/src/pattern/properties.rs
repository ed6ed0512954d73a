//! Properties of patterns, with generated patterns and events.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Pattern, tests::read};
use crate::yaml::{Node, parse};

/// Generates events with arrays of objects two levels deep. Names and values are few, so that many
/// fields of a pattern occur, in one element or in two.
fn events() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(1)),
        Just(json!(2)),
        Just(json!([1, 2])),
        Just(json!(null))
    ];
    let object = |value: BoxedStrategy<Value>| {
        let members = prop::collection::btree_map("[xy]", value, 1..3);
        members
            .prop_map(|members: BTreeMap<String, Value>| json!(members))
            .boxed()
    };
    let array = |value: BoxedStrategy<Value>| {
        prop::collection::vec(value, 0..4)
            .prop_map(Value::from)
            .boxed()
    };
    let inner = array(object(leaf.clone().boxed()));
    let outer = array(object(prop_oneof![leaf, inner].boxed()));
    (outer.clone(), outer).prop_map(|(a, b)| json!({ "a": a, "b": b }))
}

/// Generates patterns with the same names.
fn patterns() -> impl Strategy<Value = Value> {
    let values = prop_oneof![
        4 => Just(json!([1])),
        4 => Just(json!([2, null])),
        1 => Just(json!([{ "exists": true }])),
        1 => Just(json!([{ "exists": false }])),
        1 => Just(json!([1, { "exists": false }])),
        1 => Just(json!([{ "anything-but": [1] }])),
    ];
    let path = "(a|b)\\.[xy](\\.[xy])?";
    prop::collection::btree_map(path, values, 2..4).prop_map(|fields| json!(fields))
}

/// The leaves of an event by path, each with the array elements around it.
fn leaves(value: &Value, path: &str, place: &str, found: &mut Vec<(String, String, Value)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(value, &path, &format!("{place}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let place = match item {
                    Value::Object(_) | Value::Array(_) => format!("{place}[{index}"),
                    _ => place.to_owned(),
                };
                leaves(item, path, &place, found);
            }
        }
        leaf => found.push((path.to_owned(), place.to_owned(), leaf.clone())),
    }
}

/// True if two positions are in the same element of each array that they share. `[` begins an
/// element, and the text before it names the array.
fn consistent(one: &str, other: &str) -> bool {
    one.match_indices('[').all(|(at, _)| {
        let element = |place: &str| {
            let rest = place.get(at + 1..)?;
            rest.split(['/', '[']).next().map(str::to_owned)
        };
        let is_shared = other.get(..=at) == one.get(..=at);
        !is_shared || element(one) == element(other)
    })
}

/// Tries every choice of leaves, one field after another.
fn by_every_choice(
    fields: &[(&String, &Value)],
    all: &[(String, String, Value)],
    places: &[&str],
) -> bool {
    let Some(((path, values), rest)) = fields.split_first() else {
        return true;
    };
    let fits = |place: &str| places.iter().all(|other| consistent(place, other));
    let here: Vec<_> = all
        .iter()
        .filter(|(known, place, _)| known == *path && fits(place))
        .collect();
    let takes = |leaf: &Value| {
        values.as_array().unwrap().iter().any(|test| match test {
            Value::Object(test) => {
                test.get("exists") == Some(&json!(true))
                    || test.get("anything-but").is_some_and(|but| but[0] != *leaf)
            }
            literal => literal == leaf,
        })
    };
    let may_be_absent = values
        .as_array()
        .unwrap()
        .contains(&json!({ "exists": false }));
    let chosen = here
        .iter()
        .filter(|(_, _, leaf)| takes(leaf))
        .any(|(_, place, _)| by_every_choice(rest, all, &[places, &[place.as_str()]].concat()));
    chosen || (may_be_absent && here.is_empty() && by_every_choice(rest, all, places))
}

proptest! {
    #[test]
    fn the_search_finds_what_every_choice_finds(event in events(), pattern in patterns()) {
        let mut all = vec![];
        leaves(&event, "", "", &mut all);
        let fields: Vec<_> = pattern.as_object().unwrap().iter().collect();
        let expected = by_every_choice(&fields, &all, &[]);
        let pattern = read(&pattern.to_string()).unwrap();
        prop_assert_eq!(pattern.matches(&event), expected);
    }

    #[test]
    fn an_or_matches_where_one_of_its_alternatives_does(
        event in events(),
        one in patterns(),
        other in patterns(),
    ) {
        let alone = |pattern: &Value| {
            read(&pattern.to_string()).unwrap().matches(&event)
        };
        let both = read(&json!({ "$or": [one, other] }).to_string()).unwrap();
        let either = alone(&one) || alone(&other);
        prop_assert_eq!(both.matches(&event), either);
    }

    #[test]
    fn a_number_matches_itself(number in prop::num::f64::NORMAL | prop::num::f64::ZERO) {
        // JSON writers put a sign in the exponent.
        let text = format!("{number:?}").replace('e', "e+").replace("e+-", "e-");
        let pattern = read(&format!("x: [{text}]")).unwrap();
        let event: Value = serde_json::from_str(&format!("{{\"x\":{text}}}")).unwrap();
        prop_assert!(pattern.matches(&event));
    }

    #[test]
    fn any_text_is_a_pattern_or_a_refusal_with_a_line(text in "\\PC{0,60}") {
        if let Ok(node) = parse(&text) {
            let Node { line, .. } = node;
            prop_assert!(Pattern::parse(&node).err().is_none_or(|error| error.line >= line));
        }
    }
}
