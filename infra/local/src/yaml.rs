//! YAML with line numbers and `CloudFormation`'s tags.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use crate::template::TemplateError;

/// A value and the line it begins on.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// A short form of an intrinsic function: `!Ref`, without the mark.
    Call(String, Box<Node>),
}

/// Parses one document.
pub(crate) fn parse(text: &str) -> Result<Node, TemplateError> {
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| TemplateError::new(error.marker().line(), error.info()))?;
    match documents.as_slice() {
        [document] => convert(document),
        _ => Err(TemplateError::new(
            1,
            "the file must hold one YAML document",
        )),
    }
}

fn convert(node: &MarkedYaml<'_>) -> Result<Node, TemplateError> {
    let line = node.span.start.line();
    let kind = match &node.data {
        YamlData::Value(Scalar::Null) => Kind::Null,
        YamlData::Value(Scalar::Boolean(value)) => Kind::Bool(*value),
        YamlData::Value(Scalar::Integer(value)) => Kind::Int(*value),
        YamlData::Value(Scalar::FloatingPoint(value)) => Kind::Text(value.to_string()),
        YamlData::Value(Scalar::String(value)) => Kind::Text(value.to_string()),
        YamlData::Sequence(items) => {
            Kind::List(items.iter().map(convert).collect::<Result<_, _>>()?)
        }
        YamlData::Mapping(entries) => {
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let Kind::Text(key) = convert(key)?.kind else {
                    return Err(TemplateError::new(line, "a key must be a text"));
                };
                map.push((key, convert(value)?));
            }
            Kind::Map(map)
        }
        YamlData::Tagged(tag, inner) => {
            // The parser places a tagged value at its tag only.
            let inner = Node {
                line,
                ..convert(inner)?
            };
            Kind::Call(tag.suffix.clone(), Box::new(inner))
        }
        YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
            return Err(TemplateError::new(line, "this YAML is not understood here"));
        }
    };
    Ok(Node { line, kind })
}
