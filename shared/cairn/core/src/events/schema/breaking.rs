//! Breaking changes between two versions of a JSON Schema: documents of the old version that a
//! reader of the new one rejects.

use std::{cell::RefCell, fmt};

use serde_json::{Map, Value};

/// A breaking change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The place in a document: a JSON pointer in which `*` matches any item or member.
    pub pointer: String,
    /// The problem of the new version at that place.
    pub reason: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.pointer.as_str() {
            "" => "the document",
            pointer => pointer,
        };
        write!(f, "{place} {}", self.reason)
    }
}

/// Returns the reasons for which a reader of the schema `new` may reject a document that was
/// written with the schema `old`.
///
/// A reader ignores unknown members. A writer writes only the members that its schema names, unless
/// the schema has `additionalProperties`. A change that is not provably harmless is a break, for
/// example a change of `pattern`, or a new keyword that this function does not support.
pub fn breaking(old: &Value, new: &Value) -> Vec<Break> {
    let check = Check {
        old,
        new,
        under_way: RefCell::default(),
    };
    let mut breaks = vec![];
    for found in check.accepted(vec![old.clone()], new, "") {
        if !breaks.contains(&found) {
            breaks.push(found);
        }
    }
    breaks
}

/// Keywords that accept or reject nothing by themselves.
const REMARKS: [&str; 16] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    // These are handled with their related keywords.
    "$ref",
    "additionalItems",
];

/// The JSON types, with integers and fractions separate.
const TYPES: [&str; 7] = [
    "null", "boolean", "integer", "fraction", "string", "array", "object",
];

/// Keywords that limit a size: name, type, and true for a lower limit.
const SIZES: [(&str, &str, bool); 6] = [
    ("minLength", "string", true),
    ("maxLength", "string", false),
    ("minItems", "array", true),
    ("maxItems", "array", false),
    ("minProperties", "object", true),
    ("maxProperties", "object", false),
];

/// The schemas that a document must all match.
type All = Vec<Map<String, Value>>;

struct Check<'a> {
    old: &'a Value,
    new: &'a Value,
    /// The comparisons in progress: a recursive schema is not compared again.
    under_way: RefCell<Vec<(Vec<Value>, Value)>>,
}

impl Check<'_> {
    /// Returns the reasons for which a document that matches all old schemas may not match the new
    /// one.
    fn accepted(&self, old: Vec<Value>, new: &Value, at: &str) -> Vec<Break> {
        let question = (old, new.clone());
        if self.under_way.borrow().contains(&question) {
            return vec![];
        }
        self.under_way.borrow_mut().push(question.clone());
        let breaks = match flat(self.old, &question.0) {
            Some(old) => self.flat_accepted(&old, new, at),
            // No document matches the old schemas.
            None => vec![],
        };
        self.under_way.borrow_mut().pop();
        breaks
    }

    fn flat_accepted(&self, old: &All, new: &Value, at: &str) -> Vec<Break> {
        if types(old).is_empty() || values(old).is_some_and(|values| values.is_empty()) {
            return vec![];
        }
        let members = match new {
            Value::Object(members) => members,
            Value::Bool(false) => return vec![broken(at, "is no longer allowed")],
            Value::Null
            | Value::Bool(true)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => return vec![],
        };
        // The document may match any of the alternatives, so the new schema must accept each.
        if let Some(cases) = cases_of_choices(old) {
            return cases
                .into_iter()
                .flat_map(|case| self.accepted(case, new, at))
                .collect();
        }
        let mut breaks = vec![];
        if let Some(referred) = reference(self.new, new) {
            breaks.extend(self.accepted(plain(old), referred, at));
        }
        for (keyword, wanted) in members {
            breaks.extend(match keyword.as_str() {
                "allOf" => listed(wanted)
                    .flat_map(|new| self.accepted(plain(old), new, at))
                    .collect(),
                "anyOf" | "oneOf" => self.one_accepted(old, wanted, keyword == "oneOf", at),
                "properties" | "required" | "additionalProperties" if has(old, "object") => {
                    self.members_accepted(old, members, keyword, at)
                }
                "items" | "prefixItems" if has(old, "array") => {
                    self.items_accepted(old, members, keyword, at)
                }
                "properties" | "required" | "additionalProperties" | "items" | "prefixItems" => {
                    vec![]
                }
                keyword => value_accepted(old, keyword, wanted, members)
                    .map(|reason| broken(at, &reason))
                    .into_iter()
                    .collect(),
            });
        }
        breaks
    }

    /// Checks that one of several schemas accepts every document; if they are exclusive, only one.
    fn one_accepted(&self, old: &All, new: &Value, exclusive: bool, at: &str) -> Vec<Break> {
        let mut breaks = vec![];
        for case in cases_of_values(old) {
            let tried: Vec<_> = listed(new)
                .map(|new| self.accepted(case.clone(), new, at))
                .collect();
            let Some(taken) = tried.iter().position(Vec::is_empty) else {
                // Report the alternative with the fewest breaks: it is the likeliest match.
                let likeliest = tried.into_iter().min_by_key(Vec::len);
                let none = || vec![broken(at, "matches no alternative")];
                breaks.extend(likeliest.unwrap_or_else(none));
                continue;
            };
            let mut others = listed(new).enumerate().filter(|(index, _)| *index != taken);
            let both = |(_, other): (usize, &Value)| !self.disjoint(&case, other);
            if exclusive && others.any(both) {
                breaks.push(broken(at, "may match more than one alternative"));
            }
        }
        breaks
    }

    fn members_accepted(
        &self,
        old: &All,
        new: &Map<String, Value>,
        keyword: &str,
        at: &str,
    ) -> Vec<Break> {
        let named = new.get("properties").and_then(Value::as_object);
        let mut breaks = vec![];
        match keyword {
            "properties" => {
                for (name, new) in named.into_iter().flatten() {
                    let there = is_required(old, name) || is_declared(old, name);
                    if there {
                        breaks.extend(self.accepted(member(old, name), new, &below(at, name)));
                    }
                }
            }
            "required" => {
                let needed = new.get("required").into_iter().flat_map(listed);
                for name in needed.filter_map(Value::as_str) {
                    if !is_required(old, name) {
                        breaks.push(broken(&below(at, name), "is required now"));
                    }
                }
            }
            _ => {
                let Some(rest) = new.get("additionalProperties") else {
                    return breaks;
                };
                let is_named = |name: &str| named.is_some_and(|named| named.contains_key(name));
                for name in declared(old).filter(|name| !is_named(name)) {
                    breaks.extend(self.accepted(member(old, name), rest, &below(at, name)));
                }
                let open = old.iter().filter_map(|old| old.get("additionalProperties"));
                let open: Vec<_> = open.cloned().collect();
                if !open.is_empty() {
                    breaks.extend(self.accepted(open, rest, &below(at, "*")));
                }
            }
        }
        breaks
    }

    fn items_accepted(
        &self,
        old: &All,
        new: &Map<String, Value>,
        keyword: &str,
        at: &str,
    ) -> Vec<Break> {
        let (first, rest) = items(new);
        let mut breaks = vec![];
        if keyword == "prefixItems" || new.get("items").is_some_and(Value::is_array) {
            for (index, new) in first.iter().enumerate() {
                let at = below(at, &index.to_string());
                breaks.extend(self.accepted(item(old, index), new, &at));
            }
        }
        if let Some(rest) = rest.filter(|_| keyword == "items") {
            let longest = old.iter().map(|old| items(old).0.len()).max();
            for index in first.len()..longest.unwrap_or(0) {
                let at = below(at, &index.to_string());
                breaks.extend(self.accepted(item(old, index), rest, &at));
            }
            breaks.extend(self.accepted(item(old, usize::MAX), rest, &below(at, "*")));
        }
        breaks
    }

    /// True if provably no document matches all old schemas and the new one.
    fn disjoint(&self, old: &[Value], new: &Value) -> bool {
        let (Some(old), Some(new)) = (
            flat(self.old, old),
            flat(self.new, std::slice::from_ref(new)),
        ) else {
            return true;
        };
        self.flat_disjoint(&old, &new)
    }

    fn flat_disjoint(&self, old: &All, new: &All) -> bool {
        let of_new = types(new);
        if !types(old).iter().any(|kind| of_new.contains(kind)) {
            return true;
        }
        if let Some(cases) = cases_of_choices(old) {
            return cases.iter().all(|case| {
                flat(self.old, case).is_none_or(|case| self.flat_disjoint(&case, new))
            });
        }
        if let Some(cases) = cases_of_choices(new) {
            return cases.iter().all(|case| {
                flat(self.new, case).is_none_or(|case| self.flat_disjoint(old, &case))
            });
        }
        if let (Some(old), Some(new)) = (values(old), values(new)) {
            return !old.iter().any(|value| new.contains(value));
        }
        // A required member of one side cannot exist on the other.
        types(old) == ["object"]
            && required(old).chain(required(new)).any(|name| {
                let is_there = is_required(old, name) || is_declared(old, name);
                let (one, other) = (member(old, name), member(new, name));
                match (flat(self.old, &one), flat(self.new, &other)) {
                    (Some(one), Some(other)) => !is_there || self.flat_disjoint(&one, &other),
                    (None, _) | (_, None) => true,
                }
            })
    }
}

fn broken(at: &str, reason: &str) -> Break {
    Break {
        pointer: at.to_owned(),
        reason: reason.to_owned(),
    }
}

fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn listed(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn plain(all: &All) -> Vec<Value> {
    all.iter().cloned().map(Value::Object).collect()
}

fn reference<'a>(root: &'a Value, schema: &Value) -> Option<&'a Value> {
    root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
}

/// Resolves references and `allOf`; `None` if one of the schemas accepts nothing.
fn flat(root: &Value, schemas: &[Value]) -> Option<All> {
    let mut all = vec![];
    let mut seen = vec![];
    let mut waiting: Vec<&Value> = schemas.iter().rev().collect();
    while let Some(schema) = waiting.pop() {
        let members = match schema {
            Value::Bool(false) => return None,
            Value::Object(members) => members,
            Value::Null
            | Value::Bool(true)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => continue,
        };
        if let Some(referred) = reference(root, schema)
            && !seen.contains(&referred)
        {
            seen.push(referred);
            waiting.push(referred);
        }
        waiting.extend(members.get("allOf").into_iter().flat_map(listed));
        let mut members = members.clone();
        members.remove("$ref");
        members.remove("allOf");
        if !members.is_empty() && !all.contains(&members) {
            all.push(members);
        }
    }
    Some(all)
}

/// Splits schemas with a choice into their alternatives; `None` if they have no choice.
fn cases_of_choices(all: &All) -> Option<Vec<Vec<Value>>> {
    let choice = |schema: &Map<String, Value>| {
        let mut keywords = ["anyOf", "oneOf"].into_iter();
        keywords.find(|keyword| schema.contains_key(*keyword))
    };
    let (index, keyword) = all
        .iter()
        .enumerate()
        .find_map(|(index, schema)| Some((index, choice(schema)?)))?;
    let mut others = all.clone();
    let options = others.get_mut(index)?.remove(keyword)?;
    let case = |option: &Value| [plain(&others), vec![option.clone()]].concat();
    Some(listed(&options).map(case).collect())
}

/// Splits documents by value if the values are limited, otherwise by type.
fn cases_of_values(all: &All) -> Vec<Vec<Value>> {
    let with = |schema: Value| [plain(all), vec![schema]].concat();
    if let Some(values) = values(all) {
        let values = values.into_iter();
        return values
            .map(|value| with(serde_json::json!({ "const": value })))
            .collect();
    }
    let types = types(all);
    let whole = types.contains(&"integer") && types.contains(&"fraction");
    types
        .into_iter()
        .filter(|kind| !(whole && *kind == "integer"))
        .map(|kind| match kind {
            "fraction" => with(serde_json::json!({ "type": "number" })),
            kind => with(serde_json::json!({ "type": kind })),
        })
        .collect()
}

fn has(all: &All, kind: &str) -> bool {
    types(all).contains(&kind)
}

/// Returns the types that a document may have.
fn types(all: &All) -> Vec<&'static str> {
    let values = values(all);
    TYPES
        .into_iter()
        .filter(|kind| {
            let of_values = values.as_ref();
            all.iter()
                .filter_map(|schema| schema.get("type"))
                .all(|named| takes(named, kind))
                && of_values.is_none_or(|values| values.iter().any(|value| kind_of(value) == *kind))
        })
        .collect()
}

/// True if the keyword `type` includes a type.
fn takes(named: &Value, kind: &str) -> bool {
    let is =
        |name: &str| name == kind || name == "number" && ["integer", "fraction"].contains(&kind);
    named.as_str().is_some_and(is) || listed(named).filter_map(Value::as_str).any(is)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() != 0.0) => {
            "fraction"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Returns the values that a document may have, if they are listed.
fn values(all: &All) -> Option<Vec<Value>> {
    let counted = all.iter().filter_map(|schema| match schema.get("const") {
        Some(value) => Some(vec![value.clone()]),
        None => schema.get("enum")?.as_array().cloned(),
    });
    let mut left = counted.reduce(|mut left, values| {
        left.retain(|value| values.contains(value));
        left
    })?;
    let named = || all.iter().filter_map(|schema| schema.get("type"));
    left.retain(|value| named().all(|named| takes(named, kind_of(value))));
    Some(left)
}

fn required(all: &All) -> impl Iterator<Item = &str> {
    let lists = all.iter().filter_map(|schema| schema.get("required"));
    lists.flat_map(listed).filter_map(Value::as_str)
}

fn is_required(all: &All, name: &str) -> bool {
    required(all).any(|required| required == name)
}

fn declared(all: &All) -> impl Iterator<Item = &str> {
    let named = all
        .iter()
        .filter_map(|schema| schema.get("properties")?.as_object());
    named.flat_map(Map::keys).map(String::as_str)
}

/// True if documents may have a member: a named one, or any.
fn is_declared(all: &All, name: &str) -> bool {
    let mut open = all
        .iter()
        .map(|schema| schema.contains_key("additionalProperties"));
    declared(all).any(|declared| declared == name) || open.any(|open| open)
}

/// Returns the schemas of a member.
fn member(all: &All, name: &str) -> Vec<Value> {
    let of = |schema: &Map<String, Value>| {
        let named = schema.get("properties").and_then(|named| named.get(name));
        named
            .or_else(|| schema.get("additionalProperties"))
            .cloned()
    };
    all.iter().filter_map(of).collect()
}

/// Returns the schemas of the first items, and the schema of the others.
fn items(schema: &Map<String, Value>) -> (&[Value], Option<&Value>) {
    let list = |name: &str| schema.get(name).and_then(Value::as_array);
    match (list("prefixItems"), list("items")) {
        (Some(first), _) => (first, schema.get("items")),
        (None, Some(first)) => (first, schema.get("additionalItems")),
        (None, None) => (&[], schema.get("items")),
    }
}

/// Returns the schemas of one item.
fn item(all: &All, index: usize) -> Vec<Value> {
    let of = |schema: &Map<String, Value>| {
        let (first, rest) = items(schema);
        first.get(index).or(rest).cloned()
    };
    all.iter().filter_map(of).collect()
}

/// Returns the reason for which a value that matches the old schemas may break a keyword of the new
/// one.
fn value_accepted(
    old: &All,
    keyword: &str,
    wanted: &Value,
    new: &Map<String, Value>,
) -> Option<String> {
    let is_number = has(old, "integer") || has(old, "fraction");
    let is_same = || old.iter().any(|old| old.get(keyword) == Some(wanted));
    match keyword {
        keyword if REMARKS.contains(&keyword) => None,
        "type" => {
            let lost = types(old).into_iter().find(|kind| !takes(wanted, kind))?;
            let lost = if lost == "fraction" { "number" } else { lost };
            Some(format!("no longer accepts the type {lost}"))
        }
        "enum" | "const" => {
            let taken = match keyword {
                "const" => vec![wanted.clone()],
                _ => listed(wanted).cloned().collect(),
            };
            match values(old) {
                None => Some("accepts only listed values now".to_owned()),
                Some(values) => values
                    .iter()
                    .find(|value| !taken.contains(value))
                    .map(|lost| format!("no longer accepts {lost}")),
            }
        }
        "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" if is_number => {
            (!is_within(old, new, keyword.ends_with("inimum")))
                .then(|| format!("has a {keyword} of {wanted} now"))
        }
        "format" if is_number && range(wanted).is_some() => (!is_within(old, new, true)
            || !is_within(old, new, false))
        .then(|| format!("is a number of the format {wanted} now")),
        // All other formats apply to strings.
        "format" | "pattern" if !has(old, "string") => None,
        "multipleOf" if is_number => {
            let is_multiple = |of: f64| wanted.as_f64().is_some_and(|wanted| of % wanted == 0.0);
            let steps = old.iter().filter_map(|old| old.get("multipleOf")?.as_f64());
            let whole = (!has(old, "fraction")).then_some(1.0);
            (!steps.chain(whole).any(is_multiple)).then(|| format!("is a multiple of {wanted} now"))
        }
        "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum" | "multipleOf" => None,
        "uniqueItems" if !has(old, "array") || wanted == &Value::Bool(false) => None,
        "format" | "pattern" | "uniqueItems" => {
            (!is_same()).then(|| format!("has the {keyword} {wanted} now"))
        }
        keyword => match SIZES.iter().find(|(name, _, _)| *name == keyword) {
            Some((_, kind, _)) if !has(old, kind) => None,
            Some((_, _, from_below)) => {
                let is_kept = match (size(old, keyword), wanted.as_u64()) {
                    (Some(old), Some(new)) if *from_below => old >= new,
                    (Some(old), Some(new)) => old <= new,
                    (None, Some(new)) => *from_below && new == 0,
                    (_, None) => false,
                };
                (!is_kept).then(|| format!("has a {keyword} of {wanted} now"))
            }
            None => (!is_same()).then(|| format!("has a {keyword}, which is not supported")),
        },
    }
}

/// Returns the tightest limit of a size.
fn size(all: &All, keyword: &str) -> Option<u64> {
    let from_below = keyword.starts_with("min");
    let tightest = |a: u64, b: u64| if from_below { a.max(b) } else { a.min(b) };
    let bounds = all
        .iter()
        .filter_map(|schema| schema.get(keyword)?.as_u64());
    let counted = values(all).and_then(|values| {
        let sizes = values.iter().filter_map(|value| match (value, keyword) {
            (Value::String(text), "minLength" | "maxLength") => Some(text.chars().count()),
            (Value::Array(items), "minItems" | "maxItems") => Some(items.len()),
            (Value::Object(members), "minProperties" | "maxProperties") => Some(members.len()),
            _ => None,
        });
        let sizes = sizes.map(|size| size as u64);
        if from_below { sizes.min() } else { sizes.max() }
    });
    // Required members and listed values also limit the size.
    let members = (keyword == "minProperties").then(|| required(all).count() as u64);
    bounds.chain(counted).chain(members).reduce(tightest)
}

/// A limit of numbers, and true if it excludes the limit itself.
type Bound = (f64, bool);

/// True if all numbers that match the old schemas are within a limit of the new one.
fn is_within(old: &All, new: &Map<String, Value>, from_below: bool) -> bool {
    let whole = !has(old, "fraction");
    let Some((new, new_excluded)) = bound(&vec![new.clone()], from_below, whole) else {
        return true;
    };
    let Some((old, old_excluded)) = bound(old, from_below, whole) else {
        return false;
    };
    let beyond = if from_below { old > new } else { old < new };
    beyond || old.total_cmp(&new).is_eq() && (old_excluded || !new_excluded)
}

/// Returns the tightest limit of numbers.
fn bound(all: &All, from_below: bool, whole: bool) -> Option<Bound> {
    let (within, beyond) = if from_below {
        ("minimum", "exclusiveMinimum")
    } else {
        ("maximum", "exclusiveMaximum")
    };
    let tightest = |a: Bound, b: Bound| {
        let order = a.0.total_cmp(&b.0).then(if from_below {
            a.1.cmp(&b.1)
        } else {
            b.1.cmp(&a.1)
        });
        if order.is_gt() == from_below { a } else { b }
    };
    let number = |schema: &Map<String, Value>, keyword: &str| schema.get(keyword)?.as_f64();
    let bounds = all.iter().flat_map(|schema| {
        let excluded = number(schema, beyond).map(|bound| match (whole, from_below) {
            (true, true) => (bound.floor() + 1.0, false),
            (true, false) => (bound.ceil() - 1.0, false),
            (false, _) => (bound, true),
        });
        let range = schema.get("format").and_then(range);
        let of_format = range.map(|(low, high)| if from_below { low } else { high });
        let included = number(schema, within).into_iter().chain(of_format);
        included.map(|bound| (bound, false)).chain(excluded)
    });
    let counted = values(all).and_then(|values| {
        let numbers = values.iter().filter_map(Value::as_f64);
        let numbers = numbers.map(|number| (number, false));
        numbers.reduce(|a, b| if tightest(a, b) == a { b } else { a })
    });
    bounds.chain(counted).reduce(tightest)
}

/// Returns the range of an integer format.
fn range(format: &Value) -> Option<(f64, f64)> {
    let (bits, signed) = match format.as_str()? {
        "int8" => (8, true),
        "int16" => (16, true),
        "int32" => (32, true),
        "int64" | "int" => (64, true),
        "uint8" => (8, false),
        "uint16" => (16, false),
        "uint32" => (32, false),
        "uint64" | "uint" => (64, false),
        _ => return None,
    };
    Some(if signed {
        let half = 2_f64.powi(bits - 1);
        (-half, half - 1.0)
    } else {
        (0.0, 2_f64.powi(bits) - 1.0)
    })
}
