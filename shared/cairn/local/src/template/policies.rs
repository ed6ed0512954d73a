//! Policies of functions.

use std::collections::BTreeSet;

use super::{
    error::TemplateError,
    fields::{Fields, listed},
    model::{ConditionKey, Grant},
    references::References,
};
use crate::yaml::{Kind, Node};

pub(super) fn managed_policy(
    mut properties: Fields,
    names: &References,
) -> Result<BTreeSet<Grant>, TemplateError> {
    properties.ignore(&["Description", "ManagedPolicyName"]);
    let mut document = Fields::new("PolicyDocument", properties.required("PolicyDocument")?)?;
    properties.finish()?;
    document.ignore(&["Version"]);
    let statements = document.required("Statement")?;
    document.finish()?;
    statements_of(statements, names)
}

pub(super) fn grants(policies: Node, names: &References) -> Result<BTreeSet<Grant>, TemplateError> {
    let mut grants = BTreeSet::new();
    for policy in listed(policies) {
        let name = match &policy.kind {
            Kind::Map(entries) => match entries.as_slice() {
                [(name, _)] if name != "Statement" => Some(name.clone()),
                _ => None,
            },
            _ => names.text(&policy).ok(),
        };
        if let Some(name) = name {
            let problem = format!(
                "the policy {name} is not supported by the local system; write its Statement instead"
            );
            return Err(TemplateError::new(policy.line, problem));
        }
        let mut policy = Fields::new("a policy", policy)?;
        let statements = policy.required("Statement")?;
        policy.finish()?;
        grants.extend(statements_of(statements, names)?);
    }
    Ok(grants)
}

fn statements_of(statements: Node, names: &References) -> Result<BTreeSet<Grant>, TemplateError> {
    let mut grants = BTreeSet::new();
    for statement in listed(statements) {
        let mut statement = Fields::new("a statement", statement)?;
        statement.ignore(&["Sid"]);
        let effect = statement.required("Effect")?;
        if names.text(&effect)? != "Allow" {
            return Err(TemplateError::new(
                effect.line,
                "only Allow statements are supported locally",
            ));
        }
        let condition = statement
            .take("Condition")
            .map(|condition| condition_of(condition, names))
            .transpose()?;
        let actions = listed(statement.required("Action")?);
        let resources = listed(statement.required("Resource")?);
        statement.finish()?;
        for (action, resource) in actions
            .iter()
            .flat_map(|action| resources.iter().map(move |resource| (action, resource)))
        {
            grants.insert(Grant {
                action: names.text(action)?,
                resource: names.text(resource)?,
                condition: condition.clone(),
            });
        }
    }
    Ok(grants)
}

const CONDITIONS: [(&str, &str, ConditionKey); 2] = [
    (
        "ForAllValues:StringEquals",
        "events:source",
        ConditionKey::Source,
    ),
    ("StringEquals", "ses:FromAddress", ConditionKey::Sender),
];

fn condition_of(
    condition: Node,
    names: &References,
) -> Result<(ConditionKey, String), TemplateError> {
    let line = condition.line;
    let mut condition = Fields::new("Condition", condition)?;
    let known = CONDITIONS
        .iter()
        .find_map(|(operator, name, key)| Some((condition.take(operator)?, operator, name, key)));
    let Some((equals, operator, name, key)) = known else {
        let operators = CONDITIONS.map(|(operator, ..)| operator).join(" or ");
        let problem = format!("the local system supports only the conditions {operators}");
        return Err(TemplateError::new(line, problem));
    };
    condition.finish()?;
    let mut equals = Fields::new(operator, equals)?;
    let value = names.text(&equals.required(name)?)?;
    equals.finish()?;
    Ok((*key, value))
}
