//! The expression of an update.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use cairn::{
    guard::{Guard, holds},
    read_model::Change,
};

use super::TableError;

/// An update and its condition.
#[derive(Default)]
pub(super) struct Expression {
    pub(super) set: Vec<String>,
    pub(super) add: Vec<String>,
    pub(super) condition: String,
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// Moves a gate from one version to another. `from` is 0 before the first event.
    pub(super) fn gate(&mut self, gate: &str, from: u64, to: u64) {
        let name = self.name(gate);
        let to = self.value(AttributeValue::N(to.to_string()));
        self.set.push(format!("{name} = {to}"));
        let mut condition = if from == 0 {
            format!("attribute_not_exists({name})")
        } else {
            let from = self.value(AttributeValue::N(from.to_string()));
            format!("{name} = {from}")
        };
        if !holds(Guard::VersionGate) {
            let either = format!("attribute_exists({name}) OR attribute_not_exists({name})");
            condition = format!("({condition} OR {either})");
        }
        if !self.condition.is_empty() {
            self.condition.push_str(" AND ");
        }
        self.condition.push_str(&condition);
    }

    pub(super) fn change(&mut self, change: Change) -> Result<(), TableError> {
        match change {
            Change::Set(path, value) => {
                let path = self.path(&path);
                let value = serde_dynamo::to_attribute_value(value)?;
                let value = self.value(value);
                self.set.push(format!("{path} = {value}"));
            }
            Change::Add(path, by) => {
                let path = self.path(&path);
                let zero = self.value(AttributeValue::N("0".to_owned()));
                let by = self.value(AttributeValue::N(by.to_string()));
                self.set
                    .push(format!("{path} = if_not_exists({path}, {zero}) + {by}"));
            }
        }
        Ok(())
    }

    /// Adds to a top-level counter. Its name can contain any characters.
    pub(super) fn add(&mut self, counter: &str, by: i64) {
        let name = self.name(counter);
        let by = self.value(AttributeValue::N(by.to_string()));
        self.add.push(format!("{name} {by}"));
    }

    pub(super) fn path(&mut self, path: &str) -> String {
        let names: Vec<_> = path.split('.').map(|name| self.name(name)).collect();
        names.join(".")
    }

    pub(super) fn name(&mut self, name: &str) -> String {
        let known = self.names.iter().find(|(_, known)| *known == name);
        if let Some((alias, _)) = known {
            return alias.clone();
        }
        let alias = format!("#n{}", self.names.len());
        self.names.insert(alias.clone(), name.to_owned());
        alias
    }

    pub(super) fn value(&mut self, value: AttributeValue) -> String {
        let alias = format!(":v{}", self.values.len());
        self.values.insert(alias.clone(), value);
        alias
    }

    pub(super) fn text(&self) -> String {
        let section = |keyword: &str, parts: &[String]| {
            (!parts.is_empty()).then(|| format!("{keyword} {}", parts.join(", ")))
        };
        let sections = [section("SET", &self.set), section("ADD", &self.add)];
        sections.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}
