//! The permissions of each function: the policies of the template, evaluated as in IAM.
//!
//! A call that the function's role does not allow is refused as on AWS. So a function that works
//! locally has the permissions that it needs. Unused permissions can be listed.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::{Answer, Call, SEND_EMAIL};
use crate::{
    names::{ACCOUNT, REGION, bus_arn, key_arn, queue_arn, table_arn},
    template::{ConditionKey, Grant, Template},
};

#[derive(Debug, Default)]
pub struct Roles {
    granted: BTreeMap<String, BTreeSet<Grant>>,
    boundary: Option<BTreeSet<Grant>>,
    /// The ids of keys by alias. Permissions name the key.
    aliases: BTreeMap<String, String>,
    used: Mutex<Used>,
}

/// The permissions that the functions have used so far.
#[derive(Debug, Default)]
struct Used {
    /// The needs of each function that were allowed, which are not evaluated again.
    needs: BTreeMap<String, BTreeSet<Grant>>,
    grants: BTreeSet<(String, Grant)>,
}

impl Roles {
    pub fn new(template: &Template) -> Self {
        let granted = template
            .functions
            .iter()
            .map(|function| (function.id.clone(), function.grants.clone()))
            .collect();
        Self {
            granted,
            boundary: template.boundary.clone(),
            aliases: template
                .keys
                .iter()
                .flat_map(|key| {
                    key.aliases
                        .iter()
                        .map(|alias| (alias.clone(), key.id.clone()))
                })
                .collect(),
            used: Mutex::default(),
        }
    }

    /// Refuses a call that the function's role does not allow. A caller that is not a function may
    /// make every call.
    pub(crate) fn check(&self, function: &str, call: &Call<'_>) -> Result<(), Answer> {
        if !self.granted.contains_key(function) {
            return Ok(());
        }
        for need in needs(call, &self.aliases) {
            self.allow(function, &need).map_err(|problem| {
                let status = if call.function().is_some() { 403 } else { 400 };
                Answer::error(status, "AccessDeniedException", &problem)
            })?;
        }
        Ok(())
    }

    /// The function's failure queue, if its role lets Lambda send to it.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>
    pub(crate) fn destination<'a>(
        &self,
        function: &str,
        queue: Option<&'a str>,
    ) -> Option<&'a str> {
        queue.filter(|queue| {
            let need = Grant::new("sqs:SendMessage", queue_arn(queue));
            self.allow(function, &need).is_ok()
        })
    }

    /// Checks that the function's role allows the need and the permissions boundary does not
    /// exclude it.
    fn allow(&self, function: &str, need: &Grant) -> Result<(), String> {
        let mut used = self.used();
        let allowed = used.needs.get(function);
        if allowed.is_some_and(|needs| needs.contains(need)) {
            return Ok(());
        }
        let grants = self.granted.get(function).into_iter().flatten();
        let mut is_allowed = false;
        for grant in grants.filter(|grant| grant.covers(need)) {
            is_allowed = true;
            used.grants.insert((function.to_owned(), grant.clone()));
        }
        let mut boundary = self.boundary.iter();
        let is_within = boundary.all(|grants| grants.iter().any(|grant| grant.covers(need)));
        if is_allowed && is_within {
            let allowed = used.needs.entry(function.to_owned()).or_default();
            allowed.insert(need.clone());
            return Ok(());
        }
        let why = if is_allowed {
            "the permissions boundary in template.yaml does not allow it"
        } else {
            "no policy of the function in template.yaml allows it"
        };
        let (action, resource) = (&need.action, &need.resource);
        let problem = format!(
            "the role of {function} is not authorized to perform {action} on {resource}: {why}"
        );
        tracing::error!("{problem}");
        Err(problem)
    }

    /// Returns the permissions that were granted and never used, by function.
    pub fn unused(&self) -> BTreeSet<(String, Grant)> {
        let used = self.used();
        let granted = self.granted.iter().flat_map(|(function, grants)| {
            grants.iter().map(|grant| (function.clone(), grant.clone()))
        });
        granted
            .filter(|grant| !used.grants.contains(grant))
            .collect()
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    fn new(action: &str, resource: String) -> Self {
        Self {
            action: action.to_owned(),
            resource,
            condition: None,
        }
    }

    fn with(self, key: ConditionKey, value: Option<String>) -> Self {
        let condition = value.map(|value| (key, value));
        Self { condition, ..self }
    }

    fn covers(&self, need: &Self) -> bool {
        matches(&self.resource, &need.resource)
            && (self.condition.is_none() || self.condition == need.condition)
            && self.allows(&need.action)
    }

    /// True if the action, in which `*` matches any text, is this one. Case does not count.
    fn allows(&self, action: &str) -> bool {
        let pattern = self.action.to_ascii_lowercase();
        matches(&pattern, &action.to_ascii_lowercase())
    }
}

/// True if the pattern matches the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))
        }),
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Request<'a> {
    table_name: Option<String>,
    index_name: Option<String>,
    transact_items: Vec<BTreeMap<String, Named>>,
    #[serde(rename = "RequestItems", borrow)]
    batch: BTreeMap<String, &'a RawValue>,
    queue_url: String,
    queue_name: String,
    entries: Vec<Named>,
    secret_id: String,
    key_id: String,
    from_email_address: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Named {
    table_name: Option<String>,
    event_bus_name: Option<String>,
    source: Option<String>,
}

/// Returns the permissions that a call needs. A call without a resource is refused by its service.
fn needs(call: &Call<'_>, aliases: &BTreeMap<String, String>) -> Vec<Grant> {
    if let Some(named) = call.function() {
        let named = percent_decode_str(named).decode_utf8_lossy();
        let name = named.rsplit("function:").next().unwrap_or_default();
        let mut resource = if named.starts_with("arn:") {
            named.to_string()
        } else {
            format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")
        };
        if let Some(qualifier) = call.qualifier()
            && !name.contains(':')
        {
            resource = format!("{resource}:{qualifier}");
        }
        return vec![Grant::new("lambda:InvokeFunction", resource)];
    }
    let request: Request<'_> = serde_json::from_slice(call.body).unwrap_or_default();
    // A batch needs the permission of the single operation.
    let operation = call.operation();
    let operation = operation.strip_suffix("Batch").unwrap_or(operation);
    match call.target.split('.').next().unwrap_or_default() {
        "AmazonSQS" => {
            // `GetQueueUrl` has the name.
            let name = match request.queue_name.as_str() {
                "" => request.queue_url.rsplit('/').next().unwrap_or_default(),
                name => name,
            };
            vec![Grant::new(&format!("sqs:{operation}"), queue_arn(name))]
        }
        "secretsmanager" => {
            let action = format!("secretsmanager:{operation}");
            vec![Grant::new(&action, request.secret_id)]
        }
        "TrentService" => {
            let action = format!("kms:{operation}");
            let named = request.key_id.as_str();
            let alias = named.find("alias/").and_then(|at| named.get(at..));
            let key = match alias.and_then(|alias| aliases.get(alias)) {
                Some(id) => key_arn(id),
                None if named.starts_with("arn:") => named.to_owned(),
                None => key_arn(named),
            };
            vec![Grant::new(&action, key)]
        }
        "" if call.path == SEND_EMAIL => {
            let sender = request.from_email_address;
            let identity = format!("arn:aws:ses:{REGION}:{ACCOUNT}:identity/{sender}");
            vec![Grant::new("ses:SendEmail", identity).with(ConditionKey::Sender, Some(sender))]
        }
        "AWSEvents" => {
            let grant = |entry: Named| {
                let bus = entry.event_bus_name.unwrap_or_else(|| "default".to_owned());
                let name = bus.rsplit('/').next().unwrap_or_default();
                Grant::new(&format!("events:{operation}"), bus_arn(name))
                    .with(ConditionKey::Source, entry.source)
            };
            request.entries.into_iter().map(grant).collect()
        }
        // A transaction needs the permissions of its parts.
        _ if !request.transact_items.is_empty() => {
            let parts = request.transact_items.into_iter().flatten();
            let grant = |(part, named): (String, Named)| {
                let name = named.table_name.unwrap_or_default();
                let action = match part.as_str() {
                    "ConditionCheck" => "dynamodb:ConditionCheckItem".to_owned(),
                    part => format!("dynamodb:{part}Item"),
                };
                Grant::new(&action, table_arn(&name))
            };
            parts.map(grant).collect()
        }
        _ if !request.batch.is_empty() => {
            let action = format!("dynamodb:{operation}");
            let grant = |name: &String| Grant::new(&action, table_arn(name));
            request.batch.keys().map(grant).collect()
        }
        _ => {
            let name = request.table_name.unwrap_or_default();
            let resource = match request.index_name {
                Some(index) => format!("{}/index/{index}", table_arn(&name)),
                None => table_arn(&name),
            };
            vec![Grant::new(&format!("dynamodb:{operation}"), resource)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("a*", "abc"));
        assert!(matches("*c", "abc"));
        assert!(matches("a*c*", "abcd"));
        assert!(!matches("a*d", "abc"));
        assert!(!matches("abc", "abcd"));
    }

    #[test]
    fn an_invocation_needs_the_permission_of_the_alias_in_its_path_or_query() {
        for (named, resource) in [
            ("f", "f"),
            ("function:f", "f"),
            (
                "arn:aws:lambda:us-east-1:000000000000:function:f:live",
                "f:live",
            ),
            ("f:live", "f:live"),
        ] {
            for (query, resource) in [("", resource), ("?Qualifier=live", "f:live")] {
                let path = format!("/2015-03-31/functions/{named}/invocations{query}");
                let (target, body) = ("", b"{}".as_slice());
                let path = path.as_str();
                let needs = needs(&Call { target, path, body }, &BTreeMap::new());
                let resource = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{resource}");
                assert_eq!(needs, [Grant::new("lambda:InvokeFunction", resource)]);
            }
        }
    }

    #[test]
    fn an_action_is_allowed_by_a_pattern_in_any_case() {
        for action in ["dynamodb:GetItem", "dynamodb:Get*", "DynamoDB:getitem", "*"] {
            assert!(Grant::new(action, String::new()).allows("dynamodb:GetItem"));
        }
        assert!(!Grant::new("dynamodb:Put*", String::new()).allows("dynamodb:GetItem"));
    }
}
