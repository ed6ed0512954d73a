//! Maps whose entries must all be used.

use super::error::TemplateError;
use crate::yaml::{Kind, Node};

/// A map whose entries must all be used.
pub(crate) struct Fields {
    of: String,
    pub(crate) line: usize,
    pub(crate) entries: Vec<(String, Node)>,
}

impl Fields {
    pub(crate) fn new(what: &str, node: Node) -> Result<Self, TemplateError> {
        match node.kind {
            Kind::Map(entries) => Ok(Self {
                of: what.to_owned(),
                line: node.line,
                entries,
            }),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Int(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Call(..) => Err(TemplateError::new(
                node.line,
                format!("{what} must be a map"),
            )),
        }
    }

    /// Returns a map without entries, for one that is absent.
    pub(crate) fn empty(what: &str, line: usize) -> Self {
        Self {
            of: what.to_owned(),
            line,
            entries: vec![],
        }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Node> {
        let index = self.entries.iter().position(|(key, _)| key == name)?;
        Some(self.entries.remove(index).1)
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<Node, TemplateError> {
        self.take(name)
            .ok_or_else(|| TemplateError::new(self.line, format!("{} has no {name}", self.of)))
    }

    pub(crate) fn ignore(&mut self, names: &[&str]) {
        self.entries
            .retain(|(key, _)| !names.contains(&key.as_str()));
    }

    pub(crate) fn finish(self) -> Result<(), TemplateError> {
        match self.entries.first() {
            None => Ok(()),
            Some((key, node)) => Err(TemplateError::new(
                node.line,
                format!(
                    "{} of {} is not supported by the local system",
                    key, self.of
                ),
            )),
        }
    }
}

/// Returns the items of a list; any other node is the only item.
pub(crate) fn listed(node: Node) -> Vec<Node> {
    match node.kind {
        Kind::List(items) => items,
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Float(_)
        | Kind::Text(_)
        | Kind::Map(_)
        | Kind::Call(..) => vec![node],
    }
}
