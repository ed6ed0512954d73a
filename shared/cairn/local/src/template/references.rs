//! The values of references, and the values that contain them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{error::TemplateError, fields::Fields, model::Parameters};
use crate::{
    names::{
        ACCOUNT, REGION, alias_arn, bus_arn, function_arn, key_arn, queue_arn, queue_url,
        stream_arn, table_arn,
    },
    yaml::{Kind, Node},
};

#[derive(Default)]
pub(crate) struct References {
    parameters: HashMap<String, String>,
    stack: String,
    refs: HashMap<String, String>,
    attributes: HashMap<(String, String), String>,
}

impl References {
    /// Knows the parameters, with these values, and the pseudo parameters of a stack.
    pub(crate) fn new(stack: &str, parameters: Vec<(String, String)>) -> Self {
        let mut names = Self {
            stack: stack.to_owned(),
            ..Self::default()
        };
        for (name, value) in [
            ("AWS::Region", REGION),
            ("AWS::AccountId", ACCOUNT),
            ("AWS::StackName", stack),
            ("AWS::Partition", "aws"),
            ("AWS::URLSuffix", "amazonaws.com"),
        ] {
            names.parameters.insert(name.to_owned(), value.to_owned());
        }
        names.parameters.extend(parameters);
        names
    }

    /// Returns the name of the stack.
    pub(super) fn stack_name(&self) -> &str {
        &self.stack
    }

    /// Returns the values of the template's parameters, without pseudo parameters.
    pub(super) fn given(&self) -> Parameters {
        let given = self.parameters.iter();
        given
            .filter(|(name, _)| !name.contains("::"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Returns a text as CloudFormation shows it in a template: a reference to a parameter stays.
    pub(super) fn unresolved(&self, node: &Node) -> Result<Value, TemplateError> {
        if let Kind::Call(function, argument) = &node.kind
            && let Kind::Text(name) = &argument.kind
            && function == "Ref"
            && self.parameters.contains_key(name)
        {
            return Ok(json!({ "Ref": name }));
        }
        self.text(node).map(Value::from)
    }

    /// Registers a resource. Its own properties may refer to earlier resources.
    pub(super) fn resource(
        &mut self,
        id: &str,
        kind: &str,
        properties: &Node,
    ) -> Result<(), TemplateError> {
        let reference = match kind {
            "AWS::DynamoDB::Table" => {
                self.attribute(id, "StreamArn", stream_arn(id));
                self.attribute(id, "Arn", table_arn(id));
                id.to_owned()
            }
            "AWS::SQS::Queue" => {
                self.queue(id, id);
                return Ok(());
            }
            "AWS::Events::EventBus" => {
                let mut bus = Fields::new(id, properties.clone())?;
                let name = self.text(&bus.required("Name")?)?;
                self.attribute(id, "Arn", bus_arn(&name));
                name
            }
            "AWS::Serverless::Function" => {
                let name = format!("{}-{id}", self.stack);
                self.attribute(id, "Arn", function_arn(&name));
                self.attribute(id, "Alias", alias_arn(&name));
                id.to_owned()
            }
            "AWS::KMS::Key" => {
                self.attribute(id, "Arn", key_arn(id));
                id.to_owned()
            }
            "AWS::KMS::Alias" => {
                let mut alias = Fields::new(id, properties.clone())?;
                self.text(&alias.required("AliasName")?)?
            }
            "AWS::Logs::LogGroup" => {
                let arn = format!("arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{id}:*");
                self.attribute(id, "Arn", arn);
                id.to_owned()
            }
            _ => id.to_owned(),
        };
        self.refs.insert(id.to_owned(), reference);
        Ok(())
    }

    /// Registers a nested stack with its outputs.
    pub(super) fn stack(&mut self, id: &str, outputs: Vec<(String, String)>) {
        for (output, value) in outputs {
            self.attribute(id, &format!("Outputs.{output}"), value);
        }
        self.refs.insert(id.to_owned(), id.to_owned());
    }

    /// Registers a queue whose local name may differ from its logical id.
    pub(crate) fn queue(&mut self, id: &str, name: &str) {
        self.attribute(id, "Arn", queue_arn(name));
        self.attribute(id, "QueueName", name.to_owned());
        self.refs.insert(id.to_owned(), queue_url(name));
    }

    fn attribute(&mut self, id: &str, name: &str, value: String) {
        self.attributes
            .insert((id.to_owned(), name.to_owned()), value);
    }

    fn reference(&self, name: &str, line: usize) -> Result<String, TemplateError> {
        let known = self.refs.get(name).or_else(|| self.parameters.get(name));
        if let Some(value) = known {
            return Ok(value.clone());
        }
        if let Some((id, attribute)) = name.split_once('.') {
            let key = (id.to_owned(), attribute.to_owned());
            if let Some(value) = self.attributes.get(&key) {
                return Ok(value.clone());
            }
        }
        Err(TemplateError::new(
            line,
            format!("unknown reference {name}"),
        ))
    }

    /// Returns a value with every reference resolved.
    pub(crate) fn value(&self, node: &Node) -> Result<Value, TemplateError> {
        Ok(match &node.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Int(value) => (*value).into(),
            Kind::Float(value) => (*value).into(),
            Kind::Text(text) => text.as_str().into(),
            Kind::List(items) => items
                .iter()
                .map(|item| self.value(item))
                .collect::<Result<_, _>>()?,
            Kind::Map(entries) => {
                let entry = |(key, value): &(String, Node)| Ok((key.clone(), self.value(value)?));
                Value::Object(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Kind::Call(function, argument) => self.call(function, argument)?.into(),
        })
    }

    /// Returns the node with every reference resolved.
    pub(crate) fn resolved(&self, node: &Node) -> Result<Node, TemplateError> {
        let kind = match &node.kind {
            Kind::List(items) => {
                let items = items.iter().map(|item| self.resolved(item));
                Kind::List(items.collect::<Result<_, _>>()?)
            }
            Kind::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), self.resolved(value)?)));
                Kind::Map(entries.collect::<Result<_, _>>()?)
            }
            Kind::Call(function, argument) => Kind::Text(self.call(function, argument)?),
            kind @ (Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Text(_)) => {
                kind.clone()
            }
        };
        Ok(Node {
            line: node.line,
            kind,
        })
    }

    fn call(&self, function: &str, argument: &Node) -> Result<String, TemplateError> {
        let wrong = |problem| TemplateError::new(argument.line, problem);
        match (function, &argument.kind) {
            ("Ref" | "GetAtt", Kind::Text(name)) => self.reference(name, argument.line),
            // The long form can have a resource and its attribute in a list.
            ("GetAtt", Kind::List(_)) => {
                self.reference(&self.texts(argument)?.join("."), argument.line)
            }
            ("Sub", Kind::Text(text)) => self.substitute(text, &[], argument.line),
            ("Sub", Kind::List(parts)) => match parts.as_slice() {
                [
                    Node {
                        kind: Kind::Text(text),
                        ..
                    },
                    Node {
                        kind: Kind::Map(values),
                        ..
                    },
                ] => self.substitute(text, values, argument.line),
                _ => Err(wrong("!Sub takes a text, or a text and a map")),
            },
            ("Join", Kind::List(parts)) => match parts.as_slice() {
                [separator, texts] => Ok(self.texts(texts)?.join(&self.text(separator)?)),
                _ => Err(wrong("!Join takes a separator and a list")),
            },
            ("Select", Kind::List(parts)) => {
                let [index, texts] = parts.as_slice() else {
                    return Err(wrong("!Select takes an index and a list"));
                };
                let (index, texts) = (self.number(index)?, self.texts(texts)?);
                let selected = texts.into_iter().nth(index);
                selected.ok_or_else(|| wrong("!Select has an index after the end of the list"))
            }
            _ => {
                let problem = format!("!{function} is not supported locally");
                Err(TemplateError::new(argument.line, problem))
            }
        }
    }

    /// Replaces each `${NAME}` by its value, and `${!NAME}` by `${NAME}`.
    fn substitute(
        &self,
        text: &str,
        values: &[(String, Node)],
        line: usize,
    ) -> Result<String, TemplateError> {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| TemplateError::new(line, "a ${ in this text is not closed"))?;
            out.push_str(before);
            let given = values.iter().find(|(given, _)| given == name);
            let replaced = match (name.strip_prefix('!'), given) {
                (Some(literal), _) => format!("${{{literal}}}"),
                (None, Some((_, value))) => self.text(value)?,
                (None, None) => self.reference(name, line)?,
            };
            out.push_str(&replaced);
            rest = after;
        }
        Ok(out + rest)
    }

    pub(crate) fn text(&self, node: &Node) -> Result<String, TemplateError> {
        match self.value(node)? {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(TemplateError::new(node.line, "a text is required here"))
            }
        }
    }

    /// Reads several texts: a list of texts, a parameter with a list, or one text that is split.
    pub(crate) fn texts(&self, node: &Node) -> Result<Vec<String>, TemplateError> {
        let wrong = || TemplateError::new(node.line, "a list of texts is required here");
        match &node.kind {
            Kind::List(items) => items.iter().map(|item| self.text(item)).collect(),
            Kind::Call(function, argument) if function == "Split" => {
                let Kind::List(parts) = &argument.kind else {
                    return Err(wrong());
                };
                let [separator, text] = parts.as_slice() else {
                    return Err(wrong());
                };
                let (separator, text) = (self.text(separator)?, self.text(text)?);
                Ok(text.split(separator.as_str()).map(String::from).collect())
            }
            Kind::Call(function, argument) if function == "Ref" => {
                let Kind::Text(name) = &argument.kind else {
                    return Err(wrong());
                };
                let list = self.parameters.get(name).ok_or_else(wrong)?;
                Ok(list.split(',').map(|text| text.trim().to_owned()).collect())
            }
            _ => Err(wrong()),
        }
    }

    pub(crate) fn number<T: TryFrom<u64>>(&self, node: &Node) -> Result<T, TemplateError> {
        // Parameter values are texts, which CloudFormation converts to the type of the property.
        let number = match self.value(node)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| TemplateError::new(node.line, "a number is required here"))
    }
}
