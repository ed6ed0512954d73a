//! Compiles patterns, and refuses those that `EventBridge` refuses.

use std::ops::Bound;

use serde_json::Number;

use super::{
    fields::{Field, Fields},
    operator::{AnyCase, Network, Test, Wildcard, comparable},
};
use crate::yaml::{Kind, LineError, Node};

const MOST_ALTERNATIVES: usize = 1000;

/// Names that no field within `$or` can have: names of current and possible future operators.
const RESERVED: [&str; 24] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
    "=",
    "<",
    "<=",
    ">",
    ">=",
    "regex",
    "not-wildcard",
    "not-equals-ignore-case",
    "date-after",
    "date-on-or-after",
    "date-before",
    "date-on-or-before",
    "in-date-range",
    "ip-address-in-range",
    "ip-address-not-in-range",
];

pub(super) fn compile(pattern: &Node) -> Result<Vec<Fields>, LineError> {
    let mut compiler = Compiler {
        alternatives: vec![Fields::default()],
    };
    compiler.object("", pattern, false)?;
    Ok(compiler.alternatives)
}

struct Compiler {
    /// The alternatives of the part read so far.
    alternatives: Vec<Fields>,
}

impl Compiler {
    fn object(&mut self, path: &str, node: &Node, in_or: bool) -> Result<(), LineError> {
        let Kind::Map(entries) = &node.kind else {
            return refuse(node, "a pattern must be an object");
        };
        if entries.is_empty() {
            return refuse(node, format!("the object{} is empty", named(path)));
        }
        for (name, value) in entries {
            if name == "$or" {
                self.either(path, value)?;
                continue;
            }
            if in_or && RESERVED.contains(&name.as_str()) {
                return refuse(value, format!("{name} cannot be a field within $or"));
            }
            let path = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            match &value.kind {
                Kind::Map(_) => self.object(&path, value, in_or)?,
                Kind::List(items) => self.values(&path, value, items)?,
                Kind::Null
                | Kind::Bool(_)
                | Kind::Int(_)
                | Kind::Float(_)
                | Kind::Text(_)
                | Kind::Call(..) => {
                    return refuse(
                        value,
                        format!("{path} must be an object, or an array of values"),
                    );
                }
            }
        }
        Ok(())
    }

    fn either(&mut self, path: &str, node: &Node) -> Result<(), LineError> {
        let options = match &node.kind {
            Kind::List(options) if options.len() > 1 => options,
            _ => return refuse(node, "$or must be an array of at least two objects"),
        };
        let before = std::mem::take(&mut self.alternatives);
        let mut all = vec![];
        for option in options {
            self.alternatives.clone_from(&before);
            self.object(path, option, true)?;
            all.append(&mut self.alternatives);
            if all.len() > MOST_ALTERNATIVES {
                let problem = format!("$or has more than {MOST_ALTERNATIVES} combinations");
                return refuse(node, problem);
            }
        }
        self.alternatives = all;
        Ok(())
    }

    /// Adds the values of a field. A later field of the same path replaces an earlier one.
    fn values(&mut self, path: &str, node: &Node, items: &[Node]) -> Result<(), LineError> {
        if items.is_empty() {
            return refuse(node, format!("the array{} is empty", named(path)));
        }
        let mut field = Field::default();
        for item in items {
            let test = match &item.kind {
                Kind::Null => Test::Null,
                Kind::Bool(value) => Test::Bool(*value),
                Kind::Text(text) => Test::literal(text),
                Kind::Map(_) => {
                    let (operator, operand) = operator(item)?;
                    if let ("exists", Kind::Bool(false)) = (operator, &operand.kind) {
                        field.may_be_absent = true;
                        continue;
                    }
                    test(operator, operand)?
                }
                Kind::Int(_) | Kind::Float(_) => match number(item) {
                    Some(number) => Test::Number(number),
                    None => return refuse(item, "the value is not a JSON number"),
                },
                Kind::List(_) | Kind::Call(..) => {
                    return refuse(item, format!("an array{} contains an array", named(path)));
                }
            };
            field.tests.push(test);
        }
        for Fields(fields) in &mut self.alternatives {
            fields.insert(path.to_owned(), field.clone());
        }
        Ok(())
    }
}

/// Returns the only operator of an object, and its operand.
fn operator(node: &Node) -> Result<(&str, &Node), LineError> {
    match &node.kind {
        Kind::Map(entries) => match entries.as_slice() {
            [(operator, operand)] => Ok((operator, operand)),
            entries => {
                let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
                let found = names.join(", ");
                refuse(
                    node,
                    format!("an object of an array must have one operator, not [{found}]"),
                )
            }
        },
        _ => refuse(node, "an object with one operator is required"),
    }
}

fn test(operator: &str, operand: &Node) -> Result<Test, LineError> {
    let test = match operator {
        "exactly" => Test::Text(text(operator, operand)?.to_owned()),
        "prefix" | "suffix" => affix(operator, operand)?,
        "equals-ignore-case" | "wildcard" => of_text(operator, operand)?,
        "numeric" => numeric(operand)?,
        "anything-but" => anything_but(operand)?,
        "exists" => match operand.kind {
            Kind::Bool(true) => Test::Exists,
            _ => return refuse(operand, "exists takes true or false"),
        },
        "cidr" => {
            let text = text(operator, operand)?;
            let Some(network) = Network::new(text) else {
                let problem = format!(
                    "{text} is not a CIDR block: expected an address, / and fewer bits than it has"
                );
                return refuse(operand, problem);
            };
            Test::Cidr(network)
        }
        _ => return refuse(operand, format!("unknown operator {operator}")),
    };
    Ok(test)
}

fn affix(operator: &str, operand: &Node) -> Result<Test, LineError> {
    if !matches!(operand.kind, Kind::Map(_)) {
        return of_text(operator, operand);
    }
    let text = match self::operator(operand)? {
        ("equals-ignore-case", operand) => AnyCase::new(text("equals-ignore-case", operand)?),
        (other, _) => return refuse(operand, format!("{operator} cannot have {other}")),
    };
    Ok(match operator {
        "prefix" => Test::PrefixIgnoreCase(text),
        _ => Test::SuffixIgnoreCase(text),
    })
}

fn of_text(operator: &str, operand: &Node) -> Result<Test, LineError> {
    let text = text(operator, operand)?;
    Ok(match operator {
        "prefix" => Test::Prefix(text.to_owned()),
        "suffix" => Test::Suffix(text.to_owned()),
        "equals-ignore-case" => Test::EqualsIgnoreCase(AnyCase::new(text)),
        _ => match Wildcard::new(text) {
            Ok(wildcard) => Test::Wildcard(wildcard),
            Err(problem) => {
                return refuse(operand, format!("{text} is not a wildcard: {problem}"));
            }
        },
    })
}

fn anything_but(operand: &Node) -> Result<Test, LineError> {
    let tests = match &operand.kind {
        Kind::Map(_) => {
            let (operator, operand) = operator(operand)?;
            if !["prefix", "suffix", "equals-ignore-case", "wildcard"].contains(&operator) {
                return refuse(operand, format!("anything-but cannot have {operator}"));
            }
            let refused = |node: &Node| {
                let is_affix = ["prefix", "suffix"].contains(&operator);
                is_affix && matches!(&node.kind, Kind::Text(text) if text.is_empty())
            };
            let test = |node: &Node| {
                if refused(node) {
                    return refuse(node, format!("the {operator} of anything-but is empty"));
                }
                of_text(operator, node)
            };
            items(operand).iter().map(test).collect::<Result<_, _>>()?
        }
        _ => literals(items(operand))?,
    };
    if tests.is_empty() {
        return refuse(operand, "the array of anything-but is empty");
    }
    Ok(Test::AnythingBut(tests))
}

/// Compiles texts only, or numbers only.
fn literals(items: &[Node]) -> Result<Vec<Test>, LineError> {
    let mut tests: Vec<Test> = vec![];
    for item in items {
        let test = match &item.kind {
            Kind::Text(text) => Test::Text(text.clone()),
            Kind::Int(_) | Kind::Float(_) => match number(item) {
                Some(number) if comparable(&number).is_some() => Test::Number(number),
                _ => return refuse(item, "a number of anything-but has too many digits"),
            },
            _ => {
                return refuse(
                    item,
                    "anything-but takes texts, numbers, or an object with one operator",
                );
            }
        };
        let is_text = |test: &Test| matches!(test, Test::Text(_));
        if tests
            .first()
            .is_some_and(|first| is_text(first) != is_text(&test))
        {
            return refuse(item, "anything-but takes texts or numbers, but not both");
        }
        tests.push(test);
    }
    Ok(tests)
}

fn numeric(operand: &Node) -> Result<Test, LineError> {
    let terms: Vec<_> = match &operand.kind {
        Kind::List(items) => items.chunks(2).collect(),
        _ => vec![],
    };
    let mut bounds = vec![];
    for term in terms {
        let [sign, value] = term else {
            return refuse(operand, "numeric takes pairs of a comparison and a number");
        };
        let sign = match &sign.kind {
            Kind::Text(text) => text.as_str(),
            _ => return refuse(sign, "numeric takes =, <, <=, > or >= before a number"),
        };
        let Some(value) = number(value).as_ref().and_then(comparable) else {
            let problem = format!("numeric takes a number that a double holds after {sign}");
            return refuse(operand, problem);
        };
        bounds.push((sign, value));
    }
    let (low, high) = match bounds.as_slice() {
        [("=", value)] => (Bound::Included(*value), Bound::Included(*value)),
        [("<", value)] => (Bound::Unbounded, Bound::Excluded(*value)),
        [("<=", value)] => (Bound::Unbounded, Bound::Included(*value)),
        [(">", value)] => (Bound::Excluded(*value), Bound::Unbounded),
        [(">=", value)] => (Bound::Included(*value), Bound::Unbounded),
        [(above @ (">" | ">="), low), (below @ ("<" | "<="), high)] => {
            if low >= high {
                let problem = format!("no number is {above} {low} and {below} {high}");
                return refuse(operand, problem);
            }
            let bound = |sign: &str, value| match sign.len() {
                1 => Bound::Excluded(value),
                _ => Bound::Included(value),
            };
            (bound(above, *low), bound(below, *high))
        }
        _ => {
            return refuse(
                operand,
                "numeric takes one comparison by =, <, <=, > or >=, or > or >= and then < or <=",
            );
        }
    };
    Ok(Test::Numeric(low, high))
}

/// Parses a number as `serde_json` parses its digits in an event. Its fast parser of 17 digits does
/// not always return the nearest `f64`, and both sides must get the same number.
fn number(node: &Node) -> Option<Number> {
    match node.kind {
        Kind::Int(value) => Some(value.into()),
        Kind::Float(value) => serde_json::from_str(&format!("{value:?}")).ok(),
        _ => None,
    }
}

/// Returns the items of an array; any other node is the only item.
fn items(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn text<'n>(operator: &str, node: &'n Node) -> Result<&'n str, LineError> {
    match &node.kind {
        Kind::Text(text) => Ok(text),
        _ => refuse(node, format!("{operator} takes a text")),
    }
}

fn named(path: &str) -> String {
    match path {
        "" => String::new(),
        path => format!(" of {path}"),
    }
}

fn refuse<T>(node: &Node, problem: impl std::fmt::Display) -> Result<T, LineError> {
    Err(LineError {
        line: node.line,
        problem: format!("the event pattern is refused: {problem}"),
    })
}
