//! `cairn diff`: compares the state of a stream at two versions.

use std::collections::BTreeMap;

use cairn::{StreamId, past::Moment};
use cairn_aws::operator::Stack;
use clap::{Args, Command};
use serde::Serialize;
use serde_json::{Value, json};

use super::state::{State, past};
use crate::{
    failure::{Failure, Verdict},
    output::Output,
    tool::Tool,
};

/// The place of the variant of an enum, which is no JSON pointer.
const VARIANT: &str = "variant";

/// Compare the state of a stream at two versions
///
/// The places of the changes are JSON pointers within the variant of the state. The row `variant`
/// has the variant itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cairn diff {stream} 1 2
  cairn diff {stream} 2 5 --json | jq '.changes[]'

Exit status: 0 success; 1 no such version; 2 usage error or system unreachable")]
pub(crate) struct Diff {
    /// Stream such as `{stream}`
    stream: StreamId,
    /// First version
    from: u64,
    /// Second version
    to: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Change {
    /// A JSON pointer, or [`VARIANT`].
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

impl Diff {
    pub(crate) fn adapt(command: Command, tool: &Tool) -> Command {
        State::adapt(command, tool)
    }

    pub(crate) async fn run(
        &self,
        tool: &Tool,
        stack: &Stack,
        out: &mut Output,
    ) -> Result<Verdict, Failure> {
        let before = past(tool, stack, &self.stream, Moment::Version(self.from)).await?;
        let after = past(tool, stack, &self.stream, Moment::Version(self.to)).await?;
        let changes = changes(&before.state, &after.state);
        if out.is_json {
            let end = |version, at| json!({ "version": version, "at": at });
            out.document(&json!({
                "stream": self.stream,
                "from": end(before.version, before.at),
                "to": end(after.version, after.at),
                "changes": changes,
            }))?;
            return Ok(Verdict::Well);
        }
        let text = |value: &Option<Value>| value.as_ref().map(Value::to_string).unwrap_or_default();
        let rows: Vec<_> = changes
            .iter()
            .map(|change| {
                [
                    change.path.clone(),
                    text(&change.before),
                    text(&change.after),
                ]
            })
            .collect();
        let heads = [
            "WHERE".to_owned(),
            format!("@{}", self.from),
            format!("@{}", self.to),
        ];
        out.table(heads.each_ref().map(String::as_str), &rows)?;
        Ok(Verdict::Well)
    }
}

fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let (mut before, mut after) = (leaves(before), leaves(after));
    let mut paths: Vec<_> = before.keys().chain(after.keys()).cloned().collect();
    paths.sort();
    paths.dedup();
    let changes = paths.into_iter().filter_map(|path| {
        let (before, after) = (before.remove(&path), after.remove(&path));
        (before != after).then_some(Change {
            path,
            before,
            after,
        })
    });
    changes.collect()
}

/// Returns the values without members, by JSON pointer.
///
/// The variant of an enum is the value [`VARIANT`], so that fields that two variants share are no
/// change.
fn leaves(state: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let is_name = |name: &str| name.starts_with(|first: char| first.is_ascii_uppercase());
    match state {
        Value::String(variant) => {
            found.insert(VARIANT.to_owned(), variant.as_str().into());
        }
        Value::Object(only) if only.len() == 1 && only.keys().all(|name| is_name(name)) => {
            for (variant, fields) in only {
                found.insert(VARIANT.to_owned(), variant.as_str().into());
                collect(fields, "", &mut found);
            }
        }
        other => collect(other, "", &mut found),
    }
    found
}

fn collect(value: &Value, path: &str, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                collect(member, &format!("{path}/{name}"), into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (place, item) in items.iter().enumerate() {
                collect(item, &format!("{path}/{place}"), into);
            }
        }
        leaf => {
            into.insert(path.to_owned(), leaf.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_variant_is_one_change_beside_those_of_its_values() {
        let before = json!({ "Placed": { "lines": [{ "sku": "A" }], "note": "x" } });
        let after = json!({ "Shipped": { "lines": [{ "sku": "A" }, { "sku": "B" }], "by": {} } });
        let change = |path: &str, before: Option<Value>, after: Option<Value>| Change {
            path: path.to_owned(),
            before,
            after,
        };
        assert_eq!(
            changes(&before, &after),
            [
                change("/by", None, Some(json!({}))),
                change("/lines/1/sku", None, Some("B".into())),
                change("/note", Some("x".into()), None),
                change(VARIANT, Some("Placed".into()), Some("Shipped".into())),
            ]
        );
        assert_eq!(changes(&json!("None"), &json!("None")), []);
    }
}
