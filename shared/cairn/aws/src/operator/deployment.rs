//! The template of a stack as CloudFormation deployed it, and the values of its references.
//!
//! CloudFormation returns the template after the transformation of SAM. So a stack itself states
//! the configuration that its functions must have, and no file is needed.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_GetTemplate.html>

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use serde_json::Value;

use super::query::{CLOUDFORMATION, QueryError, Record, call};

/// A stack or a nested stack.
#[derive(Debug)]
pub(super) struct Deployment {
    /// The template; `Null` of a nested stack.
    template: Value,
    /// The types of the resources by logical id.
    kinds: BTreeMap<String, String>,
    /// The values of parameters, pseudo parameters and resources, by the name in a `Ref`.
    values: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
}

/// The properties of a resource that has none.
const NONE: &Value = &Value::Null;

impl Deployment {
    /// Reads a stack and its nested stacks. The first is the stack itself.
    pub(super) async fn read(aws: &SdkConfig, stack: &str) -> Result<Vec<Self>, QueryError> {
        let mut read = vec![Self::with_template(aws, stack).await?];
        let mut waiting: Vec<_> = read.iter().flat_map(Self::nested).collect();
        while let Some(stack) = waiting.pop() {
            let nested = Self::listed(aws, &stack).await?;
            waiting.extend(nested.nested());
            read.push(nested);
        }
        Ok(read)
    }

    async fn with_template(aws: &SdkConfig, stack: &str) -> Result<Self, QueryError> {
        let listed = Self::listed(aws, stack).await?;
        let texts = &[
            "StackName",
            "StackId",
            "ParameterKey",
            "ParameterValue",
            "OutputKey",
            "OutputValue",
        ];
        let described = ask(aws, stack, "DescribeStacks", texts).await?;
        let template = ask(aws, stack, "GetTemplate", &["TemplateBody"]).await?;
        let mut bodies = template.iter().filter_map(|it| it.get("TemplateBody"));
        let template = bodies
            .next()
            .and_then(|body| serde_json::from_str(body).ok());
        let template = template.ok_or_else(|| {
            QueryError::new("GetTemplate", "the transformed template is not JSON")
        })?;
        let mut values = pairs(&described, "ParameterKey", "ParameterValue");
        // CloudFormation does not return the value of a parameter with `NoEcho`.
        values.retain(|_, value| value != "****");
        let text = |name| described.iter().find_map(|record| record.get(name));
        values.extend(pseudo_parameters(text("StackName"), text("StackId")));
        values.extend(listed.values);
        Ok(Self {
            template,
            kinds: listed.kinds,
            values,
            outputs: pairs(&described, "OutputKey", "OutputValue"),
        })
    }

    /// Reads the resources of a stack without its template. CloudFormation returns a template that
    /// SAM does not transform in the form in which it was sent, which may be YAML.
    async fn listed(aws: &SdkConfig, stack: &str) -> Result<Self, QueryError> {
        let texts = &["LogicalResourceId", "PhysicalResourceId", "ResourceType"];
        let listed = ask(aws, stack, "ListStackResources", texts).await?;
        Ok(Self {
            template: Value::Null,
            kinds: pairs(&listed, "LogicalResourceId", "ResourceType"),
            values: pairs(&listed, "LogicalResourceId", "PhysicalResourceId"),
            outputs: BTreeMap::new(),
        })
    }

    /// Returns a stack with a template, and with the values of its resources and of its outputs.
    #[cfg(test)]
    pub(super) fn of(template: Value, values: &[(&str, &str)], outputs: &[(&str, &str)]) -> Self {
        let texts = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let texts = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            texts.collect()
        };
        Self {
            template,
            kinds: BTreeMap::new(),
            values: texts(values),
            outputs: texts(outputs),
        }
    }

    /// Returns the ARNs of the nested stacks.
    fn nested(&self) -> Vec<String> {
        let nested = self.resources("AWS::CloudFormation::Stack");
        nested
            .filter_map(|(id, _)| self.value(id).map(str::to_owned))
            .collect()
    }

    /// Returns the logical ids and the properties of the resources of a type. A resource whose
    /// condition is false is left out. The resources of a nested stack have no known properties.
    pub(super) fn resources<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let resources = self.template.get("Resources").and_then(Value::as_object);
        let resources = resources.into_iter().flatten();
        let exists = |resource: &Value| {
            let condition = resource.get("Condition").and_then(Value::as_str);
            condition.is_none_or(|name| self.condition(name) != Some(false))
        };
        let listed = self
            .kinds
            .iter()
            .filter(move |(_, found)| self.template.is_null() && found.as_str() == kind);
        let declared = resources
            .filter(move |(_, resource)| {
                resource.get("Type").and_then(Value::as_str) == Some(kind) && exists(resource)
            })
            .map(|(id, resource)| (id.as_str(), resource.get("Properties").unwrap_or(NONE)));
        declared.chain(listed.map(|(id, _)| (id.as_str(), NONE)))
    }

    /// Returns the value of a `Ref`; `None` if it is unknown.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns the output that is an attribute of a resource.
    pub(super) fn output(&self, resource: &str, attribute: &str) -> Option<&str> {
        let outputs = self.template.get("Outputs").and_then(Value::as_object)?;
        let (name, _) = outputs.iter().find(|(_, output)| {
            let parts = output
                .pointer("/Value/Fn::GetAtt")
                .and_then(Value::as_array);
            parts.is_some_and(|parts| parts.iter().eq([resource, attribute]))
        })?;
        self.outputs.get(name).map(String::as_str)
    }

    /// Returns a text, number or switch with its references resolved; `None` if a value is unknown.
    pub(super) fn text(&self, node: &Value) -> Option<String> {
        match self.chosen(node)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Object(call) => match call.iter().next()? {
                (function, Value::String(name)) if function == "Ref" => {
                    self.value(name).map(str::to_owned)
                }
                (function, Value::String(text)) if function == "Fn::Sub" => self.substituted(text),
                _ => None,
            },
            Value::Null | Value::Array(_) => None,
        }
    }

    /// Returns the chosen branch of an `Fn::If`; `None` if it is `AWS::NoValue` or the condition is
    /// unknown. Any other node is its own choice.
    pub(super) fn chosen<'a>(&'a self, node: &'a Value) -> Option<&'a Value> {
        if node.get("Ref").is_some_and(|name| name == "AWS::NoValue") {
            return None;
        }
        match node
            .get("Fn::If")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
        {
            Some([condition, yes, no]) => {
                let holds = self.condition(condition.as_str()?)?;
                self.chosen(if holds { yes } else { no })
            }
            _ => Some(node),
        }
    }

    fn substituted(&self, text: &str) -> Option<String> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}')?;
            out.push_str(before);
            out.push_str(self.value(name)?);
            rest = after;
        }
        Some(out + rest)
    }

    fn condition(&self, name: &str) -> Option<bool> {
        self.holds(self.template.get("Conditions")?.get(name)?)
    }

    fn holds(&self, node: &Value) -> Option<bool> {
        let (function, argument) = node.as_object()?.iter().next()?;
        let parts = argument.as_array().map(Vec::as_slice).unwrap_or_default();
        match (function.as_str(), parts) {
            ("Condition", _) => self.condition(argument.as_str()?),
            ("Fn::Equals", [one, other]) => Some(self.text(one)? == self.text(other)?),
            ("Fn::Not", [part]) => self.holds(part).map(|holds| !holds),
            ("Fn::And", parts) => {
                let holds: Option<Vec<_>> = parts.iter().map(|part| self.holds(part)).collect();
                holds.map(|holds| holds.into_iter().all(|holds| holds))
            }
            ("Fn::Or", parts) => {
                let holds: Option<Vec<_>> = parts.iter().map(|part| self.holds(part)).collect();
                holds.map(|holds| holds.into_iter().any(|holds| holds))
            }
            _ => None,
        }
    }
}

async fn ask(
    aws: &SdkConfig,
    stack: &str,
    operation: &'static str,
    texts: &[&str],
) -> Result<Vec<Record>, QueryError> {
    let named = [("StackName".to_owned(), stack.to_owned())];
    call(aws, CLOUDFORMATION, operation, &named, texts).await
}

/// Returns two texts of each record as a map.
fn pairs(records: &[Record], key: &str, value: &str) -> BTreeMap<String, String> {
    let pair = |record: &Record| Some((record.get(key)?.clone(), record.get(value)?.clone()));
    records.iter().filter_map(pair).collect()
}

/// Returns the pseudo parameters that follow from the name and the ARN of a stack.
fn pseudo_parameters(name: Option<&String>, arn: Option<&String>) -> Vec<(String, String)> {
    let parts: Vec<_> = arn.map(|arn| arn.split(':').collect()).unwrap_or_default();
    let part = |index: usize| parts.get(index).map(|part| (*part).to_owned());
    let values = [
        ("AWS::StackName", name.cloned()),
        ("AWS::StackId", arn.cloned()),
        ("AWS::Partition", part(1)),
        ("AWS::Region", part(3)),
        ("AWS::AccountId", part(4)),
    ];
    let known = values.into_iter();
    known
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> Deployment {
        let values = [
            ("Authorization", "jwt"),
            ("Payments", "sandbox"),
            ("Table", "shop-Table-1"),
        ];
        let template = json!({
            "Conditions": {
                "Closed": { "Fn::Equals": [{ "Ref": "Authorization" }, "jwt"] },
                "Open": { "Fn::Not": [{ "Condition": "Closed" }] },
                "Both": { "Fn::And": [{ "Condition": "Closed" }, { "Condition": "Open" }] },
                "Unknown": { "Fn::Equals": [{ "Ref": "Other" }, "x"] },
            },
            "Resources": {
                "One": { "Type": "T", "Condition": "Closed", "Properties": { "Name": "one" } },
                "Two": { "Type": "T", "Condition": "Both" },
                "Three": { "Type": "T" },
                "Four": { "Type": "U" },
            },
            "Outputs": { "Url": { "Value": { "Fn::GetAtt": ["Api", "ApiEndpoint"] } } },
        });
        Deployment::of(template, &values, &[("Url", "https://api")])
    }

    #[test]
    fn references_have_the_values_of_the_stack_and_others_are_unknown() {
        let deployment = deployment();
        for (node, expected) in [
            (json!("text"), Some("text")),
            (json!(15), Some("15")),
            (json!({ "Ref": "Authorization" }), Some("jwt")),
            (json!({ "Ref": "Table" }), Some("shop-Table-1")),
            (json!({ "Ref": "Other" }), None),
            (json!({ "Ref": "AWS::NoValue" }), None),
            (
                json!({ "Fn::Sub": "a-${Table}/${Payments}" }),
                Some("a-shop-Table-1/sandbox"),
            ),
            (json!({ "Fn::Sub": "${Table.Arn}" }), None),
            (json!({ "Fn::GetAtt": ["Table", "Arn"] }), None),
            (
                json!({ "Fn::If": ["Open", "yes", { "Ref": "Payments" }] }),
                Some("sandbox"),
            ),
            (json!({ "Fn::If": ["Unknown", "yes", "no"] }), None),
        ] {
            assert_eq!(deployment.text(&node).as_deref(), expected, "{node}");
        }
        assert_eq!(deployment.output("Api", "ApiEndpoint"), Some("https://api"));
        assert_eq!(deployment.output("Api", "Other"), None);
    }

    #[test]
    fn a_resource_whose_condition_is_false_is_left_out() {
        let deployment = deployment();
        let found: Vec<_> = deployment.resources("T").map(|(id, _)| id).collect();
        assert_eq!(found, ["One", "Three"]);
    }

    #[test]
    fn the_resources_of_a_nested_stack_are_those_that_cloudformation_lists() {
        let kinds = [("Alarm", "T"), ("Queue", "U")];
        let kinds = kinds.map(|(id, kind)| (id.to_owned(), kind.to_owned()));
        let nested = Deployment {
            template: Value::Null,
            kinds: BTreeMap::from(kinds),
            values: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        let found: Vec<_> = nested.resources("T").collect();
        assert_eq!(found, [("Alarm", &Value::Null)]);
    }
}
