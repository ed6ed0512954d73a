//! Conditions of a template, choices by conditions, and rules about parameters.

use std::collections::HashMap;

use super::{
    error::TemplateError,
    fields::{Fields, listed},
    references::References,
};
use crate::yaml::{Kind, Node};

#[derive(Default)]
pub(crate) struct Conditions(HashMap<String, bool>);

impl Conditions {
    /// Evaluates the section `Conditions`. A condition can use those before it.
    pub(crate) fn new(section: Option<Node>, names: &References) -> Result<Self, TemplateError> {
        let mut conditions = Self::default();
        if let Some(section) = section {
            for (name, node) in Fields::new("Conditions", section)?.entries {
                let holds = conditions.holds(&node, names)?;
                conditions.0.insert(name, holds);
            }
        }
        Ok(conditions)
    }

    pub(crate) fn named(&self, name: &str, line: usize) -> Result<bool, TemplateError> {
        let known = self.0.get(name).copied();
        known.ok_or_else(|| TemplateError::new(line, format!("unknown condition {name}")))
    }

    pub(crate) fn check(
        &self,
        rules: Option<Node>,
        names: &References,
    ) -> Result<(), TemplateError> {
        let Some(rules) = rules else {
            return Ok(());
        };
        for (name, rule) in Fields::new("Rules", rules)?.entries {
            let mut rule = Fields::new(&name, rule)?;
            let applies = match rule.take("RuleCondition") {
                Some(condition) => self.holds(&condition, names)?,
                None => true,
            };
            let assertions = listed(rule.required("Assertions")?);
            rule.finish()?;
            for assertion in assertions.into_iter().filter(|_| applies) {
                let mut assertion = Fields::new("an assertion", assertion)?;
                let asserted = assertion.required("Assert")?;
                let description = assertion.required("AssertDescription")?;
                assertion.finish()?;
                if !self.holds(&asserted, names)? {
                    return Err(TemplateError::new(asserted.line, names.text(&description)?));
                }
            }
        }
        Ok(())
    }

    /// Resolves every choice in a node; `None` if the result is no value.
    pub(crate) fn choose(&self, node: Node) -> Result<Option<Node>, TemplateError> {
        let line = node.line;
        let kind = match node.kind {
            Kind::Call(function, argument) => match (function.as_str(), argument.kind) {
                ("If", Kind::List(parts)) => return self.one_of(parts, line),
                ("Ref", Kind::Text(name)) if name == "AWS::NoValue" => return Ok(None),
                (_, kind) => {
                    let argument = Node {
                        line: argument.line,
                        kind,
                    };
                    let Some(argument) = self.choose(argument)? else {
                        return Ok(None);
                    };
                    Kind::Call(function, Box::new(argument))
                }
            },
            Kind::List(items) => {
                let mut kept = vec![];
                for item in items {
                    kept.extend(self.choose(item)?);
                }
                Kind::List(kept)
            }
            Kind::Map(entries) => {
                let mut kept = vec![];
                for (key, value) in entries {
                    kept.extend(self.choose(value)?.map(|value| (key, value)));
                }
                Kind::Map(kept)
            }
            kind @ (Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_)) => {
                kind
            }
        };
        Ok(Some(Node { line, kind }))
    }

    fn one_of(&self, parts: Vec<Node>, line: usize) -> Result<Option<Node>, TemplateError> {
        let Ok([condition, yes, no]) = <[Node; 3]>::try_from(parts) else {
            let problem = "!If takes a condition and two values";
            return Err(TemplateError::new(line, problem));
        };
        let Kind::Text(name) = condition.kind else {
            return Err(TemplateError::new(line, "!If takes a condition's name"));
        };
        self.choose(if self.named(&name, line)? { yes } else { no })
    }

    fn holds(&self, node: &Node, names: &References) -> Result<bool, TemplateError> {
        let unknown = || TemplateError::new(node.line, "this condition is not supported locally");
        let Kind::Call(function, argument) = &node.kind else {
            return Err(unknown());
        };
        match (function.as_str(), &argument.kind) {
            ("Condition", Kind::Text(name)) => self.named(name, node.line),
            ("Equals", Kind::List(sides)) => match sides.as_slice() {
                [one, other] => Ok(names.text(one)? == names.text(other)?),
                _ => Err(unknown()),
            },
            ("Not", Kind::List(parts)) => match parts.as_slice() {
                [part] => Ok(!self.holds(part, names)?),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}
