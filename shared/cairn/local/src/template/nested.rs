//! Nested templates.

use std::path::{Path, PathBuf};

use super::{
    conditions::Conditions,
    error::TemplateError,
    fields::Fields,
    model::Queue,
    references::References,
    resource::{Resource, WATCHING, queue, resource},
};
use crate::yaml::parse;

/// Resource types that only a nested template has. Its rules are of the default bus, which carries
/// nothing locally.
const OF_ACCOUNT: [&str; 5] = [
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::Logs::QueryDefinition",
    "AWS::Events::Rule",
    "AWS::Events::EventBusPolicy",
    "AWS::Budgets::Budget",
];

/// The resources of nested templates, named by the nested stack and their own id.
pub(super) struct Nested {
    directory: PathBuf,
    pub(super) queues: Vec<Queue>,
}

impl Nested {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            queues: vec![],
        }
    }

    pub(super) fn take_in(
        &mut self,
        stack: &Resource,
        names: &References,
    ) -> Result<Vec<(String, String)>, TemplateError> {
        let mut properties = Fields::new(&stack.id, stack.properties.clone())?;
        properties.ignore(&["Parameters"]);
        let url = names.text(&properties.required("TemplateURL")?)?;
        properties.finish()?;
        let file = self.directory.join(&url);
        let text = std::fs::read_to_string(&file).map_err(|error| {
            let problem = format!("{} cannot be read: {error}", file.display());
            TemplateError::new(stack.line, problem)
        })?;
        self.outputs(&stack.id, &text)
            .map_err(|error| error.within(&url))
    }

    fn outputs(&mut self, stack: &str, text: &str) -> Result<Vec<(String, String)>, TemplateError> {
        let mut root = Fields::new("the template", parse(text).map_err(TemplateError::at)?)?;
        root.ignore(&[
            "AWSTemplateFormatVersion",
            "Description",
            "Parameters",
            "Conditions",
        ]);
        let mut names = References::default();
        let conditions = Conditions::default();
        for (id, node) in Fields::new("Resources", root.required("Resources")?)?.entries {
            let kind = Fields::new(&id, node.clone())?.required("Type")?;
            let kind = names.text(&kind)?;
            // Before their conditions, which depend on parameters that are not read here.
            if WATCHING.contains(&kind.as_str()) || OF_ACCOUNT.contains(&kind.as_str()) {
                continue;
            }
            let Some(found) = resource(&id, node, &conditions, &names)? else {
                continue;
            };
            match found.kind.as_str() {
                "AWS::SQS::Queue" => {
                    let name = format!("{stack}{id}");
                    let properties = Fields::new(&id, found.properties)?;
                    self.queues.push(queue(&name, properties, &names)?);
                    names.queue(&id, &name);
                }
                kind => {
                    let problem = format!(
                        "{id} is a {kind}, which the local system does not support in a nested stack"
                    );
                    return Err(TemplateError::new(found.line, problem));
                }
            }
        }
        let mut outputs = vec![];
        if let Some(section) = root.take("Outputs") {
            for (id, output) in Fields::new("Outputs", section)?.entries {
                let mut output = Fields::new(&id, output)?;
                output.ignore(&["Description"]);
                outputs.push((id, names.text(&output.required("Value")?)?));
                output.finish()?;
            }
        }
        root.finish()?;
        Ok(outputs)
    }
}
