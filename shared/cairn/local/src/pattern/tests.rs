//! Each operator, and every case of the reference implementation.

use serde_json::{Value, json};

use super::Pattern;
use crate::yaml::{Kind, LineError, parse};

/// A case of the reference implementation. The pattern keeps the order of its members, which
/// decides if `$or` and a field beside it have the same path.
struct Case {
    number: usize,
    pattern: Pattern,
    event: Value,
    matches: bool,
}

fn cases() -> Vec<Case> {
    let lines = include_str!("../../tests/data/event-patterns.jsonl").lines();
    let case = |(index, line): (usize, &str)| {
        let Kind::Map(members) = parse(line).unwrap().kind else {
            panic!("line {}", index + 1);
        };
        let pattern = members.iter().find(|(name, _)| name == "pattern");
        let mut case: Value = serde_json::from_str(line).unwrap();
        Case {
            number: index + 1,
            pattern: Pattern::parse(&pattern.unwrap().1).unwrap(),
            event: case["event"].take(),
            matches: case["matches"].as_bool().unwrap(),
        }
    };
    lines.enumerate().map(case).collect()
}

#[track_caller]
pub(super) fn read(pattern: &str) -> Result<Pattern, LineError> {
    Pattern::parse(&parse(pattern).unwrap())
}

#[track_caller]
fn matches(pattern: &str, event: &str) -> bool {
    let event = serde_json::from_str(event).unwrap();
    read(pattern).unwrap().matches(&event)
}

#[test]
fn every_case_of_the_reference_implementation_has_its_verdict() {
    let cases = cases();
    assert_eq!(cases.len(), 1726);
    let wrong: Vec<_> = cases
        .iter()
        .filter(|case| case.pattern.matches(&case.event) != case.matches)
        .map(|case| case.number)
        .collect();
    assert_eq!(wrong, [0; 0], "lines of event-patterns.jsonl");
}

#[test]
fn a_value_matches_a_value_of_its_own_type() {
    for (pattern, event, expected) in [
        ("x: [1.5]", r#"{"x":1.5}"#, true),
        ("x: [1.5]", r#"{"x":"1.5"}"#, false),
        ("x: ['1.5']", r#"{"x":1.5}"#, false),
        ("x: [300]", r#"{"x":300.0}"#, true),
        ("x: [300]", r#"{"x":3.0e2}"#, true),
        ("x: [300.0]", r#"{"x":300}"#, true),
        ("x: [0]", r#"{"x":-0.0}"#, true),
        ("x: [null]", r#"{"x":null}"#, true),
        ("x: [null]", r#"{"x":"null"}"#, false),
        ("x: [true]", r#"{"x":true}"#, true),
        ("x: [true]", r#"{"x":"true"}"#, false),
        // Above 2^53, the digits decide.
        ("x: [9007199254740993]", r#"{"x":9007199254740993}"#, true),
        ("x: [9007199254740993]", r#"{"x":9007199254740992}"#, false),
    ] {
        assert_eq!(matches(pattern, event), expected, "{pattern} {event}");
    }
}

#[test]
fn a_range_matches_numbers_only() {
    let below = "total: [{ numeric: ['<', 1000] }]";
    for total in [
        "\"x\"",
        "\"5\"",
        "true",
        "null",
        "1000",
        "9007199254740993",
        "{}",
        "[]",
    ] {
        assert!(
            !matches(below, &format!("{{\"total\":{total}}}")),
            "{total}"
        );
    }
    for total in ["999.99", "-5", "1e2", "[\"x\",5]"] {
        assert!(matches(below, &format!("{{\"total\":{total}}}")), "{total}");
    }
    let between = "total: [{ numeric: ['>', 0, '<=', 5] }]";
    for (total, expected) in [("0", false), ("0.1", true), ("5.0", true), ("5.1", false)] {
        assert_eq!(
            matches(between, &format!("{{\"total\":{total}}}")),
            expected
        );
    }
}

#[test]
fn a_field_can_be_absent_or_have_a_value() {
    let pattern = "ref: [x, { exists: false }]";
    assert!(matches(pattern, r#"{"other":1}"#));
    assert!(matches(pattern, r#"{"ref":"x"}"#));
    assert!(!matches(pattern, r#"{"ref":"y"}"#));
    // An object is not a value; its leaves are.
    assert!(matches(pattern, r#"{"ref":{"a":1}}"#));
    assert!(matches(pattern, r#"{"ref":[]}"#));
    assert!(matches("lines: [{ exists: true }]", r#"{"lines":["a"]}"#));
    assert!(!matches(
        "lines: [{ exists: true }]",
        r#"{"lines":[{"sku":"T"}]}"#
    ));
    assert!(matches(
        "lines: { sku: [{ exists: true }] }",
        r#"{"lines":[{"sku":"T"}]}"#
    ));
}

#[test]
fn an_or_is_required_beside_other_fields_and_can_be_nested() {
    let pattern = "{ source: [s], $or: [{ detail: { a: [1] } }, { detail: { b: [2] } }], detail: { c: [3] } }";
    assert!(!matches(pattern, r#"{"source":"s","detail":{"c":3}}"#));
    assert!(matches(pattern, r#"{"source":"s","detail":{"b":2,"c":3}}"#));
    assert!(!matches(pattern, r#"{"source":"s","detail":{"b":2}}"#));
    let nested = "{ $or: [{ a: [1], $or: [{ b: [1] }, { c: [1] }] }, { d: [1] }] }";
    for (event, expected) in [
        (r#"{"a":1}"#, false),
        (r#"{"a":1,"c":1}"#, true),
        (r#"{"d":1}"#, true),
        (r#"{"b":1,"c":1}"#, false),
    ] {
        assert_eq!(matches(nested, event), expected, "{event}");
    }
    // The later of two fields with the same path applies.
    assert!(matches(
        "{ x: [1], $or: [{ x: [2] }, { y: [1] }] }",
        r#"{"x":2}"#
    ));
    assert!(!matches(
        "{ $or: [{ x: [2] }, { y: [1] }], x: [1] }",
        r#"{"x":2}"#
    ));
}

#[test]
fn a_dot_in_a_name_is_a_step_of_the_path() {
    for event in [r#"{"c.count":5}"#, r#"{"c":{"count":5}}"#] {
        assert!(matches("'c.count': [5]", event));
        assert!(matches("c: { count: [5] }", event));
    }
}

#[test]
fn fields_match_in_one_element_of_an_array() {
    let pattern = "lines: { sku: [T], quantity: [2] }";
    let event = |lines: &str| format!("{{\"lines\":{lines}}}");
    assert!(matches(
        pattern,
        &event(r#"[{"sku":"S"},{"sku":"T","quantity":2}]"#)
    ));
    assert!(!matches(
        pattern,
        &event(r#"[{"sku":"S","quantity":2},{"sku":"T","quantity":3}]"#)
    ));
    let absent = "lines: { quantity: [2], sku: [{ exists: false }] }";
    assert!(matches(absent, &event(r#"[{"sku":"S"},{"quantity":2}]"#)));
    assert!(!matches(
        absent,
        &event(r#"[{"sku":"S","quantity":2},{"quantity":3}]"#)
    ));
    // Sibling arrays do not restrict each other.
    let both = "{ a: { x: [1], y: [1] }, b: { x: [2] } }";
    assert!(matches(
        both,
        r#"{"a":[{"x":1,"y":1}],"b":[{"x":1},{"x":2}]}"#
    ));
}

#[test]
fn an_array_that_many_fields_share_takes_no_long_search() {
    let line = json!({ "a": 1, "b": 1, "c": 1, "d": 1, "e": 1 });
    let event = json!({ "one": vec![line.clone(); 40], "two": vec![line; 40] });
    let fields = "{ a: [1], b: [1], c: [1], d: [1], e: [1], f: [1, { exists: false }] }";
    let pattern = read(&format!("{{ one: {fields}, two: {fields}, zero: [1] }}")).unwrap();
    assert!(!pattern.matches(&event));
    let pattern = read(&format!("{{ one: {fields}, two: {fields} }}")).unwrap();
    assert!(pattern.matches(&event));
}

#[test]
fn texts_match_by_operators() {
    for (test, text, expected) in [
        ("{ prefix: OrderP }", "OrderPlaced", true),
        ("{ prefix: '' }", "", true),
        ("{ suffix: .png }", "a.png", true),
        (
            "{ prefix: { equals-ignore-case: ORDER } }",
            "orderPlaced",
            true,
        ),
        (
            "{ prefix: { equals-ignore-case: ORDER } }",
            "reorder",
            false,
        ),
        ("{ suffix: { equals-ignore-case: .PNG } }", "a.pNg", true),
        (
            "{ suffix: { equals-ignore-case: .PNG } }",
            "a.png.gz",
            false,
        ),
        ("{ equals-ignore-case: größe }", "GRÖSSE", true),
        ("{ equals-ignore-case: abc }", "abcd", false),
        ("{ wildcard: 'a*b*c' }", "a1b2b3c", true),
        ("{ wildcard: 'ab*ba' }", "aba", false),
        ("{ wildcard: '*' }", "", true),
        (r"{ wildcard: 'a\*b*' }", "a*bc", true),
        (r"{ wildcard: 'a\*b*' }", "aXbc", false),
        (r"{ wildcard: 'a\\*' }", r"a\b", true),
        ("{ exactly: x }", "x", true),
        ("{ anything-but: a }", "a", false),
        ("{ anything-but: a }", "b", true),
        ("{ anything-but: [a, b] }", "b", false),
        ("{ anything-but: 5 }", "5", true),
        ("{ anything-but: { prefix: [a, b] } }", "box", false),
        ("{ anything-but: { suffix: x } }", "box", false),
        (
            "{ anything-but: { equals-ignore-case: [BOX] } }",
            "box",
            false,
        ),
        ("{ anything-but: { wildcard: 'b*x' } }", "box", false),
        ("{ anything-but: { wildcard: 'b*x' } }", "boy", true),
    ] {
        let event = json!({ "x": text }).to_string();
        assert_eq!(
            matches(&format!("x: [{test}]"), &event),
            expected,
            "{test} {text}"
        );
    }
    // `anything-but` a text matches values of other types too, and one value of an array is enough.
    for value in ["5", "null", "true", r#"["a","b"]"#] {
        assert!(matches(
            "x: [{ anything-but: a }]",
            &format!("{{\"x\":{value}}}")
        ));
    }
    for event in [r#"{"y":1}"#, r#"{"x":[]}"#, r#"{"x":{}}"#] {
        assert!(!matches("x: [{ anything-but: a }]", event), "{event}");
    }
}

#[test]
fn addresses_match_by_block_and_in_any_notation() {
    for (test, text, expected) in [
        ("{ cidr: 10.0.0.0/24 }", "10.0.0.255", true),
        ("{ cidr: 10.0.0.0/24 }", "10.0.1.0", false),
        ("{ cidr: 10.1.2.3/8 }", "10.200.0.1", true),
        ("{ cidr: 0.0.0.0/0 }", "255.255.255.255", true),
        ("{ cidr: 0.0.0.0/0 }", "::1", false),
        ("{ cidr: '2001:db8::/32' }", "2001:db8:ffff::1", true),
        ("{ cidr: '2001:db8::/32' }", "2001:db9::1", false),
        ("{ cidr: '::/0' }", "2001:db9::1", true),
        ("{ cidr: 10.0.0.0/24 }", "::ffff:a00:1", true),
        ("{ cidr: 10.0.0.0/24 }", "host", false),
        ("'2001:db8::1'", "2001:0db8:0:0:0:0:0:1", true),
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("300.0.0.1", "300.0.0.1", true),
    ] {
        let event = json!({ "x": text }).to_string();
        assert_eq!(
            matches(&format!("x: [{test}]"), &event),
            expected,
            "{test} {text}"
        );
    }
}

#[test]
fn what_eventbridge_refuses_is_refused_with_its_line() {
    for pattern in [
        "[1, 2]",
        "x",
        "{}",
        "x: {}",
        "x: []",
        "x: 1",
        "x: text",
        "x: [[1]]",
        "x: [{}]",
        "x: [{ y: [1] }]",
        "x: [{ prefix: a, suffix: b }]",
        "x: [{ prefix: 3 }]",
        "x: [{ prefix: [a] }]",
        "x: [{ prefix: { suffix: a } }]",
        "x: [{ prefix: { equals-ignore-case: 3 } }]",
        "x: [{ suffix: { equals-ignore-case: [a] } }]",
        "x: [{ suffix: { equals-ignore-case: a, prefix: b } }]",
        "x: [{ exactly: 3 }]",
        "x: [{ equals-ignore-case: [a] }]",
        "x: [{ wildcard: 5 }]",
        "x: [{ wildcard: 'a**b' }]",
        r"x: [{ wildcard: 'a\b' }]",
        r"x: [{ wildcard: 'a\' }]",
        "x: [{ exists: 'true' }]",
        "x: [{ exists: [true] }]",
        "x: [{ cidr: 10.0.0.0/32 }]",
        "x: [{ cidr: '::1/128' }]",
        "x: [{ cidr: 10.0.0.0 }]",
        "x: [{ cidr: 10.0.0.0/-1 }]",
        "x: [{ cidr: 10.0.0/8 }]",
        "x: [{ cidr: foo/8 }]",
        "x: [{ cidr: 10.0.0.0/8/8 }]",
        "x: [{ cidr: 8 }]",
        "x: [{ numeric: 5 }]",
        "x: [{ numeric: [] }]",
        "x: [{ numeric: ['='] }]",
        "x: [{ numeric: ['=', '5'] }]",
        "x: [{ numeric: ['=', true] }]",
        "x: [{ numeric: ['==', 5] }]",
        "x: [{ numeric: ['<>', 1] }]",
        "x: [{ numeric: ['>', 5, '<', 3] }]",
        "x: [{ numeric: ['>=', 5, '<=', 5] }]",
        "x: [{ numeric: ['<', 5, '>', 3] }]",
        "x: [{ numeric: ['=', 5, '<', 3] }]",
        "x: [{ numeric: ['>', 1, '<', 3, 5] }]",
        "x: [{ numeric: ['>', 1, '>', 3] }]",
        "x: [{ numeric: ['<', 9007199254740993] }]",
        "x: [{ anything-but: [] }]",
        "x: [{ anything-but: [1, a] }]",
        "x: [{ anything-but: true }]",
        "x: [{ anything-but: null }]",
        "x: [{ anything-but: [[1]] }]",
        "x: [{ anything-but: { prefix: '' } }]",
        "x: [{ anything-but: { suffix: [a, ''] } }]",
        "x: [{ anything-but: { prefix: 27 } }]",
        "x: [{ anything-but: { prefix: [] } }]",
        "x: [{ anything-but: { wildcard: 'a**' } }]",
        "x: [{ anything-but: { numeric: ['=', 1] } }]",
        "x: [{ anything-but: { prefix: a, suffix: b } }]",
        "x: [{ anything-but: {} }]",
        "x: [{ anything-but: a, prefix: b }]",
        "x: [{ regexp: a }]",
        "x: [{ regex: a }]",
        "x: [{ shellstyle: 'a*' }]",
        "x: [{ colour: red }]",
        "$or: []",
        "$or: { x: [1] }",
        "$or: [{ x: [1] }]",
        "$or: [{ x: [1] }, 5]",
        "$or: [{ x: [1] }, {}]",
        "$or: [{ x: [1] }, { prefix: [1] }]",
        "$or: [{ x: [1] }, { y: { cidr: [1] } }]",
        "x: { $or: [{ y: [1] }] }",
    ] {
        let refused = read(&format!("\n\n{pattern}")).unwrap_err();
        assert_eq!(refused.line, 3, "{pattern}");
        let start = "the event pattern is refused: ";
        assert!(
            refused.problem.starts_with(start),
            "{pattern}: {}",
            refused.problem
        );
    }
    let refused = read("source: [s]\ndetail:\n  x: [1]\n  y:\n    - ok\n    - { shell: '*' }\n");
    assert_eq!(refused.unwrap_err().line, 6);
}

#[test]
fn an_or_of_too_many_combinations_is_refused() {
    let option = |name: &str| format!("{{ {name}1: [1] }}, {{ {name}2: [1] }}");
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    let pattern = names.iter().rev().fold(String::new(), |inner, name| {
        let rest = if inner.is_empty() {
            inner
        } else {
            format!(", x{name}: {{ {inner} }}")
        };
        format!("$or: [{}]{rest}", option(name))
    });
    let refused = read(&format!("{{ {pattern} }}")).unwrap_err();
    assert!(
        refused.problem.contains("1000 combinations"),
        "{}",
        refused.problem
    );
}
