//! What policies allow: statements, written out.

use std::collections::BTreeSet;

use crate::{
    aws::roles::Grant,
    template::{
        TemplateError,
        names::{Fields, Names, listed},
    },
    yaml::Node,
};

pub(super) fn managed_policy(
    mut properties: Fields,
    names: &Names,
) -> Result<BTreeSet<Grant>, TemplateError> {
    properties.ignore(&["Description", "ManagedPolicyName"]);
    let mut document = Fields::of("PolicyDocument", properties.required("PolicyDocument")?)?;
    properties.finish()?;
    document.ignore(&["Version"]);
    let statements = document.required("Statement")?;
    document.finish()?;
    statements_of(statements, names)
}

/// What policies allow: statements, written out.
pub(super) fn grants(policies: Node, names: &Names) -> Result<BTreeSet<Grant>, TemplateError> {
    let mut grants = BTreeSet::new();
    for policy in listed(policies) {
        let mut policy = Fields::of("a policy", policy)?;
        let statements = policy.required("Statement")?;
        policy.finish()?;
        grants.extend(statements_of(statements, names)?);
    }
    Ok(grants)
}

fn statements_of(statements: Node, names: &Names) -> Result<BTreeSet<Grant>, TemplateError> {
    let mut grants = BTreeSet::new();
    for statement in listed(statements) {
        let mut statement = Fields::of("a statement", statement)?;
        statement.ignore(&["Sid"]);
        let effect = statement.required("Effect")?;
        if names.text(&effect)? != "Allow" {
            return Err(TemplateError::new(
                effect.line,
                "a policy can only allow here",
            ));
        }
        let source = statement
            .take("Condition")
            .map(|condition| source_of(condition, names))
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
                source: source.clone(),
            });
        }
    }
    Ok(grants)
}

/// The one condition that is understood here: the source of the events that may be put.
fn source_of(condition: Node, names: &Names) -> Result<String, TemplateError> {
    let operator = "ForAllValues:StringEquals";
    let mut condition = Fields::of("Condition", condition)?;
    let mut equals = Fields::of(operator, condition.required(operator)?)?;
    condition.finish()?;
    let source = names.text(&equals.required("events:source")?)?;
    equals.finish()?;
    Ok(source)
}
