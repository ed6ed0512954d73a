//! The detection of breaking schema changes: case by case, and against a JSON Schema validator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use cairn::schema::{breaking, same_structure};
use fastrand::Rng;
use serde_json::{Map, Value, json};

#[test]
fn a_description_that_is_added_changed_or_removed_does_not_change_the_structure() {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let bare = json!({ "type": "string" });
    let reference = json!({ "$ref": "#/definitions/Step" });
    let described = |description: &str| json!({ "allOf": [reference], "description": description });
    let step = json!({ "type": "string", "enum": ["reserve", "charge"] });
    let branches = json!({ "description": "A step.", "oneOf": [
        { "type": "string", "const": "charge", "description": "Charges the card." },
        { "type": "string", "const": "reserve", "description": "Reserves the stock." },
    ] });
    let partly = json!({ "oneOf": [
        { "type": "string", "enum": ["charge"] },
        { "type": "string", "const": "reserve", "description": "Reserves the stock." },
    ] });
    for (one, other) in [
        (text("A name."), text("The name of the customer.")),
        (text("A name."), bare.clone()),
        (described("A step."), described("The step that is due.")),
        (described("A step."), reference.clone()),
        (branches.clone(), step.clone()),
        (partly, branches),
    ] {
        let member = |schema: &Value| object(&json!({ "a": schema }), &json!(["a"]));
        assert!(
            same_structure(&member(&one), &member(&other)),
            "{one} and {other}"
        );
    }

    let other_step = json!({ "type": "string", "enum": ["reserve", "refund"] });
    let both = json!({ "allOf": [reference, { "maxLength": 9 }] });
    // A member with the name of the keyword is a member.
    let named = |name: &str| object(&json!({ name: { "type": "string" } }), &json!([]));
    for (one, other) in [
        (step, other_step),
        (reference, both),
        (bare, json!({ "type": "integer" })),
        (named("description"), named("title")),
    ] {
        assert!(!same_structure(&one, &other), "{one} and {other}");
    }
}

fn pointers(old: &Value, new: &Value) -> Vec<String> {
    let breaks = breaking(old, new).into_iter();
    breaks.map(|found| found.pointer).collect()
}

/// Asserts that a change is compatible, and that its reverse breaks.
#[track_caller]
fn widens(narrow: &Value, wide: &Value) {
    assert_eq!(breaking(narrow, wide), [], "{narrow} to {wide}");
    assert_ne!(breaking(wide, narrow), [], "{wide} to {narrow}");
}

/// Asserts that a change is compatible in both directions.
#[track_caller]
fn same(one: &Value, other: &Value) {
    assert_eq!(breaking(one, other), [], "{one} to {other}");
    assert_eq!(breaking(other, one), [], "{other} to {one}");
}

/// Asserts that a change breaks in both directions.
#[track_caller]
fn differs(one: &Value, other: &Value) {
    assert_ne!(breaking(one, other), [], "{one} to {other}");
    assert_ne!(breaking(other, one), [], "{other} to {one}");
}

fn object(properties: &Value, required: &Value) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

#[test]
fn a_member_that_is_required_now_breaks_and_one_that_no_longer_is_does_not() {
    let text = json!({ "a": { "type": "string" } });
    widens(&object(&text, &json!(["a"])), &object(&text, &json!([])));
    let with = object(
        &json!({ "a": { "type": "string" }, "b": {} }),
        &json!(["b"]),
    );
    assert_eq!(pointers(&object(&text, &json!(["a"])), &with), ["/b"]);
}

#[test]
fn a_new_optional_member_and_one_that_is_gone_break_nothing() {
    let one = object(&json!({ "a": { "type": "string" } }), &json!([]));
    let two = object(
        &json!({ "a": { "type": "string" }, "b": { "type": "integer" } }),
        &json!([]),
    );
    same(&one, &two);
}

#[test]
fn a_closed_object_takes_what_it_names_and_no_more() {
    let open = object(&json!({ "a": {}, "b": {} }), &json!([]));
    let mut closed = object(&json!({ "a": {} }), &json!([]));
    closed["additionalProperties"] = json!(false);
    widens(&closed, &open);
    assert_eq!(pointers(&open, &closed), ["/b"]);
    // A map with any member names.
    let map = |of: &str| json!({ "type": "object", "additionalProperties": { "type": of } });
    widens(&map("integer"), &map("number"));
    widens(
        &closed,
        &json!({ "type": "object", "additionalProperties": true }),
    );
    differs(&map("integer"), &map("string"));
    let named = object(&json!({ "a": { "type": "string" } }), &json!([]));
    assert_eq!(pointers(&named, &map("integer")), ["/a"]);
    assert_eq!(pointers(&map("integer"), &named), ["/a"]);
}

#[test]
fn a_type_may_be_widened_and_not_narrowed_or_exchanged() {
    widens(&json!({ "type": "integer" }), &json!({ "type": "number" }));
    widens(
        &json!({ "type": "string" }),
        &json!({ "type": ["string", "null"] }),
    );
    widens(&json!({ "type": "string" }), &json!(true));
    widens(&json!({ "type": "string" }), &json!({}));
    widens(&json!(false), &json!({ "type": "string" }));
    differs(&json!({ "type": "string" }), &json!({ "type": "integer" }));
    differs(
        &json!({ "type": "number" }),
        &json!({ "type": ["integer", "null"] }),
    );
    let all = ["null", "boolean", "number", "string", "array", "object"];
    same(&json!({}), &json!({ "type": all }));
}

#[test]
fn a_value_may_be_added_and_not_taken_away() {
    let few = json!({ "enum": ["a", "b"] });
    widens(&few, &json!({ "enum": ["c", "b", "a"] }));
    widens(&json!({ "const": "a" }), &few);
    widens(&few, &json!({ "type": "string" }));
    same(
        &json!({ "const": "a" }),
        &json!({ "type": "string", "enum": ["a"] }),
    );
    // Enumerated values that the type excludes do not count.
    same(
        &json!({ "type": "string", "enum": ["a", 1] }),
        &json!({ "enum": ["a"] }),
    );
}

#[test]
fn bounds_may_be_loosened_and_not_tightened() {
    for (keyword, kind, tight, loose) in [
        ("minimum", "integer", 2, 1),
        ("maximum", "integer", 1, 2),
        ("exclusiveMinimum", "number", 2, 1),
        ("exclusiveMaximum", "number", 1, 2),
        ("minLength", "string", 2, 1),
        ("maxLength", "string", 1, 2),
        ("minItems", "array", 2, 1),
        ("maxItems", "array", 1, 2),
        ("minProperties", "object", 2, 1),
        ("maxProperties", "object", 1, 2),
        ("multipleOf", "integer", 4, 2),
    ] {
        let bound = |bound: i32| json!({ "type": kind, keyword: bound });
        widens(&bound(tight), &bound(loose));
        widens(&bound(loose), &json!({ "type": kind }));
        // A bound has no effect on other types.
        same(
            &json!({ "type": "boolean" }),
            &json!({ "type": "boolean", keyword: tight }),
        );
    }
    same(
        &json!({ "type": "integer", "minimum": 1, "maximum": 9 }),
        &json!({ "type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10 }),
    );
    widens(
        &json!({ "type": "number", "exclusiveMinimum": 0 }),
        &json!({ "type": "number", "minimum": 0 }),
    );
    widens(
        &json!({ "enum": [3, 5] }),
        &json!({ "type": "integer", "minimum": 3, "maximum": 5 }),
    );
    widens(
        &json!({ "enum": ["ab"] }),
        &json!({ "type": "string", "minLength": 2, "maxLength": 2 }),
    );
}

#[test]
fn an_integer_of_fewer_bits_is_a_tighter_bound() {
    let format = |format: &str| json!({ "type": "integer", "format": format });
    widens(&format("uint32"), &format("uint64"));
    widens(&format("uint8"), &format("int16"));
    differs(&format("uint32"), &format("int32"));
    widens(
        &format("uint8"),
        &json!({ "type": "integer", "minimum": 0, "maximum": 255 + 1 }),
    );
    same(
        &format("uint8"),
        &json!({ "type": "integer", "minimum": 0, "maximum": 255 }),
    );
}

#[test]
fn a_changed_pattern_or_format_breaks_because_it_cannot_be_compared() {
    for keyword in ["pattern", "format"] {
        let form = |form: &str| json!({ "type": "string", keyword: form });
        differs(&form("date"), &form("time"));
        widens(&form("date"), &json!({ "type": "string" }));
        same(
            &json!({ "type": "integer" }),
            &json!({ "type": "integer", keyword: "date" }),
        );
    }
    widens(
        &json!({ "type": "array", "uniqueItems": true }),
        &json!({ "type": "array", "uniqueItems": false }),
    );
    widens(
        &json!({ "type": "integer", "not": { "const": 1 } }),
        &json!({ "type": "integer" }),
    );
    differs(
        &json!({ "not": { "const": 1 } }),
        &json!({ "not": { "const": 2 } }),
    );
}

#[test]
fn items_are_looked_at() {
    let of = |items: &Value| json!({ "type": "array", "items": items });
    widens(
        &of(&json!({ "type": "integer" })),
        &of(&json!({ "type": "number" })),
    );
    widens(
        &of(&json!({ "type": "integer" })),
        &json!({ "type": "array" }),
    );
    let lines = |quantity: &str| {
        of(&object(
            &json!({ "quantity": { "type": quantity } }),
            &json!([]),
        ))
    };
    assert_eq!(
        pointers(&lines("number"), &lines("integer")),
        ["/*/quantity"]
    );
    // Tuples in the forms of different drafts.
    for (first, rest) in [("prefixItems", "items"), ("items", "additionalItems")] {
        let pair = |one: &str, two: &str| json!({ "type": "array", first: [{ "type": one }, { "type": two }], rest: false });
        widens(&pair("integer", "string"), &pair("number", "string"));
        assert_eq!(
            pointers(&pair("string", "number"), &pair("string", "integer")),
            ["/1"]
        );
        widens(
            &pair("integer", "integer"),
            &of(&json!({ "type": "integer" })),
        );
    }
}

#[test]
fn references_and_all_of_are_looked_through() {
    let named = |kind: &str| {
        json!({
            "definitions": { "Amount": { "type": kind } },
            "properties": { "total": { "description": "the total price", "allOf": [{ "$ref": "#/definitions/Amount" }] } },
        })
    };
    let plain = |kind: &str| json!({ "properties": { "total": { "type": kind } } });
    same(&named("integer"), &plain("integer"));
    widens(&named("integer"), &named("number"));
    assert_eq!(pointers(&named("number"), &plain("integer")), ["/total"]);
    let both = json!({ "allOf": [{ "minimum": 1 }, { "type": "integer", "maximum": 9 }] });
    same(
        &both,
        &json!({ "type": "integer", "minimum": 1, "maximum": 9 }),
    );
}

#[test]
fn schemas_that_recur_come_to_an_end() {
    let tree = |kind: &str, children: &str| {
        json!({
            "$ref": "#/$defs/Tree",
            "$defs": {
                "Tree": {
                    "type": "object",
                    "properties": {
                        "value": { "type": kind },
                        children: { "type": "array", "items": { "$ref": "#/$defs/Tree" } },
                    },
                },
            },
        })
    };
    widens(&tree("integer", "branches"), &tree("number", "branches"));
    same(&tree("integer", "branches"), &tree("integer", "twigs"));
    let endless = json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/a" } } });
    same(&endless, &endless);
}

#[test]
fn a_choice_may_grow_and_not_shrink() {
    for keyword in ["anyOf", "oneOf"] {
        let choice = |kinds: &[&str]| {
            let kinds: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
            json!({ keyword: kinds })
        };
        widens(&choice(&["string"]), &choice(&["integer", "string"]));
        widens(&json!({ "type": "string" }), &choice(&["string", "null"]));
        same(
            &choice(&["string", "null"]),
            &json!({ "type": ["null", "string"] }),
        );
        widens(
            &choice(&["string", "null"]),
            &json!({ "type": ["null", "string", "integer"] }),
        );
    }
}

#[test]
fn variants_with_a_tag_are_told_apart() {
    let variant = |tag: &str, of: &str| {
        object(
            &json!({ "kind": { "const": tag }, "of": { "type": of } }),
            &json!(["kind"]),
        )
    };
    let choice = |variants: &[Value]| json!({ "oneOf": variants });
    let two = choice(&[variant("a", "string"), variant("b", "integer")]);
    let three = choice(&[
        variant("c", "null"),
        variant("b", "integer"),
        variant("a", "string"),
    ]);
    widens(&two, &three);
    let narrowed = choice(&[variant("a", "string"), variant("b", "null")]);
    assert_eq!(pointers(&two, &narrowed), ["/of"]);
    // An enum without a tag: each variant is an object with one member.
    let member = |name: &str| {
        let mut member = object(&json!({ name: { "type": "string" } }), &json!([name]));
        member["additionalProperties"] = json!(false);
        member
    };
    widens(
        &choice(&[member("a")]),
        &choice(&[member("a"), member("b")]),
    );
}

#[test]
fn what_may_be_two_of_which_it_must_be_one_breaks() {
    let short = json!({ "type": "string", "maxLength": 5 });
    let any_of = json!({ "anyOf": [{ "type": "string" }, short] });
    let one_of = json!({ "oneOf": [{ "type": "string" }, short] });
    assert_eq!(breaking(&json!({ "type": "string" }), &any_of), []);
    assert_ne!(breaking(&json!({ "type": "string" }), &one_of), []);
}

#[test]
fn a_change_of_annotations_breaks_nothing() {
    let said = json!({ "title": "T", "description": "d", "default": 1, "examples": [1], "type": "integer" });
    same(
        &said,
        &json!({ "type": "integer", "deprecated": true, "$comment": "c" }),
    );
}

#[test]
fn a_break_says_where_and_why() {
    let lines = |most: u64| {
        let quantity = json!({ "type": "integer", "maximum": most });
        let line = object(&json!({ "quantity": quantity }), &json!([]));
        object(
            &json!({ "lines": { "type": "array", "items": line } }),
            &json!([]),
        )
    };
    let breaks = breaking(&lines(9), &lines(5));
    let said: Vec<_> = breaks.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["/lines/*/quantity has a maximum of 5 now"]);
}

/// Compares the result with that of another validator for thousands of changed schemas. If the
/// change is compatible, each document of the old schema must be valid under the new one. If it
/// breaks, most changes must have a document that shows it.
#[test]
fn a_validator_agrees() {
    let mut rng = Rng::with_seed(7);
    let (mut unbroken, mut shown, mut unshown) = (0, 0, 0);
    for _ in 0..2_000 {
        let old = schema(&mut rng, 3);
        let mut new = old.clone();
        for _ in 0..rng.usize(1..3) {
            change(&mut rng, &mut new);
        }
        if old == new {
            continue;
        }
        let (of_old, of_new) = (Valid::by(&old), Valid::by(&new));
        let documents: Vec<_> = (0..40).filter_map(|_| document(&mut rng, &old)).collect();
        let lost: Vec<_> = documents
            .iter()
            .inspect(|written| assert!(of_old.takes(written), "{written} by {old}"))
            .filter(|written| !of_new.takes(written))
            .collect();
        let breaks = breaking(&old, &new);
        if breaks.is_empty() {
            assert!(lost.is_empty(), "{} is lost from {old} to {new}", lost[0]);
            unbroken += 1;
        } else if lost.is_empty() {
            unshown += 1;
        } else {
            shown += 1;
        }
    }
    assert!(unbroken > 500 && shown > 500, "{unbroken} {shown}");
    assert!(
        unshown * 20 < shown,
        "{unshown} breaks have no failing document, {shown} have one"
    );
}

struct Valid {
    schemas: Schemas,
    root: SchemaIndex,
}

impl Valid {
    fn by(schema: &Value) -> Self {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V7);
        compiler.add_resource("urn:schema", schema.clone()).unwrap();
        let mut schemas = Schemas::new();
        let root = compiler.compile("urn:schema", &mut schemas).unwrap();
        Self { schemas, root }
    }

    fn takes(&self, value: &Value) -> bool {
        self.schemas.validate(value, self.root).is_ok()
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn schema(rng: &mut Rng, depth: usize) -> Value {
    let deep = if depth == 0 { 5 } else { 10 };
    match rng.usize(0..deep) {
        0 => json!({ "type": "integer", "minimum": rng.i32(-3..3), "maximum": rng.i32(3..9) }),
        1 => {
            json!({ "type": "string", "minLength": rng.usize(0..3), "maxLength": rng.usize(3..6) })
        }
        2 => json!({ "type": "string", "enum": some(rng, &["x", "yy", "zzz"]) }),
        3 => json!({ "type": ["boolean", "null"] }),
        4 => json!({ "type": "number", "exclusiveMinimum": rng.i32(-3..3) }),
        5 => {
            json!({ "type": "array", "items": schema(rng, depth - 1), "maxItems": rng.usize(2..5) })
        }
        6 => json!({ "anyOf": [schema(rng, depth - 1), schema(rng, depth - 1)] }),
        7 => json!({ "allOf": [schema(rng, depth - 1)] }),
        _ => {
            let properties: Map<_, _> = some(rng, &NAMES)
                .into_iter()
                .map(|name| (name, schema(rng, depth - 1)))
                .collect();
            let required: Vec<_> = properties.keys().filter(|_| rng.bool()).cloned().collect();
            let mut object = object(&properties.into(), &json!(required));
            match rng.usize(0..4) {
                0 => object["additionalProperties"] = json!(false),
                1 => object["additionalProperties"] = schema(rng, 0),
                _ => {}
            }
            object
        }
    }
}

fn some(rng: &mut Rng, of: &[&str]) -> Vec<String> {
    let mut of: Vec<_> = of.iter().map(|name| (*name).to_owned()).collect();
    rng.shuffle(&mut of);
    of.truncate(rng.usize(1..=of.len()));
    of
}

fn change(rng: &mut Rng, schema: &mut Value) {
    let inner = children(schema);
    if !inner.is_empty() && rng.usize(0..3) > 0 {
        let pointer = rng.choice(inner).unwrap();
        return change(rng, schema.pointer_mut(&pointer).unwrap());
    }
    let members = schema.as_object_mut().unwrap();
    match rng.usize(0..8) {
        0 => *schema = self::schema(rng, 1),
        1 => {
            let keyword = rng.choice(["anyOf", "oneOf"]).unwrap();
            *schema = json!({ keyword: [schema.clone(), self::schema(rng, 1)] });
        }
        2 if !members.is_empty() => {
            let keyword = rng.choice(members.keys().cloned()).unwrap();
            members.remove(&keyword);
        }
        3 if members.contains_key("type") => {
            let kinds = ["integer", "number", "string", "null", "object", "array"];
            members.insert("type".to_owned(), json!(some(rng, &kinds)));
        }
        4 if members.contains_key("properties") => {
            members.insert("required".to_owned(), json!(some(rng, &NAMES)));
        }
        5 if members.contains_key("properties") => {
            members.insert("additionalProperties".to_owned(), self::schema(rng, 0));
        }
        6 if members.contains_key("enum") => {
            members.insert(
                "enum".to_owned(),
                json!(some(rng, &["x", "yy", "zzz", "u"])),
            );
        }
        _ => {
            let bounds = [
                "minimum",
                "maximum",
                "exclusiveMaximum",
                "minLength",
                "maxLength",
                "minItems",
                "maxItems",
                "minProperties",
                "maxProperties",
            ];
            let bound = rng.choice(bounds).unwrap();
            members.insert(bound.to_owned(), json!(rng.usize(0..6)));
        }
    }
}

fn children(schema: &Value) -> Vec<String> {
    let mut children = vec![];
    for (keyword, value) in schema.as_object().unwrap() {
        match (keyword.as_str(), value) {
            ("anyOf" | "oneOf" | "allOf", Value::Array(schemas)) => {
                children.extend((0..schemas.len()).map(|index| format!("/{keyword}/{index}")));
            }
            ("properties", Value::Object(named)) => {
                children.extend(named.keys().map(|name| format!("/properties/{name}")));
            }
            ("items" | "additionalProperties", Value::Object(_)) => {
                children.push(format!("/{keyword}"));
            }
            _ => {}
        }
    }
    children
}

/// Returns a random document of a generated schema, if it has any.
fn document(rng: &mut Rng, schema: &Value) -> Option<Value> {
    let number = |keyword: &str| schema[keyword].as_i64();
    if let Some(options) = schema["anyOf"].as_array() {
        let option = rng.choice(options).unwrap();
        return document(rng, option);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return document(rng, &all[0]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return rng.choice(values).cloned();
    }
    Some(match schema["type"].as_str() {
        None => rng.choice([json!(true), json!(null)]).unwrap(),
        Some("integer") => json!(rng.i64(number("minimum")?..=number("maximum")?)),
        Some("number") => {
            json!(schema["exclusiveMinimum"].as_f64()? + 0.5 + f64::from(rng.u8(0..9)))
        }
        Some("string") => {
            let length = rng.i64(number("minLength")?..=number("maxLength")?);
            json!((0..length).map(|_| 'x').collect::<String>())
        }
        Some("array") => (0..rng.i64(0..=number("maxItems")?))
            .map(|_| document(rng, &schema["items"]))
            .collect::<Option<_>>()?,
        Some(_) => {
            let mut members = Map::new();
            let required = schema["required"].as_array().unwrap();
            for (name, schema) in schema["properties"].as_object().unwrap() {
                if required.contains(&json!(name)) || rng.bool() {
                    members.insert(name.clone(), document(rng, schema)?);
                }
            }
            if schema["additionalProperties"].is_object() {
                for name in NAMES.iter().chain(&["e"]) {
                    if !members.contains_key(*name)
                        && schema["properties"].get(*name).is_none()
                        && rng.bool()
                    {
                        let member = document(rng, &schema["additionalProperties"])?;
                        members.insert((*name).to_owned(), member);
                    }
                }
            }
            members.into()
        }
    })
}
