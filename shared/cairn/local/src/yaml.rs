//! YAML with line numbers and the tags of `CloudFormation`, read as SAM reads it.
//!
//! SAM reads templates as YAML 1.1, in which a plain `NO` is false, `010` is 8 and `12:30` is 750.
//! A plain scalar that YAML 1.2 reads differently is refused. So are aliases, merge keys and
//! timestamps, which `CloudFormation` does not read.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-formats.html>

use std::sync::LazyLock;

use regex_lite::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

/// A problem of a text, and the line on which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineError {
    pub(crate) line: usize,
    pub(crate) problem: String,
}

impl LineError {
    pub(crate) fn new(line: usize, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { line, problem }
    }
}

/// A value and the line on which it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// An intrinsic function: `!Sub` or `Fn::Sub`, as `Sub`.
    Call(String, Box<Node>),
}

/// Compares values without their lines.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

const MOST_LEVELS: usize = 100;

/// Keys with a date as value that means a text, mostly without quotes.
const DATED: [&str; 2] = ["AWSTemplateFormatVersion", "Version"];

pub(crate) fn parse(text: &str) -> Result<Node, LineError> {
    let mut reader = Reader(Parser::new_from_str(text));
    let one = || LineError::new(1, "the file must contain one YAML document");
    let mut document = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return document.ok_or_else(one),
            (Event::StreamStart | Event::DocumentEnd, _) => {}
            (Event::DocumentStart(_), _) if document.is_none() => {
                let first = reader.next()?;
                document = Some(reader.node(first, 0)?);
            }
            _ => return Err(one()),
        }
    }
}

struct Reader<'t>(Parser<'t, StrInput<'t>>);

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), LineError> {
        let refused =
            |error: ScanError| LineError::new(error.marker().line(), error.info().to_owned());
        match self.0.next_event() {
            Some(event) => event.map_err(refused),
            None => Err(LineError::new(1, "the YAML ends too early")),
        }
    }

    fn node(&mut self, first: (Event<'t>, Span), level: usize) -> Result<Node, LineError> {
        let (event, span) = first;
        let line = span.start.line();
        let refuse = |problem: &str| Err(LineError::new(line, problem));
        if level > MOST_LEVELS {
            return refuse("this is nested too deep");
        }
        let (kind, tag) = match event {
            Event::Scalar(text, style, _, tag) => {
                let is_plain = style == ScalarStyle::Plain && tag.is_none();
                let kind = if is_plain {
                    plain(&text).map_err(|problem| LineError::new(line, problem))?
                } else {
                    Kind::Text(text.into_owned())
                };
                (kind, tag)
            }
            Event::SequenceStart(_, tag) => (Kind::List(self.items(level)?), tag),
            Event::MappingStart(_, tag) => (called(self.entries(level)?), tag),
            Event::Alias(_) => {
                return refuse("CloudFormation does not support aliases: write the value out");
            }
            _ => return refuse("this YAML is not supported locally"),
        };
        let Some(tag) = tag else {
            return Ok(Node { line, kind });
        };
        let kind = tagged(&tag, Node { line, kind })?;
        Ok(Node { line, kind })
    }

    fn items(&mut self, level: usize) -> Result<Vec<Node>, LineError> {
        let mut items = vec![];
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                first => items.push(self.node(first, level + 1)?),
            }
        }
    }

    fn entries(&mut self, level: usize) -> Result<Vec<(String, Node)>, LineError> {
        let mut entries: Vec<(String, Node)> = vec![];
        loop {
            let first = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                first => first,
            };
            let key = self.node(first, level + 1)?;
            let Kind::Text(name) = key.kind else {
                return Err(LineError::new(key.line, "a key must be a text: quote it"));
            };
            if entries.iter().any(|(known, _)| *known == name) {
                let problem = format!("duplicate key {name}");
                return Err(LineError::new(key.line, problem));
            }
            let value = match self.next()? {
                (Event::Scalar(text, ScalarStyle::Plain, _, None), span)
                    if DATED.contains(&name.as_str()) && DATE.is_match(&text) =>
                {
                    Node {
                        line: span.start.line(),
                        kind: Kind::Text(text.into_owned()),
                    }
                }
                first => self.node(first, level + 1)?,
            };
            entries.push((name, value));
        }
    }
}

/// Returns the long form of an intrinsic function as a call, and any other map as it is.
fn called(mut entries: Vec<(String, Node)>) -> Kind {
    let function = match entries.as_slice() {
        [(name, argument)] if name == "Ref" => {
            matches!(argument.kind, Kind::Text(_)).then(|| name.clone())
        }
        [(name, _)] => name.strip_prefix("Fn::").map(str::to_owned),
        _ => None,
    };
    match function {
        Some(function) => Kind::Call(function, Box::new(entries.remove(0).1)),
        None => Kind::Map(entries),
    }
}

fn tagged(tag: &Tag, node: Node) -> Result<Kind, LineError> {
    if tag.handle == "!" {
        return Ok(Kind::Call(tag.suffix.clone(), Box::new(node)));
    }
    let fits = match node.kind {
        Kind::Text(_) => "str",
        Kind::List(_) => "seq",
        _ => "map",
    };
    if tag.is_yaml_core_schema() && tag.suffix == fits {
        return Ok(node.kind);
    }
    let problem = format!("the tag {tag} is not supported locally");
    Err(LineError::new(node.line, problem))
}

static DATE: LazyLock<Regex> = LazyLock::new(|| regex(r"\d{4}-\d\d-\d\d"));

static INTEGER: LazyLock<Regex> = LazyLock::new(|| regex(r"[-+]?(0|[1-9][0-9]*)"));

/// Numbers with a dot, including the forms in which JSON writers print very small and large ones.
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?x)
        [-+]? [0-9]+ \. [0-9]* ([eE][-+][0-9]+)? | \. [0-9]+ ([eE][-+][0-9]+)? |
        -? (0|[1-9][0-9]*) [eE][-+][0-9]+",
    )
});

/// Scalars that YAML 1.1 and YAML 1.2 read differently, or for which JSON has no value.
static AMBIGUOUS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?x)
        # Booleans.
        yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF |
        # Leading zeros and underscores, fractions and exponents, other bases.
        [-+]? [0-9] [0-9_]* |
        [-+]? ([0-9][0-9_]* \. [0-9_]* | \. [0-9][0-9_]*) ([eE][-+]?[0-9]+)? |
        [-+]? [0-9][0-9_]* [eE][-+]?[0-9]+ |
        [-+]? 0 (b[01_]+ | o[0-7_]+ | x[0-9a-fA-F_]+) |
        # Base 60.
        [-+]? [1-9][0-9_]* (:[0-5]?[0-9])+ | [-+]? [0-9][0-9_]* (:[0-5]?[0-9])+ \. [0-9_]* |
        # No numbers of JSON.
        [-+]? \. (inf|Inf|INF) | \. (nan|NaN|NAN) |
        # Dates and times.
        [0-9]{4}-[0-9]{2}-[0-9]{2} |
        [0-9]{4}-[0-9]{1,2}-[0-9]{1,2} ([Tt]|[\ \t]+) [0-9]{1,2}:[0-9]{2}:[0-9]{2} .* |
        # Default values and merges.
        = | <<
        ",
    )
});

#[expect(clippy::expect_used, reason = "the expressions are constants")]
fn regex(expression: &str) -> Regex {
    Regex::new(&format!("^(?:{expression})$")).expect("an expression")
}

fn plain(text: &str) -> Result<Kind, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        text if INTEGER.is_match(text) => Kind::Int(text.parse().map_err(|_| too_large(text))?),
        text if FLOAT.is_match(text) => match text.parse() {
            Ok(float) if f64::is_finite(float) => Kind::Float(float),
            _ => return Err(too_large(text)),
        },
        text if AMBIGUOUS.is_match(text) => {
            return Err(format!(
                "YAML 1.1, which SAM reads, and YAML 1.2 read a plain {text} differently: quote it"
            ));
        }
        text => Kind::Text(text.to_owned()),
    })
}

fn too_large(text: &str) -> String {
    format!("the number {text} is too large: quote it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn value(yaml: &str) -> Kind {
        let node = parse(&format!("key: {yaml}")).unwrap();
        match node.kind {
            Kind::Map(mut entries) => entries.remove(0).1.kind,
            kind => panic!("{kind:?}"),
        }
    }

    #[track_caller]
    fn refused(yaml: &str) -> String {
        let LineError { line, problem } = parse(yaml).unwrap_err();
        format!("line {line}: {problem}")
    }

    #[test]
    fn a_plain_scalar_is_what_yaml_1_1_and_1_2_take_it_for() {
        for (yaml, kind) in [
            ("~", Kind::Null),
            ("", Kind::Null),
            ("Null", Kind::Null),
            ("True", Kind::Bool(true)),
            ("false", Kind::Bool(false)),
            ("0", Kind::Int(0)),
            ("-17", Kind::Int(-17)),
            ("+5", Kind::Int(5)),
            ("123456789012", Kind::Int(123_456_789_012)),
            ("1.5", Kind::Float(1.5)),
            (".5", Kind::Float(0.5)),
            ("5.", Kind::Float(5.0)),
            ("1.0e+3", Kind::Float(1000.0)),
            ("2e-06", Kind::Float(0.000_002)),
        ] {
            assert_eq!(value(yaml), kind, "{yaml}");
        }
    }

    #[test]
    fn words_and_quoted_scalars_are_texts() {
        for text in [
            "n",
            "Y",
            "nO",
            "none",
            "1.2.3",
            "1-2",
            "12:75",
            "0:30",
            "a_1",
            "_1",
            "_",
            ".",
            "+",
            "-a",
            "e3",
            "0xg",
            "<=",
            "<",
            "10.0.0.0/8",
            "::1",
            "2026-1-1",
            "rate(5 minutes)",
        ] {
            assert_eq!(value(text), Kind::Text(text.to_owned()), "{text}");
        }
        for text in ["NO", "010", "1.5", "", "2026-11-23", "="] {
            assert_eq!(value(&format!("'{text}'")), Kind::Text(text.to_owned()));
            assert_eq!(value(&format!("\"{text}\"")), Kind::Text(text.to_owned()));
            assert_eq!(value(&format!("!!str {text}")), Kind::Text(text.to_owned()));
        }
    }

    #[test]
    fn a_plain_scalar_that_readers_take_for_different_things_is_refused() {
        for yaml in [
            "NO",
            "yes",
            "on",
            "Off",
            "010",
            "0189",
            "00",
            "+07",
            "1_000",
            "1_",
            "1_0.5",
            "12:30",
            "12:30:45",
            "-1:30",
            "1:30.5",
            "0x1F",
            "-0x1f",
            "0o17",
            "0b11",
            "1e3",
            "1.0e3",
            "+1e+3",
            "-.5",
            ".5e3",
            ".inf",
            "-.Inf",
            ".NaN",
            "2026-11-23",
            "2026-11-23T10:00:00Z",
            "=",
            "<<",
            "123456789012345678901",
            "1.0e+309",
        ] {
            let error = refused(&format!("first: 1\nkey: {yaml}"));
            assert!(
                error.contains("line 2: ") && error.contains(yaml),
                "{error}"
            );
            assert!(error.ends_with(": quote it"), "{error}");
            refused(&format!("{yaml}: value"));
            refused(&format!("[a, {yaml}]"));
        }
    }

    #[test]
    fn the_version_of_a_template_or_a_policy_needs_no_quotes() {
        for key in ["AWSTemplateFormatVersion", "Version"] {
            let node = parse(&format!("{key}: 2010-09-09")).unwrap();
            let text = Node {
                line: 1,
                kind: Kind::Text("2010-09-09".to_owned()),
            };
            assert_eq!(node.kind, Kind::Map(vec![(key.to_owned(), text)]));
        }
    }

    #[test]
    fn the_argument_of_a_function_is_a_text() {
        for text in ["010", "NO", "1.5"] {
            let text = Node {
                line: 1,
                kind: Kind::Text(text.to_owned()),
            };
            let Kind::Text(plain) = &text.kind else {
                unreachable!()
            };
            assert_eq!(
                value(&format!("!Ref {plain}")),
                Kind::Call("Ref".to_owned(), Box::new(text.clone()))
            );
        }
    }

    #[test]
    fn what_cloudformation_does_not_read_is_refused_with_its_line() {
        for yaml in [
            "a: 1\nb: 2\na: 3",
            "a: 1\nb: { c: 1, c: 1 }",
            "a: &x 1\nb: *x",
            "a: { b: 1 }\n<<: { c: 1 }",
            "a: 1\n5: 1",
            "a: 1\nb: !!binary aGk=",
            "a: 1\nb: [",
        ] {
            let error = refused(yaml);
            let lines = ["line 2: ", "line 3: "];
            assert!(
                lines.iter().any(|line| error.contains(line)),
                "{yaml}: {error}"
            );
        }
        assert!(refused("a: 1\n---\nb: 1").contains("one YAML document"));
        assert!(refused("").contains("one YAML document"));
        assert!(refused(&"[".repeat(200)).contains("nested too deep"));
    }
}
